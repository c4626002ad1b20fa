// Machines whose firewall lets no UDP through, and TCP to port 443 only, or to a proxy only: the relay by TLS, transfers
// over it, and the way back to UDP.

import Foundation
import Glibc
import Testing

/// A certificate for the rendezvous of a fleet, in a folder that its owner removes.
struct LabCertificate {
  let folder: String
  var certificate: String { folder + "/certificate.pem" }
  var key: String { folder + "/key.pem" }

  static func with(_ body: (LabCertificate) throws -> Void) throws {
    let folder = NSTemporaryDirectory() + "ptlab-certificate-\(getpid())-\(UInt32.random(in: 0...(.max)))"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let made = LabCertificate(folder: folder)
    try Lab.host(
      "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
      "-subj", "/CN=rendezvous", "-addext", "subjectAltName=IP:\(Fleet.rendezvousAddress),DNS:rendezvous.example",
      "-keyout", made.key, "-out", made.certificate
    ).orThrow()
    try body(made)
  }

  var rendezvousFlags: [String] { ["--tls-certificate", certificate, "--tls-key", key] }
  var nodeFlags: [String] { ["--public", "--tls-ca-file", certificate] }
}

extension Namespace {
  /// No UDP passes from now on, and TCP to (and from) the given port of others only, if one is given.
  fileprivate func blockUDP(andTCPExcept port: Int? = nil) throws {
    try command("nft add table inet wall")
    for (chain, direction, hook) in [("out", "oifname", "output"), ("in", "iifname", "input")] {
      try run(["nft", "add chain inet wall \(chain) { type filter hook \(hook) priority 0 ; }"]).orThrow()
      try command("nft add rule inet wall \(chain) \(direction) != eth0 accept")
      try command("nft add rule inet wall \(chain) meta l4proto udp drop")
      guard let port else { continue }
      try command("nft add rule inet wall \(chain) tcp \(chain == "out" ? "dport" : "sport") != \(port) drop")
    }
  }

  fileprivate func allowAll() throws { try command("nft delete table inet wall") }
}

extension LabNode {
  /// Sends what tcp_serve of the other has, and compares.
  fileprivate func fetches(from other: LabNode, _ octets: Int) throws {
    let server = try other.helper(Tools.python("tcp_serve", other.ipv6, "5001", "\(octets)"))
    let fetch = try run(Tools.python("tcp_fetch", other.ipv6, "5001"), within: 60).orThrow()
    #expect(fetch.output.contains("the content is right"), "\(fetch)")
    server.end()
  }

  fileprivate func waitForPath(_ path: String, to other: LabNode, within seconds: Double) throws {
    _ = try eventually("\(name) reaches \(other.name) by \(path)", within: seconds) {
      try peer(other)["path"].text == path ? true : nil
    }
  }
}

extension KernelTests {
  @Suite("UDP is blocked")
  struct BlockedUDPTests {
    private static let twelveMegabytes = 12 << 20

    @Test("a node that only reaches TCP 443, and one that only reaches a proxy, talk to everybody")
    func blocked() throws {
      try LabCertificate.with { certificate in
        try Fleet.with(rendezvousFlags: certificate.rendezvousFlags) { fleet in
          let open = try fleet.node("open", certificate.nodeFlags)
          let walled = try fleet.node("walled", certificate.nodeFlags, isStarted: false)
          try walled.namespace.blockUDP(andTCPExcept: 443)

          let proxy = try fleet.lab.namespace("proxy")
          let proxyAddress = try fleet.connect(proxy)
          let secret = certificate.folder + "/secret"
          let runs = certificate.folder + "/runs"
          try "agent:first".write(toFile: secret, atomically: true, encoding: .utf8)
          let program = try fleet.lab.start(in: proxy, Tools.python("connect_proxy", proxyAddress, "3128", secret))
          try program.waitForLine(containing: "ready")
          let proxied = try fleet.node(
            "proxied",
            certificate.nodeFlags + ["--proxy-credentials-command", "echo x >> \(runs); cat \(secret)"],
            environment: ["HTTPS_PROXY": "http://\(proxyAddress):3128"], isStarted: false)
          try proxied.namespace.blockUDP(andTCPExcept: 3128)
          try walled.launch()
          try proxied.start()
          try walled.program?.waitForLine(containing: "ready", within: 30)
          try walled.adopt()

          let check = try walled.tun(
            "netcheck", "--rendezvous", Fleet.rendezvousAddress, "--tls-ca-file", certificate.certificate, "--json"
          ).orThrow()
          let report = try JSON(parsing: check.output)["data"]
          #expect(!report["udp"].isTrue && report["tls"]["works"].isTrue, "\(check)")
          let untrusted = try walled.tun("netcheck", "--rendezvous", Fleet.rendezvousAddress, "--json")
          #expect(untrusted.status == 1 && untrusted.errors.contains("udp_blocked"), "\(untrusted)")
          #expect(untrusted.errors.contains("not signed by an authority"), "\(untrusted)")

          for node in [walled, proxied] {
            try node.waitForPing(open.ipv6, within: 20)
            let transport = try node.status()["transport"]
            #expect(transport["carrier"].text == "tls" && transport["connected"].isTrue, "\(transport)")
            #expect(transport["reason"].text == "no answer by UDP from the beacon on this network")
            #expect(try node.peer(open)["path"].text == "tcp443")
            try node.fetches(from: open, Self.twelveMegabytes)
          }
          try open.fetches(from: walled, Self.twelveMegabytes)
          #expect(try open.peer(walled)["path"].text == "relay", "the other end knows nothing of TLS")
          try walled.waitForPing("proxied.pilot")
          try walled.fetches(from: proxied, Self.twelveMegabytes)
          #expect(try walled.counter("peers-tcp443") == 2)
          let explained = try walled.tun("explain", "proxied").orThrow().output
          #expect(explained.contains("TLS to 10.77.1.2:443") && explained.contains("tcp443"), "\(explained)")

          #expect(try String(contentsOfFile: runs, encoding: .utf8) == "x\n", "once for registry and relay")

          // The credentials change, and the connections end: the command is asked again.
          try "agent:second".write(toFile: secret, atomically: true, encoding: .utf8)
          program.end(SIGKILL)
          let again = try fleet.lab.start(in: proxy, Tools.python("connect_proxy", proxyAddress, "3128", secret))
          try again.waitForLine(containing: "ready")
          try again.waitForLine(containing: "CONNECT 10.77.1.2:443 407", within: 30)
          try again.waitForLine(containing: "CONNECT 10.77.1.2:443 200", within: 30)
          try proxied.waitForPing(open.ipv6, within: 20)
          let said = [proxied.program?.transcript ?? "", try proxied.tun("status", "--json").orThrow().output]
          let shown = try String(contentsOfFile: "/proc/\(proxied.program?.pid ?? 0)/cmdline", encoding: .utf8)
          for text in said + [shown] {
            for word in ["agent:first", "agent:second", "YWdlbnQ6"] { #expect(!text.contains(word)) }
          }
        }
      }
    }

    @Test("with two beacons, a transfer goes on when UDP is allowed, and when it is blocked again")
    func comesAndGoes() throws {
      try LabCertificate.with { certificate in
        try Fleet.with(rendezvousFlags: certificate.rendezvousFlags) { fleet in
          let second = try fleet.lab.start(
            in: fleet.rendezvous, [Tools.rendezvous, "beacon", "--beacon-listen", "0.0.0.0:9201"])
          try second.waitForLine(containing: "beacon ready")
          let beacons = [9001, 9201].map { "\(Fleet.rendezvousAddress):\($0)" }
          let flags = certificate.nodeFlags + beacons.flatMap { ["--beacon", $0] }
          let alpha = try fleet.node("alpha", flags)
          let beta = try fleet.node("beta", flags, isStarted: false)
          try beta.namespace.blockUDP(andTCPExcept: 443)
          try beta.start()
          try beta.waitForPing(alpha.ipv6, within: 20)
          try beta.waitForPath("tcp443", to: alpha, within: 5)
          #expect(try beta.peer(alpha)["relay"].text == "\(Fleet.rendezvousAddress):443")
          _ = try eventually("the other end uses the beacon that reaches it", within: 5) {
            try alpha.peer(beta)["relay"].text == beacons[0] ? true : nil
          }

          // 128 pieces of 256 KiB with a rest of a fifth of a second between them.
          let server = try alpha.helper(Tools.python("tcp_serve", alpha.ipv6, "5001", "\(32 << 20)", "0.2"))
          let fetch = try fleet.lab.start(in: beta.namespace, Tools.python("tcp_fetch", alpha.ipv6, "5001"))
          try fetch.waitForLine(containing: "received 1 MiB")
          try beta.namespace.allowAll()
          // Peers may find the direct way before the beacons are tried again.
          _ = try eventually("the relay is reached by UDP", within: 20) {
            try beta.status()["transport"]["carrier"].text == "udp" ? true : nil
          }
          try beta.waitForPath("direct", to: alpha, within: 30)
          _ = try eventually("both beacons answer", within: 5) {
            try beta.status()["rendezvous"]["beacons"].list.map { $0["state"].text }.sorted() == ["home", "known"]
              ? true : nil
          }
          #expect(!fetch.outputText.contains("the content is right"), "the transfer is still under way")
          try beta.namespace.blockUDP(andTCPExcept: 443)
          try beta.waitForPath("tcp443", to: alpha, within: 20)
          #expect(try fetch.wait(within: 60).orThrow().output.contains("the content is right"))
          server.end()
          #expect(try beta.counter("transport-to-tls") == 2)
          #expect(try beta.counter("transport-to-udp") == 1)
          let lines = (beta.program?.errorText ?? "").split(separator: "\n").filter {
            $0.contains("the relay is reached")
          }
          #expect(lines.count == 3, "\(lines)")
        }
      }
    }

    @Test(
      "an official daemon in compat mode, official daemons on UDP and nodes on TLS reach each other at one rendezvous",
      .enabled(if: Official.isThere, "the official programs are not here: scripts/setup --interop installs them"))
    func official() throws {
      try LabCertificate.with { certificate in
        try Fleet.with(rendezvousFlags: certificate.rendezvousFlags) { fleet in
          let flags = [
            "--public", "--transport", "compat", "--compat-beacon", "wss://\(Fleet.rendezvousAddress)/v1/compat",
            "--registry-tls", "--registry-trust", "system", "--tls-trust", "system",
          ]
          let compat = try OfficialAgent(
            "compat", flags, in: fleet, environment: ["SSL_CERT_FILE": certificate.certificate], isAwaited: false)
          let plain = try OfficialAgent("plain", ["--public"], in: fleet, isAwaited: false)
          let node = try fleet.node("node", certificate.nodeFlags + ["--transport", "tls"])
          try compat.waitUntilRegistered()
          try plain.waitUntilRegistered()
          try compat.namespace.blockUDP()
          #expect(try compat.pings("plain"))
          #expect(try plain.pings("compat"))
          try node.waitForPing(compat.ipv6, within: 20)
          try node.waitForPing(plain.ipv6, within: 20)
          #expect(try compat.pings("node"))
        }
      }
    }

    @Test("with transport = tls everything goes by TLS from the start; errors of a wrong certificate are told")
    func always() throws {
      try LabCertificate.with { certificate in
        try Fleet.with(rendezvousFlags: certificate.rendezvousFlags) { fleet in
          let alpha = try fleet.node("alpha", certificate.nodeFlags)
          let beta = try fleet.node("beta", certificate.nodeFlags + ["--transport", "tls"])
          try alpha.waitForPing(beta.ipv6)
          let status = try beta.status()
          #expect(status["transport"]["registry_by_tls"].isTrue && status["transport"]["carrier"].text == "tls")
          let blind = try fleet.node("blind", ["--transport", "tls", "--public"], isStarted: false)
          try blind.launch()
          _ = try blind.program?.waitForLine(containing: "not signed by an authority", within: 20)
          let unusable = try fleet.node("unusable", ["--tls-ca-file", "/etc/hostname"], isStarted: false)
          let outcome = try unusable.launch().wait(within: 20)
          #expect(outcome.status == 1 && outcome.errors.contains("no certificates can be read"), "\(outcome)")
        }
      }
    }
  }
}
