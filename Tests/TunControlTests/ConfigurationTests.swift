// Settings: precedence of the sources, and the errors for wrong values.

import Directory
import Engine
import Glibc
import Logging
import Telemetry
import TLSTransport
import Testing
import Wire

@testable import TunControl

@Suite("Configuration")
struct ConfigurationTests {
  func configuration(
    flags: [Setting: [String]] = [:], environment: [String: String] = [:], file: String = ""
  ) throws -> NodeConfiguration {
    try NodeConfiguration(
      ConfigurationLayers(
        flags: flags, environment: environment, file: ConfigurationFile.parse(file, path: "config.toml")))
  }

  func error(
    flags: [Setting: [String]] = [:], environment: [String: String] = [:], file: String = ""
  ) -> ControlError? {
    do {
      _ = try configuration(flags: flags, environment: environment, file: file)
      return nil
    } catch {
      return error as? ControlError
    }
  }

  @Test("without any setting the defaults of the contract hold")
  func defaults() throws {
    let configuration = try configuration()
    #expect(configuration.stateDirectory == "/var/lib/pilot-tun")
    #expect(configuration.controlSocket == "/run/pilot-tun/control.sock")
    #expect(configuration.interface == "pilot0")
    #expect(configuration.mtu == 1400)
    #expect(configuration.isRendezvousEmbedded)
    #expect(!configuration.isPublic)
    #expect(configuration.dns == .auto)
    #expect(configuration.portMapping == .auto)
  }

  @Test("a flag beats the environment, the environment beats the file")
  func precedence() throws {
    let file = "hostname = \"from-file\""
    let environment = ["PILOT_TUN_HOSTNAME": "from-environment"]
    #expect(try configuration(file: file).hostname == "from-file")
    #expect(try configuration(environment: environment, file: file).hostname == "from-environment")
    #expect(
      try configuration(flags: [.hostname: ["from-flag"]], environment: environment, file: file).hostname
        == "from-flag")
  }

  @Test("the inbox is where pilotctl of the node's user looks, or in the state directory, or off")
  func inbox() throws {
    let configuration = try configuration(flags: [.ipc: ["/run/i.sock"], .stateDirectory: ["/state"]])
    #expect(configuration.hasInbox)
    #expect(configuration.inboxPath(home: "/home/a") == "/home/a/.pilot")
    for home in [nil, "", "/", "relative"] { #expect(configuration.inboxPath(home: home) == "/state") }
    let named = try self.configuration(flags: [.ipc: ["/run/i.sock"], .inbox: ["/mail"]])
    #expect(named.hasInbox && named.inboxPath(home: "/home/a") == "/mail")
    #expect(try !self.configuration(flags: [.ipc: ["/run/i.sock"], .inbox: ["off"]]).hasInbox)
    #expect(try !self.configuration(flags: [.inbox: ["/mail"]]).hasInbox)
  }

  @Test("the administrator's token comes from a file that others cannot read")
  func adminToken() throws {
    let path = "/tmp/admin-token-\(getpid())-\(UInt32.random(in: 0...(.max)))"
    defer { unlink(path) }
    func code() -> String? {
      do throws(ControlError) {
        _ = try AdminToken(path: path)
        return nil
      } catch {
        return error.code
      }
    }
    #expect(code() == "admin_token_unusable")
    try SmallFile.write(Array("secret\n".utf8), to: path, mode: 0o600)
    let token = try AdminToken(path: path)
    #expect(token.matches(Array("secret".utf8)) && !token.matches(Array("secret\n".utf8)))
    chmod(path, 0o640)
    #expect(code() == "admin_token_unusable")
    for content in ["", "\n", "a\nb\n"] {
      try SmallFile.write(Array(content.utf8), to: path, mode: 0o600)
      chmod(path, 0o600)
      #expect(code() == "admin_token_unusable", "\(content)")
    }
  }

  @Test("an empty environment variable counts as unset")
  func emptyVariable() throws {
    #expect(try configuration(environment: ["PILOT_TUN_HOSTNAME": ""], file: "hostname = \"a\"").hostname == "a")
  }

  @Test("a switch of the file can be turned off by the environment")
  func switches() throws {
    #expect(try configuration(file: "public = true").isPublic)
    #expect(try !configuration(environment: ["PILOT_TUN_PUBLIC": "no"], file: "public = true").isPublic)
  }

  @Test("every setting can stand in the file, with hyphens or underscores, lists in singular or plural")
  func wholeFile() throws {
    let configuration = try configuration(
      file: """
        state_dir = "/tmp/s"
        control-socket = "/tmp/c.sock"
        hostname = "Agent-A.pilot"
        registry = "r.example:9100"
        beacon = "[2001:db8::1]:9101"
        interface = "pilot7"
        mtu = 1280
        listen = "10.0.0.1:4100"
        advertise = "198.51.100.7:4100"
        public = true
        trust-auto-approve = true
        networks = [5, "7:s:x", 5]
        tags = ["papers", "fx"]
        relay-only = true
        relay = false
        relay-limit = "2M:3k"
        dns = "off"
        port_mapping = "off"
        log-level = "warn"
        log-format = "json"
        """)
    #expect(configuration.stateDirectory == "/tmp/s")
    #expect(configuration.hostname == "agent-a")
    #expect(configuration.registry == HostPort(host: "r.example", port: 9100))
    #expect(configuration.beacon == HostPort(host: "2001:db8::1", port: 9101))
    #expect(configuration.mtu == 1280)
    #expect(configuration.listen.port == 4100)
    #expect(configuration.listen.address == IPv6Address("10.0.0.1"))
    #expect(!configuration.listen.isDefault)
    #expect(configuration.networks == [NetworkMembership(id: 5), NetworkMembership(id: 7, token: "s:x")])
    #expect(configuration.tags == ["papers", "fx"])
    #expect(configuration.isRelayOnly && configuration.trustAutoApprove && configuration.isPublic)
    #expect(!configuration.isRelay && configuration.relayLimit == RelayLimit(bytes: 2_000_000, packets: 3000))
    #expect(configuration.dns == .off)
    #expect(configuration.portMapping == .off)
    #expect(configuration.logLevel == .warning)
    #expect(configuration.logFormat == .json)
  }

  @Test("--rendezvous sets registry and beacon; either can be set apart")
  func rendezvous() throws {
    let plain = try configuration(flags: [.rendezvous: ["10.0.0.1"]])
    #expect(plain.registry == HostPort(host: "10.0.0.1", port: 9000))
    #expect(plain.beacon == HostPort(host: "10.0.0.1", port: 9001))
    let apart = try configuration(flags: [.rendezvous: ["10.0.0.1:9000"], .beacon: ["10.0.0.2:77"]])
    #expect(apart.beacon == HostPort(host: "10.0.0.2", port: 77))
    #expect(apart.registry == plain.registry)
    let moved = try configuration(flags: [.rendezvous: ["h:9200"]])
    #expect(moved.beacon == HostPort(host: "h", port: 9201))
    #expect(error(flags: [.beacon: ["h:1"]])?.code == "configuration_invalid")
  }

  @Test("beacons are a list: repeated flags, commas in the environment, a list or one text in the file")
  func beacons() throws {
    let wanted = [HostPort(host: "a", port: 9001), HostPort(host: "b", port: 77)]
    #expect(try configuration(flags: [.registry: ["r"], .beacon: ["a", "b:77", "a:9001"]]).beacons == wanted)
    #expect(try configuration(environment: ["PILOT_TUN_BEACON": "a, b:77"], file: "registry = \"r\"").beacons == wanted)
    #expect(try configuration(file: "registry = \"r\"\nbeacons = [\"a\", \"b:77\"]").beacons == wanted)
    #expect(try configuration(file: "registry = \"r\"\nbeacon = \"b:77\"").beacons == [wanted[1]])
    let many = (0..<9).map { "h\($0)" }
    #expect(error(flags: [.registry: ["r"], .beacon: many])?.code == "configuration_invalid")
  }

  @Test("a relay has limits, and is no relay-only node")
  func relay() throws {
    #expect(try configuration(flags: [.relay: ["true"]]).isRelay)
    #expect(try configuration(flags: [.relayLimit: ["500k"]]).relayLimit == RelayLimit(bytes: 500_000, packets: 1000))
    #expect(error(flags: [.relay: ["true"], .relayOnly: ["true"]])?.code == "configuration_invalid")
  }

  @Test(
    "a wrong value names its source and what would do",
    arguments: [
      (Setting.mtu, "1279"), (.mtu, "9001"), (.mtu, "many"), (.hostname, "-a"), (.hostname, "localhost"),
      (.hostname, "a b"), (.interface, "name-that-is-too-long"), (.interface, "a/b"), (.listen, "10.0.0.1"),
      (.listen, "70000"), (.registry, "host:0"), (.registry, "a b:1"), (.advertise, "host"), (.networks, "0"),
      (.networks, "7:"),
      (.networks, "65535"), (.dns, "always"), (.portMapping, "upnp"), (.logLevel, "loud"), (.logFormat, "xml"),
      (.isPublic, "perhaps"), (.relay, "both"), (.relayLimit, "9k"), (.relayLimit, "1M:5"), (.relayLimit, "1M:2:3"),
      (.relayLimit, "-1M"), (.relayLimit, "999999999999G"), (.relayLimit, "k"), (.beacon, "a b"),
      (.rendezvous, "[::1"), (.rendezvous, "http://h"), (.metrics, "example.net:1"), (.metrics, "70000"),
      (.metrics, "::1:9"), (.networks, "7:@"),
    ])
  func wrongValues(setting: Setting, text: String) {
    let flag = error(flags: [setting: [text]])
    #expect(flag?.isUsage == true)
    #expect(flag?.message.contains("--\(setting.rawValue)") == true)
    #expect(flag?.hint?.isEmpty == false)
    let variable = error(environment: [setting.environmentName: text])
    #expect(variable?.message.contains(setting.environmentName) == true)
  }

  @Test(
    "a proxy of the environment that nobody can use is told and not used, and an error only where there is no other way"
  )
  func foreignProxy() throws {
    for name in ["https_proxy", "HTTPS_PROXY"] {
      for text in ["socks5h://127.0.0.1:9050", "://", "https://proxy.example.net:443"] {
        let environment = [name: text]
        let rendezvous: [Setting: [String]] = [.rendezvous: ["hub.example.net"]]
        let tls = try configuration(flags: rendezvous, environment: environment).tls
        #expect(tls?.proxy == nil && tls?.warnings.count == 1)
        #expect(tls?.warnings.first?.contains(name) == true && tls?.warnings.first?.contains("http://") == true)
        #expect(try configuration(environment: environment).tls == nil, "its own rendezvous")
        let only = rendezvous.merging([.transport: ["tls"]]) { $1 }
        #expect(error(flags: only, environment: environment)?.message.contains(name) == true)
      }
    }
    let good = try configuration(
      flags: [.rendezvous: ["hub.example.net"]], environment: ["HTTPS_PROXY": "http://proxy.example.net:3128"]
    ).tls
    #expect(good?.proxy != nil && good?.warnings == [])
  }

  @Test("a wrong value in the file names the file and the key")
  func wrongFileValue() {
    let error = error(file: "\n  mtu = 12")
    #expect(error?.message == "config.toml:2:9, key `mtu`: `12` is not a valid mtu")
    #expect(error?.hint == "expected 1280 to 9000 bytes")
    #expect(error?.subject?.place == SourcePlace(file: "config.toml", line: 2, column: 9))
  }

  @Test("a control socket path longer than the kernel takes is refused before it is tried")
  func longSocketPath() {
    #expect(error(flags: [.controlSocket: ["/" + String(repeating: "a", count: 120)]]) != nil)
  }

  @Test("an unknown key is an error that suggests the nearest one")
  func unknownKey() {
    let error = error(file: "mtu = 1280\n hsotname = \"a\"")
    #expect(error?.code == "configuration_unknown_key")
    #expect(error?.message == "config.toml:2:2: unknown key `hsotname`")
    #expect(error?.hint?.hasPrefix("did you mean `hostname`?") == true)
    #expect(self.error(file: "trust_auto_aprove = true")?.hint?.contains("`trust-auto-approve`") == true)
    #expect(self.error(file: "zzz = 1")?.hint?.hasPrefix("known keys:") == true)
  }

  @Test("a broken file names the line")
  func brokenFile() {
    let error = error(file: "hostname = \"a\"\nmtu = = 3\n")
    #expect(error?.code == "configuration_invalid")
    #expect(error?.message.hasPrefix("config.toml:2:7: not valid TOML: ") == true)
  }

  @Test("TOML is read as TOML says")
  func tomlValues() throws {
    let table = try TOMLTable(
      """
      a = "x\\u00e9\\u0000y"   # a comment
      "b c" = 'raw \\ text'
      c = 0xff
      d = [ true, 1_000, ["no"], "z", ]
      e = 2026-11-23
      f = 1.5
      [g]
      h = 1
      """)
    #expect(
      table.values == [
        "a": .text("x\u{e9}\0y"), "b c": .text("raw \\ text"), "c": .number(255),
        "d": .list([.flag(true), .number(1000), .other, .text("z")]), "e": .other, "f": .other, "g": .other,
      ])
    #expect(try TOMLTable("").values.isEmpty)
    let broken = [
      ("a = 1\na = 2", 2, 5), ("a", 1, 2), ("b = \"\u{7}\"", 1, 6), ("[[[", 1, 3), ("[.a]", 1, 2),
      ("a = 1\n\n[=]\n", 3, 2),
    ]
    for (text, line, column) in broken {
      let problem = #expect(throws: TOMLProblem.self) { try TOMLTable(text) }
      #expect(problem?.line == line && problem?.cause.isEmpty == false, "\(text): \(String(describing: problem))")
      #expect(problem?.column == column, "\(text): \(String(describing: problem))")
    }
    let deep = "a = " + String(repeating: "[", count: 100_000)
    #expect(throws: TOMLProblem.self) { try TOMLTable(deep) }
    let long = try TOMLTable("a = [" + String(repeating: "1,", count: 100_000) + "]")
    if case .list(let items) = long.values["a"] { #expect(items.count == 100_000) } else { Issue.record("no list") }
  }

  @Test("a table or a date where a text belongs is refused")
  func wrongTypes() {
    #expect(error(file: "[hostname]\na = 1")?.code == "configuration_invalid")
    #expect(error(file: "mtu = 1.5")?.message == "config.toml:1:7: `mtu` must be a whole number")
    #expect(error(file: "public = 1")?.message == "config.toml:1:10: `public` must be true or false")
    #expect(error(file: "hostname = true")?.hint == "for example: hostname = \"specialist-papers\"")
    #expect(
      error(file: "hostname = \"a\"\ntag = [\"b\"]\ntags = [\"c\"]")?.message.hasPrefix(
        "config.toml:3:1: `tag` is given twice") == true)
    #expect(error(file: "network = [1, [2]]")?.code == "configuration_invalid")
    #expect(error(file: "tag = [\"a\", \"b\", \"c\", \"d\"]")?.code == "configuration_invalid")
  }

  @Test("a missing default file is no error, a missing named file is")
  func missingFile() throws {
    #expect(try ConfigurationFile.load(path: "/nonexistent/config.toml", isExplicit: false).isEmpty)
    #expect(throws: ControlError.self) {
      try ConfigurationFile.load(path: "/nonexistent/config.toml", isExplicit: true)
    }
  }

  @Test("tools find the control socket by flag, then environment, then default")
  func socketLocation() throws {
    let environment = ["PILOT_TUN_CONTROL_SOCKET": "/e.sock", "PILOT_TUN_CONFIG": "/nonexistent"]
    #expect(try ControlSocketLocation.resolve(flag: "/f.sock", environment: environment) == "/f.sock")
    #expect(try ControlSocketLocation.resolve(flag: nil, environment: environment) == "/e.sock")
    #expect(throws: ControlError.self) {
      try ControlSocketLocation.resolve(flag: nil, environment: ["PILOT_TUN_CONFIG": "/nonexistent"])
    }
  }
}
