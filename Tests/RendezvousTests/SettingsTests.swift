// Settings from file, environment and flags; address ranges; rate limits; the status page.

import Foundation
import Session
import Testing
import Wire

@testable import Rendezvous

@Suite struct SettingsTests {
  @Test("a file is read, the environment wins over it, and a flag over both")
  func precedence() throws {
    var settings = RendezvousSettings()
    try settings.readFile(
      """
      # a rendezvous
      state_dir = "/srv/a b"   # with a blank
      registry_listen = "127.0.0.1:7000"
      beacon_listen = "[::1]:7001"
      networks = ["team:open", "ops:token:s\\"1"]
      exempt_sources = []
      more_beacons = ["203.0.113.6:9001", "[2001:db8::6]:9001"]
      admin_needs_tls = true
      connections_per_source = 8

      """, path: "test.toml")
    try settings.readEnvironment(["PILOT_RENDEZVOUS_REGISTRY_LISTEN": "127.0.0.1:8000", "HOME": "/"])
    try settings.set("state_dir", ["/srv/b"])
    let configuration = try settings.configuration()
    #expect(configuration.stateDirectory == "/srv/b")
    #expect(configuration.registryListen.description == "127.0.0.1:8000")
    #expect(configuration.beaconListen.description == "[::1]:7001")
    #expect(configuration.networks == [.init(name: "team", token: nil), .init(name: "ops", token: "s\"1")])
    #expect(configuration.exemptSources.isEmpty)
    #expect(configuration.moreBeacons.map(\.description) == ["203.0.113.6:9001", "[2001:db8::6]:9001"])
    #expect(configuration.adminNeedsTLS)
    #expect(configuration.limits.connectionsPerSource == 8)
    #expect(configuration.httpListen == nil)
  }

  @Test(
    "a line that is no setting is refused with its number",
    arguments: [
      "rubbish", "a b = 1", "state_dir", "state_dir =", "nonsense = 1", "state_dir = \"x", "networks = [\"a\"",
    ])
  func malformed(_ line: String) {
    var settings = RendezvousSettings()
    #expect {
      try settings.readFile("\n" + line, path: "test.toml")
    } throws: {
      ($0 as? RendezvousError)?.message.contains("test.toml:2:") == true
    }
  }

  @Test(
    "values without meaning are refused with the form that is expected",
    arguments: [
      ("registry_listen", "localhost"), ("beacon_listen", "1.2.3.4"), ("http_listen", "::1:80"), ("threads", "0"),
      ("admin_needs_tls", "yes"), ("exempt_sources", "10.0.0.0/33"), ("networks", "x"), ("connections", "-1"),
      ("more_beacons", "beacon.example:9001"),
    ])
  func meaningless(_ name: String, _ value: String) throws {
    var settings = RendezvousSettings()
    try settings.set(name, [value])
    #expect {
      try settings.configuration()
    } throws: {
      ($0 as? RendezvousError)?.hint != nil
    }
  }

  @Test("address ranges contain what they say, and IPv4 is no part of ::/0's v6 prefixes")
  func ranges() throws {
    func contains(_ range: String, _ address: String) throws -> Bool {
      try #require(SourceNetwork(range)).contains(try #require(IPv6Address(address)))
    }
    #expect(try contains("10.0.0.0/8", "10.255.0.1"))
    #expect(try !contains("10.0.0.0/8", "11.0.0.1"))
    #expect(try contains("192.168.1.1", "192.168.1.1"))
    #expect(try !contains("192.168.1.1", "192.168.1.2"))
    #expect(try contains("0.0.0.0/0", "8.8.8.8"))
    #expect(try !contains("0.0.0.0/0", "2001:db8::1"))
    #expect(try contains("2001:db8::/65", "2001:db8:0:0:7fff::1"))
    #expect(try !contains("2001:db8::/65", "2001:db8:0:0:8000::1"))
    #expect(SourceNetwork("10.0.0.0/x") == nil)
  }

  @Test("a bucket gives its burst, then its rate, and unknown keys pass when the table is full")
  func limiter() {
    let limiter = RateLimiter<Int>(perSecond: 2, burst: 3, capacity: 2)
    #expect((0..<5).map { _ in limiter.allows(1, now: 0) } == [true, true, true, false, false])
    #expect(limiter.allows(1, now: 500))
    #expect(!limiter.allows(1, now: 500))
    #expect(limiter.allows(2, now: 500))
    for _ in 0..<10 { #expect(limiter.allows(3, now: 500)) }
    // Time that seems to run back gives nothing.
    #expect(!limiter.allows(1, now: 0))
  }

  @Test("private and reachable addresses are told apart")
  func addressKinds() throws {
    for text in ["10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.1", "100.64.0.1", "fd00::1"] {
      #expect(try #require(IPv6Address(text)).isPrivate, "\(text)")
    }
    for text in ["8.8.8.8", "172.32.0.1", "127.0.0.1", "100.128.0.1", "2001:db8::1", "fe80::1"] {
      #expect(try !#require(IPv6Address(text)).isPrivate, "\(text)")
    }
    for text in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1", "fe80::1"] {
      #expect(try !#require(IPv6Address(text)).isReachableUnicast, "\(text)")
    }
  }

  @Test("the status page shows numbers and no names")
  func statusPage() async throws {
    try await Rendezvous.running { rendezvous in
      let client = try rendezvous.connect()
      let node = TestNode()
      let id = try client.enroll(node)
      _ = try client.setHostname(node, id, "secret-name")
      let base = "http://\(try #require(rendezvous.bound.http))"
      func get(_ path: String) throws -> String {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/curl")
        process.arguments = ["-s", "-m", "5", "-w", " %{http_code}", base + path]
        let pipe = Pipe()
        process.standardOutput = pipe
        try process.run()
        let data = try pipe.fileHandleForReading.readToEnd() ?? Data()
        process.waitUntilExit()
        return String(decoding: data, as: UTF8.self)
      }
      let health = try get("/healthz")
      #expect(health.contains(#""nodes_online":1"#) && health.hasSuffix("200"))
      let statistics = try get("/api/public-stats?x=1")
      #expect(statistics.contains(#""total_nodes":1"#) && statistics.contains(#""registry":"up""#))
      let metrics = try get("/metrics")
      #expect(metrics.contains("\npilot_rendezvous_registrations_total 1\n"))
      #expect(metrics.contains("\npilot_rendezvous_nodes_live 1\n"))
      #expect(try get("/nothing").hasSuffix("404"))
      for page in [health, statistics, metrics] {
        #expect(!page.contains("secret-name") && !page.contains("127.0.0") && !page.contains(String(id)))
      }
    }
  }

  @Test("a port that is taken is explained, and nothing stays open")
  func takenPort() async throws {
    try await Rendezvous.running { rendezvous in
      let directory = Rendezvous.temporaryDirectory()
      let port = rendezvous.bound.registry.port
      await #expect {
        try await Rendezvous.start(in: directory) {
          $0.registryListen = Endpoint(address: IPv6Address(mappedIPv4: 0x7F00_0001), port: port)
        }.remove()
      } throws: {
        ($0 as? RendezvousError)?.code == "cannot_listen"
      }
      try await Rendezvous.start(in: directory).remove()
    }
  }

  @Test("both sockets listen on IPv6, and IPv4 clients keep their address there")
  func dualStack() async throws {
    try await Rendezvous.running {
      $0.registryListen = Endpoint(address: IPv6Address(high: 0, low: 0), port: 0)
      $0.beaconListen = Endpoint(address: IPv6Address(high: 0, low: 0), port: 0)
    } _: { rendezvous in
      let reply = try rendezvous.connect(from: "127.0.0.6").register(TestNode(), listen: "0.0.0.0:4000")
      #expect(reply.text("observed_addr") == "127.0.0.6:4000")
      let socket = try BeaconSocket(rendezvous, from: "127.0.0.6")
      #expect(try socket.discover(0)?.description == "127.0.0.6:\(socket.localPort)")
    }
  }
}
