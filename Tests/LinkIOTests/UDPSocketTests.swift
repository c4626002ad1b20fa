// The underlay socket over loopback: batches, segmentation offload and its absence, both families.

import Glibc
import SeededRandom
import Shim
import Testing
import Wire

@testable import LinkIO

@Suite struct UDPSocketTests {
  private static let loopback4 = Endpoint(address: IPv6Address(mappedIPv4: 0x7F00_0001), port: 0)
  private static let loopback6 = Endpoint(address: IPv6Address(high: 0, low: 1), port: 0)

  @Test func aSocketThatWasKeptGoesOnWithWhatWaitsInIt() throws {
    let sender = try UDPSocket(local: Self.loopback4)
    var kept: Int32 = -1
    var before = Endpoint(address: IPv6Address(high: 0, low: 0), port: 0)
    do {
      let first = try UDPSocket(local: Self.loopback4)
      before = first.local
      kept = dup(first.fd)
    }
    #expect(send(sender, [([1, 2, 3], 0)], to: before) == 1)
    let again = try UDPSocket(adopting: kept, local: Self.loopback4, takesAnyPort: true)
    #expect(again.local == before && again.family == sender.family && again.isOn("udp-gro"))
    var bytes = [UInt8](repeating: 0, count: 16)
    #expect(recv(again.fd, &bytes, bytes.count, 0) == 3)
  }

  @Test func whatIsNoSocketOfOursIsRefusedAndClosed() throws {
    let udp = Int32(SOCK_DGRAM.rawValue)
    let here = try UDPSocket(local: Self.loopback4)
    let connected = socket(AF_INET, udp, 0)
    var raw = sockaddr_in(
      sin_family: sa_family_t(AF_INET), sin_port: here.local.port.bigEndian,
      sin_addr: in_addr(s_addr: UInt32(0x7F00_0001).bigEndian), sin_zero: (0, 0, 0, 0, 0, 0, 0, 0))
    let size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let isConnected = withUnsafePointer(to: &raw) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(connected, $0, size) }
    }
    #expect(isConnected == 0)
    let strangers = [
      socket(AF_UNIX, udp, 0), socket(AF_INET6, Int32(SOCK_STREAM.rawValue), 0), socket(AF_INET6, udp, 0),
      open("/dev/null", O_RDWR), 987, connected, dup(here.fd),
    ]
    for (place, descriptor) in strangers.enumerated() {
      // The last one is good, and bound elsewhere.
      let error = linkError {
        _ = try UDPSocket(adopting: descriptor, local: Endpoint("127.0.0.1:9")!, takesAnyPort: false)
      }
      #expect(error?.kind == .descriptorUnusable, "\(place): \(String(describing: error))")
      #expect(fcntl(descriptor, F_GETFD) < 0)
    }
    let error = linkError { _ = try UDPSocket(adopting: dup(here.fd), local: Self.loopback6, takesAnyPort: true) }
    #expect(error?.kind == .descriptorUnusable)
    let same = try UDPSocket(adopting: dup(here.fd), local: here.local, takesAnyPort: false)
    #expect(same.local == here.local)
  }

  /// One datagram or train as it came in.
  private struct Arrival: Equatable {
    var bytes: [UInt8]
    var segment: Int
    var from: Endpoint
  }

  private func send(
    _ socket: borrowing UDPSocket, _ messages: [(bytes: [UInt8], segment: UInt16)], to: Endpoint
  ) -> Int32 {
    let joined = messages.flatMap(\.bytes)
    let buffer = UnsafeMutableRawPointer.allocate(byteCount: max(joined.count, 1), alignment: 8)
    defer { buffer.deallocate() }
    joined.withUnsafeBytes { source in
      if let base = source.baseAddress { buffer.copyMemory(from: base, byteCount: joined.count) }
    }
    var offset = 0
    let list = messages.map { message in
      defer { offset += message.bytes.count }
      return pt_send(
        data: buffer + offset, length: UInt32(message.bytes.count), segment: message.segment, reserved: 0,
        to: pt_endpoint(to))
    }
    return pt_udp_send(socket.fd, socket.family, list, Int32(list.count))
  }

  /// Waits for readability (at most 5 s) and reads until `count` bytes came.
  private func receive(_ socket: borrowing UDPSocket, bytes count: Int) -> [Arrival] {
    let slots = 8
    let capacity = 65_536
    let buffer = UnsafeMutableRawPointer.allocate(byteCount: slots * capacity, alignment: 64)
    defer { buffer.deallocate() }
    var arrivals: [Arrival] = []
    while arrivals.reduce(0, { $0 + $1.bytes.count }) < count {
      var fd = socket.fd
      guard pt_poll(&fd, 1, 5000) == 1 else { break }
      var list = (0..<slots).map { slot in
        pt_receive(
          data: buffer + slot * capacity, capacity: UInt32(capacity), length: 0, segment: 0, truncated: 0,
          from: pt_endpoint())
      }
      let received = pt_udp_receive(socket.fd, &list, Int32(slots))
      guard received > 0 else { continue }
      for item in list.prefix(Int(received)) {
        #expect(item.truncated == 0)
        let bytes = UnsafeRawBufferPointer(start: item.data, count: Int(item.length))
        arrivals.append(Arrival(bytes: Array(bytes), segment: Int(item.segment), from: Endpoint(item.from)))
      }
    }
    return arrivals
  }

  private func payload(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
    var generator = SeededGenerator(seed: seed)
    return (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
  }

  @Test(arguments: [false, true]) func aTrainSentWithGSOArrivesInOnePieceWithGRO(isIPv4: Bool) throws {
    let sender = try UDPSocket(port: 0)
    let receiver = try UDPSocket(port: 0)
    let hasOffloads = sender.isOn("udp-gso") && receiver.isOn("udp-gro")
    try #require(hasOffloads, "this kernel has UDP_SEGMENT and UDP_GRO")
    let host = isIPv4 ? Self.loopback4 : Self.loopback6
    let bytes = payload(1436 * 40 + 500)
    let to = Endpoint(address: host.address, port: receiver.local.port)
    #expect(send(sender, [(bytes, 1436)], to: to) == 1)
    let arrivals = receive(receiver, bytes: bytes.count)
    #expect(arrivals.flatMap(\.bytes) == bytes)
    #expect(arrivals.count == 1, "41 datagrams in one read")
    #expect(arrivals.allSatisfy { $0.segment == 1436 })
    #expect(arrivals.first?.from == Endpoint(address: host.address, port: sender.local.port))
  }

  @Test func withoutGROTheSameTrainArrivesAsDatagrams() throws {
    let sender = try UDPSocket(port: 0)
    let receiver = try UDPSocket(port: 0, disabled: ["udp-gro"])
    #expect(receiver.offloads.first { $0.name == "udp-gro" }?.reason == "switched off by configuration")
    let bytes = payload(1000 * 5 + 1)
    let to = Endpoint(address: Self.loopback6.address, port: receiver.local.port)
    #expect(send(sender, [(bytes, 1000)], to: to) == 1)
    let arrivals = receive(receiver, bytes: bytes.count)
    #expect(arrivals.map(\.bytes.count) == [1000, 1000, 1000, 1000, 1000, 1])
    #expect(arrivals.flatMap(\.bytes) == bytes)
    #expect(arrivals.allSatisfy { $0.segment == 0 })
  }

  @Test func groCanBeSwitchedOffWhileRunning() throws {
    let sender = try UDPSocket(port: 0)
    var receiver = try UDPSocket(port: 0)
    receiver.disable("udp-gro", reason: "test")
    #expect(receiver.offloads.contains(OffloadState(name: "udp-gro", isOn: false, reason: "test")))
    let bytes = payload(3000)
    let to = Endpoint(address: Self.loopback4.address, port: receiver.local.port)
    #expect(send(sender, [(bytes, 1000)], to: to) == 1)
    #expect(receive(receiver, bytes: 3000).count == 3)
  }

  @Test func aPlainBatchKeepsItsSizesAndItsOrder() throws {
    let sender = try UDPSocket(port: 0, disabled: ["udp-gso"])
    #expect(sender.offloads.first { $0.name == "udp-gso" }?.isOn == false)
    let receiver = try UDPSocket(port: 0, disabled: ["udp-gro"])
    let sizes = [1, 36, 64, 512, 1372, 1436, 1472, 9000, 1]
    let messages = sizes.enumerated().map { (bytes: payload($1, seed: UInt64($0)), segment: UInt16(0)) }
    let to = Endpoint(address: Self.loopback6.address, port: receiver.local.port)
    #expect(send(sender, messages, to: to) == Int32(sizes.count))
    let arrivals = receive(receiver, bytes: sizes.reduce(0, +))
    #expect(arrivals.map(\.bytes) == messages.map(\.bytes))
  }

  @Test func moreThanABatchIsSentInPart() throws {
    let sender = try UDPSocket(port: 0)
    let receiver = try UDPSocket(port: 0, disabled: ["udp-gro"])
    let messages = (0..<100).map { (bytes: payload(20, seed: UInt64($0)), segment: UInt16(0)) }
    let to = Endpoint(address: Self.loopback6.address, port: receiver.local.port)
    #expect(send(sender, messages, to: to) == PT_UDP_BATCH)
    #expect(receive(receiver, bytes: 20 * 64).map(\.bytes) == messages.prefix(64).map(\.bytes))
  }

  @Test("what the link does not take is refused, not fragmented, and DF is set for both families")
  func noFragments() throws {
    let sender = try UDPSocket(port: 0)
    func option(_ level: Int, _ name: Int32) throws -> Int32 {
      var value: Int32 = -1
      var length = socklen_t(4)
      try #require(getsockopt(sender.fd, Int32(level), name, &value, &length) == 0)
      return value
    }
    // PROBE: DF set, and the kernel's own memory of path MTUs (which strangers' ICMP fills) is not asked.
    #expect(try option(IPPROTO_IP, IP_MTU_DISCOVER) == IP_PMTUDISC_PROBE)
    try #require(sender.family == 6, "this kernel has no IPv6")
    #expect(try option(IPPROTO_IPV6, IPV6_MTU_DISCOVER) == IPV6_PMTUDISC_PROBE)
    let receiver = try UDPSocket(port: 0)
    let to = Endpoint(address: Self.loopback6.address, port: receiver.local.port)
    var route = pt_endpoint(to)
    let room = Int(pt_udp_route_mtu(&route)) - 48
    try #require((1..<65_507).contains(room), "loopback takes more than any datagram")
    #expect(send(sender, [(payload(room + 1), 0)], to: to) == -EMSGSIZE)
    #expect(send(sender, [(payload(room), 0)], to: to) == 1)
  }

  @Test func aTooShortBufferIsTold() throws {
    let sender = try UDPSocket(port: 0)
    let receiver = try UDPSocket(port: 0, disabled: ["udp-gro"])
    _ = send(sender, [(payload(100), 0)], to: Endpoint(address: Self.loopback6.address, port: receiver.local.port))
    var fd = receiver.fd
    #expect(pt_poll(&fd, 1, 5000) == 1)
    let buffer = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 8)
    defer { buffer.deallocate() }
    var slot = pt_receive(data: buffer, capacity: 64, length: 0, segment: 0, truncated: 0, from: pt_endpoint())
    #expect(pt_udp_receive(receiver.fd, &slot, 1) == 1)
    #expect(slot.truncated == 1 && slot.length == 64)
    #expect(pt_udp_receive(receiver.fd, &slot, 1) == -ErrorNumber.tryAgain)
  }

  @Test func theErrorOfTheFirstMessageComesBack() throws {
    let sender = try UDPSocket(port: 0)
    let to = Endpoint(address: Self.loopback4.address, port: sender.local.port)
    // 128 segments are the most one train may have; a datagram above 65507 bytes does not exist.
    #expect(send(sender, [(payload(2000), 1)], to: to) < 0)
    #expect(send(sender, [(payload(65_530), 0)], to: to) == -ErrorNumber.messageTooLong)
  }

  @Test func aTakenPortIsNamedWithItsRemedy() throws {
    let first = try UDPSocket(port: 0)
    let port = first.local.port
    let error = linkError { _ = try UDPSocket(port: port) }
    #expect(error?.kind == .udpPortTaken)
    #expect(error?.message == "Cannot bind UDP [::]:\(port): bind failed with EADDRINUSE (98)")
    #expect(error?.hint?.contains("\(port)") == true)
  }

  @Test func anAddressOfNobodyIsNamedWithItsRemedy() {
    let nobody = Endpoint(address: IPv6Address(mappedIPv4: 0xC000_0201), port: 0)
    let error = linkError { _ = try UDPSocket(local: nobody) }
    #expect(error?.kind == .udpAddressUnavailable)
  }

  @Test func bindsOneFamilyWhenAsked() throws {
    let socket = try UDPSocket(local: Self.loopback4)
    #expect(socket.local.address == Self.loopback4.address)
    #expect(socket.local.port != 0)
    #expect(socket.family == 6)
  }

  @Test func buffersAreAsLargeAsRootMayHave() throws {
    let socket = try UDPSocket(port: 0)
    #expect(socket.receiveBufferSize >= 7 << 20, "needs CAP_NET_ADMIN: run as root")
    #expect(socket.sendBufferSize >= 7 << 20, "needs CAP_NET_ADMIN: run as root")
  }

  @Test func closingGivesThePortBack() throws {
    var port: UInt16 = 0
    do {
      let socket = try UDPSocket(port: 0)
      port = socket.local.port
    }
    let again = try UDPSocket(port: port)
    #expect(again.local.port == port)
  }

  @Test func endpointsConvertBothWays() {
    for text in ["10.1.2.3:4000", "[2001:db8::1]:65535", "[::1]:0"] {
      guard let endpoint = Endpoint(text) else {
        Issue.record("\(text) is an endpoint")
        continue
      }
      #expect(Endpoint(pt_endpoint(endpoint)) == endpoint)
    }
  }
}
