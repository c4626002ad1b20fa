// The stub over real sockets on ::1.
import SeededRandom
import Foundation
import Naming
import Synchronization
import Testing
import Wire

@Suite struct StubServerTests {
  @Test("a name is answered over UDP and over TCP, and counted")
  func bothTransports() async throws {
    try await withStub { stub in
      let udp = try #require(Client(stub.endpoint))
      #expect(await udp.exchange(query("specialist-papers.pilot", .aaaa))?.answers.map(\.data) == [.aaaa(papers)])
      let tcp = try #require(Client(stub.endpoint, stream: true))
      await tcp.send(framed(query("specialist-papers.pilot", .aaaa)))
      let bytes = try #require(await tcp.receiveFramed())
      #expect(DNSMessage(bytes)?.answers.map(\.data) == [.aaaa(papers)])
      #expect(stub.counters[.queriesUDP] == 1)
      #expect(stub.counters[.queriesTCP] == 1)
      #expect(stub.counters[.answersFound] == 2)
      #expect(stub.counters.snapshot["answers_found"] == 2)
    }
  }

  @Test("many queries in one TCP stream, cut anywhere, are all answered, also after the asker finished sending")
  func pipelining() async throws {
    try await withStub { stub in
      let tcp = try #require(Client(stub.endpoint, stream: true))
      var stream: [UInt8] = []
      for id in 0..<100 as Range<UInt16> {
        let text = id.isMultiple(of: 2) ? "specialist-papers.pilot" : "example.com"
        stream += framed(DNSMessage.query(id: id, name(text), .aaaa).encoded())
      }
      var random = SeededGenerator(seed: 3)
      var rest = stream[...]
      while !rest.isEmpty {
        let piece = rest.prefix(Int.random(in: 1...300, using: &random))
        await tcp.send(Array(piece))
        rest = rest.dropFirst(piece.count)
      }
      tcp.finishSending()
      var seen: Set<UInt16> = []
      for _ in 0..<100 {
        let bytes = try #require(await tcp.receiveFramed())
        let reply = try #require(DNSMessage(bytes))
        #expect(reply.responseCode == (reply.id.isMultiple(of: 2) ? .noError : .refused))
        seen.insert(reply.id)
      }
      #expect(seen.count == 100)
      #expect(await tcp.receive() == [])
    }
  }

  @Test("an idle TCP connection, and one that only dribbles, is closed")
  func idle() async throws {
    try await withStub(TableSource(), { $0.idleTimeout = .milliseconds(200) }) { stub in
      let silent = try #require(Client(stub.endpoint, stream: true))
      let dribbling = try #require(Client(stub.endpoint, stream: true))
      await dribbling.send([0])
      #expect(await silent.receive() == [])
      #expect(await dribbling.receive() == [])
      #expect(stub.counters[.connectionsIdle] == 2)
    }
  }

  @Test("impossible lengths close the TCP connection", arguments: [0, 11, 4097, 65535])
  func lengths(length: Int) async throws {
    try await withStub { stub in
      let tcp = try #require(Client(stub.endpoint, stream: true))
      await tcp.send([UInt8(length >> 8), UInt8(length & 255)])
      #expect(await tcp.receive() == [])
      #expect(stub.counters[.connectionsBroken] == 1)
    }
  }

  @Test("connections above the limit are refused and counted")
  func connectionLimit() async throws {
    try await withStub(TableSource(), { $0.maximumConnections = 1 }) { stub in
      let first = try #require(Client(stub.endpoint, stream: true))
      await first.send(framed(query("pilot", .soa)))
      #expect(await first.receiveFramed() != nil)
      let second = try #require(Client(stub.endpoint, stream: true))
      let end = await second.receive()
      #expect(end == nil || end == [])
      #expect(stub.counters[.connectionsRefused] == 1)
      await first.send(framed(query("pilot", .soa)))
      #expect(await first.receiveFramed() != nil)
    }
  }

  @Test("a source that is no address of this machine gets silence by UDP and a closed connection by TCP")
  func strangers() async throws {
    let lists = Atomic<Int>(0)
    let isHome = Atomic(false)
    let now = Atomic<UInt64>(1_000_000_000)
    let home = IPv6Address(high: 0, low: 1)
    try await withStub(
      TableSource(),
      {
        $0.listClients = {
          lists.add(1, ordering: .relaxed)
          return isHome.load(ordering: .relaxed) ? [home] : []
        }
      }, clock: { now.load(ordering: .relaxed) }
    ) { stub in
      let udp = try #require(Client(stub.endpoint))
      for _ in 1...20 { await udp.send(query("pilot", .soa)) }
      while stub.counters[.droppedForeign] < 20 { await Task.yield() }
      let tcp = try #require(Client(stub.endpoint, stream: true))
      let end = await tcp.receive()
      #expect(end == nil || end == [])
      #expect(stub.counters[.connectionsRefused] == 1)
      #expect(lists.load(ordering: .relaxed) == 1, "strangers do not make it list addresses again and again")
      // The address comes to this machine.
      isHome.store(true, ordering: .relaxed)
      now.store(3_000_000_000, ordering: .relaxed)
      #expect(await udp.exchange(query("pilot", .soa))?.responseCode == .noError)
    }
  }

  @Test("above its rate a source gets silence, counted, until time passes")
  func rateLimit() async throws {
    let now = Atomic<UInt64>(1_000_000_000)
    try await withStub(
      TableSource(), { ($0.queriesPerSecond, $0.burst) = (1, 2) },
      clock: { now.load(ordering: .relaxed) }
    ) { stub in
      let udp = try #require(Client(stub.endpoint))
      for id in 1...5 as ClosedRange<UInt16> { await udp.send(DNSMessage.query(id: id, name("pilot"), .soa).encoded()) }
      for _ in 1...2 { #expect(await udp.receive() != nil) }
      while stub.counters[.droppedRateLimit] < 3 { await Task.yield() }
      now.store(3_000_000_000, ordering: .relaxed)
      #expect(await udp.exchange(DNSMessage.query(id: 9, name("pilot"), .soa).encoded())?.id == 9)
      #expect(stub.counters[.droppedRateLimit] == 3)
    }
  }

  @Test("a directory that hangs costs a SERVFAIL in time, and its slots are bounded and come back")
  func hangingDirectory() async throws {
    let source = TableSource(.hanging)
    try await withStub(source, { ($0.maximumLookups, $0.lookupTimeout) = (2, .seconds(3)) }) { stub in
      let udp = try #require(Client(stub.endpoint))
      for id in 1...3 as ClosedRange<UInt16> {
        await udp.send(DNSMessage.query(id: id, name("a.pilot"), .aaaa).encoded())
      }
      // Names that need no lookup are answered meanwhile.
      #expect(await udp.exchange(query("pilot", .soa))?.responseCode == .noError)
      for _ in 1...2 {
        let bytes = try #require(await udp.receive())
        #expect(DNSMessage(bytes)?.responseCode == .serverFailure)
      }
      #expect(stub.counters[.droppedBusy] == 1)
      #expect(stub.counters[.lookupTimeouts] == 2)
      source.recover()
      #expect(await udp.exchange(query("b.pilot", .aaaa))?.responseCode == .nameError)
    }
  }

  @Test("stopping frees the port and ends connections, and the stub starts again")
  func restart() async throws {
    try await withStub { stub in
      let endpoint = try #require(stub.endpoint)
      let tcp = try #require(Client(endpoint, stream: true))
      await tcp.send(framed(query("pilot", .soa)))
      #expect(await tcp.receiveFramed() != nil)
      await stub.stop()
      #expect(stub.endpoint == nil)
      #expect(await tcp.receive() == [])
      try await stub.start()
      let udp = try #require(Client(stub.endpoint))
      #expect(await udp.exchange(query("pilot", .soa)) != nil)
    }
  }

  @Test("a port in use and an address that is not there are explained")
  func bindErrors() async throws {
    try await withStub { stub in
      let endpoint = try #require(stub.endpoint)
      let second = StubServer(source: TableSource(), configuration: .init(endpoint: endpoint), logger: quiet)
      let taken = await #expect(throws: NamingError.self) { try await second.start() }
      #expect(taken?.code == "resolver_address_in_use")
      #expect(taken?.hint?.contains("\(endpoint.port)") == true)
      let nowhere = Endpoint(address: try #require(IPv6Address("2001:db8::53")), port: 5300)
      let third = StubServer(source: TableSource(), configuration: .init(endpoint: nowhere), logger: quiet)
      let missing = await #expect(throws: NamingError.self) { try await third.start() }
      #expect(missing?.code == "resolver_address_missing")
    }
  }

  static let dig = "/usr/bin/dig"

  @Test("dig is content", .enabled(if: FileManager.default.isExecutableFile(atPath: dig)))
  func independentResolver() async throws {
    try await withStub { stub in
      let port = "\(try #require(stub.endpoint).port)"
      func dig(_ arguments: String...) async throws -> String {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: Self.dig)
        process.arguments = ["@::1", "-p", port, "+time=5", "+tries=1", "+norecurse"] + arguments
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = pipe
        try process.run()
        let output = await blocking { pipe.fileHandleForReading.readDataToEndOfFile() }
        process.waitUntilExit()
        return String(decoding: output, as: UTF8.self)
      }
      #expect(try await dig("+short", "AAAA", "specialist-papers.pilot") == "\(papers)\n")
      #expect(try await dig("+short", "+tcp", "AAAA", "specialist-papers.pilot") == "\(papers)\n")
      #expect(try await dig("+short", "-x", "\(papers)") == "specialist-papers.pilot.\n")
      let missing = try await dig("AAAA", "nobody.pilot", "+dnssec")
      #expect(missing.contains("status: NXDOMAIN"))
      #expect(missing.contains("flags: qr aa"))
      #expect(missing.contains("EDNS: version: 0, flags: do; udp: 1232"))
      #expect(missing.contains("_resolver.pilot. hostmaster.pilot."))
      #expect(!missing.lowercased().contains("warning"))
      #expect(try await dig("A", "example.com").contains("status: REFUSED"))
      #expect(try await dig("+edns=1", "+noednsnegotiation", "SOA", "pilot").contains("status: BADVERS"))
      #expect(try await dig("+header-only").contains("status: FORMERR"))
    }
  }
}
