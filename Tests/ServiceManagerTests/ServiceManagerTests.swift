// What is told to the service manager, and what is taken from it.

import Glibc
import Shim
import Testing

@testable import ServiceManager

@Suite("The service manager") struct ServiceManagerTests {
  /// A socket as the manager has one.
  private struct Manager: ~Copyable {
    let name = "@pilot-test-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
    let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)

    init() throws {
      var address = sockaddr_un()
      address.sun_family = sa_family_t(AF_UNIX)
      var bytes = Array(name.utf8)
      bytes[0] = 0
      withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
      let length = socklen_t(MemoryLayout<sa_family_t>.size + bytes.count)
      let bound = withUnsafePointer(to: &address) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, length) }
      }
      try #require(bound == 0)
    }

    deinit { close(descriptor) }

    /// The next datagram, with the descriptor that came with it.
    func next() throws -> (text: String, descriptor: Int32?) {
      var buffer = [UInt8](repeating: 0, count: 512)
      var control = [UInt64](repeating: 0, count: 4)
      let result: (Int, Int32?) = buffer.withUnsafeMutableBytes { bytes in
        control.withUnsafeMutableBytes { control in
          var slice = iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)
          return withUnsafeMutablePointer(to: &slice) { slice in
            var message = msghdr()
            message.msg_iov = slice
            message.msg_iovlen = 1
            message.msg_control = control.baseAddress
            message.msg_controllen = control.count
            let count = recvmsg(descriptor, &message, Int32(MSG_DONTWAIT))
            // One cmsghdr of 16 bytes and the number behind it.
            let hasOne = message.msg_controllen >= 20
            return (count, hasOne ? control.loadUnaligned(fromByteOffset: 16, as: Int32.self) : nil)
          }
        }
      }
      try #require(result.0 > 0)
      return (String(decoding: buffer[..<result.0], as: UTF8.self), result.1)
    }
  }

  @Test("it gets what a program says, one message per call, and no text adds a line")
  func messages() throws {
    let manager = try Manager()
    let notifier = ServiceNotifier(environment: ["NOTIFY_SOCKET": manager.name], process: 1)
    #expect(notifier.isManaged)
    notifier.ready("line\nREADY=0")
    notifier.status("well")
    notifier.reloading()
    notifier.stopping()
    notifier.alive()
    notifier.forget("tun")
    #expect(try manager.next().text == "READY=1\nSTATUS=line READY=0")
    #expect(try manager.next().text == "STATUS=well")
    #expect(try manager.next().text.hasPrefix("RELOADING=1\nMONOTONIC_USEC="))
    #expect(try manager.next().text == "STOPPING=1\nSTATUS=stopping")
    #expect(try manager.next().text == "WATCHDOG=1")
    #expect(try manager.next().text == "FDSTOREREMOVE=1\nFDNAME=tun")
  }

  @Test("a descriptor that it shall keep travels with its name")
  func descriptors() throws {
    let manager = try Manager()
    let kept = pt_memory_file("kept")
    defer { close(kept) }
    let content: [UInt8] = [1, 2, 3]
    let isWritten = pt_memory_file_write(kept, content, content.count) == 0
    #expect(isWritten)
    ServiceNotifier(environment: ["NOTIFY_SOCKET": manager.name], process: 1).keep(kept, as: "peers")
    let (text, descriptor) = try manager.next()
    #expect(text == "FDSTORE=1\nFDPOLL=0\nFDNAME=peers")
    let copy = try #require(descriptor)
    defer { close(copy) }
    var bytes: [UInt8] = [0, 0, 0, 0]
    let count = pt_memory_file_read(copy, &bytes, 4)
    #expect(count == 3 && bytes == [1, 2, 3, 0])
  }

  @Test("without a manager nothing happens", arguments: [[:], ["NOTIFY_SOCKET": ""], ["NOTIFY_SOCKET": "vsock:2:1"]])
  func nobody(environment: [String: String]) {
    let notifier = ServiceNotifier(environment: environment.merging(["WATCHDOG_USEC": "1000"]) { $1 }, process: 1)
    #expect(!notifier.isManaged && notifier.watchdogLimit == nil)
    notifier.ready("nobody listens")
  }

  @Test(
    "the watchdog is for this process, and a sane time",
    arguments: [
      (["WATCHDOG_USEC": "30000000"], 30_000_000_000), (["WATCHDOG_USEC": "1", "WATCHDOG_PID": "7"], 1000),
      (["WATCHDOG_USEC": "1", "WATCHDOG_PID": "8"], nil), (["WATCHDOG_USEC": "1", "WATCHDOG_PID": "x"], nil),
      (["WATCHDOG_USEC": "0"], nil), (["WATCHDOG_USEC": "-5"], nil), (["WATCHDOG_USEC": "18446744073709551615"], nil),
      (["WATCHDOG_PID": "7"], nil),
    ] as [([String: String], UInt64?)])
  func watchdog(environment: [String: String], expected: UInt64?) {
    #expect(ServiceNotifier.watchdogLimit(environment, process: 7) == expected)
  }

  @Test(
    "what was passed is named in order, and only what is meant for this process",
    arguments: [
      (["LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "tun:socket"], ["tun=3", "socket=4"]),
      (["LISTEN_PID": "7", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "tun::"], ["tun=3", "unknown=4", "unknown=5"]),
      (["LISTEN_PID": "7", "LISTEN_FDS": "1"], ["unknown=3"]),
      (["LISTEN_PID": "7", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a:b:c"], ["a=3"]),
      (["LISTEN_PID": "8", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "tun"], []),
      (["LISTEN_FDS": "1", "LISTEN_FDNAMES": "tun"], []),
      (["LISTEN_PID": "7", "LISTEN_FDS": "-1"], []), (["LISTEN_PID": "7", "LISTEN_FDS": "0"], []),
      (["LISTEN_PID": "7", "LISTEN_FDS": "65"], []), (["LISTEN_PID": "7", "LISTEN_FDS": "9999999999999"], []),
      (["LISTEN_PID": "7", "LISTEN_FDS": "two"], []), ([:], []),
    ] as [([String: String], [String])])
  func passed(environment: [String: String], expected: [String]) {
    let named = PassedDescriptors.named(environment, process: 7).map { "\($0.name)=\($0.descriptor)" }
    #expect(named == expected)
  }

  @Test("a number that is not open is not taken for a descriptor")
  func closedNumbers() {
    let environment = ["LISTEN_PID": "7", "LISTEN_FDS": "64"]
    let passed = PassedDescriptors(environment: environment, process: 7)
    let open = (3..<67).filter { fcntl(Int32($0), F_GETFD) >= 0 }.count
    #expect(passed.left.count == open)
  }
}
