// What `pilot-tun status`, `peers` and `explain` print for people, from the same data that `--json` shows.

package import JSON

package enum StatusForms {
  package static func status(_ data: JSONValue) -> String {
    let rendezvous = data["rendezvous"] ?? [:]
    let state = rendezvous.string("state")
    var lines = [
      "\(state == "registered" ? "●" : "◐") pilot-tun \(data.string("version")) · up "
        + TextForms.duration(seconds: data.int("uptime_seconds")) + " · \(state)"
    ]
    var rows: [[String]] = []
    let name = data.string("hostname")
    let address = data.string("address")
    rows.append([
      "address",
      (address.isEmpty ? "none yet: the registry gives it" : address) + (name.isEmpty ? "" : " · \(name).pilot"),
    ])
    let place = data.string("interface_in") == "command" ? " in the command's own network" : ""
    let link = "\(data.string("interface"))\(place), mtu \(data.int("mtu"))"
    rows.append(["ipv6", address.isEmpty ? "none yet, \(link)" : "\(data.string("ipv6")) on \(link)"])
    // For whoever compares it with what `explain` of another node shows.
    rows.append(["key", data.string("public_key")])
    for network in data.items("networks") {
      rows.append(["network \(network.int("id"))", "\(network.string("address")) · \(network.string("ipv6"))"])
    }
    rows.append([
      "udp", data.string("listen") + (data.string("endpoint").isEmpty ? "" : " · seen as \(data.string("endpoint"))"),
    ])
    rows.append(["router", router(data["port_mapping"] ?? [:])])
    if let hole = data["ipv6_pinhole"], hole.string("state") == "mapped" {
      rows.append(["", "lets everybody in at \(hole.string("external")) by \(hole.string("protocol"))"])
    }
    if let nat = data["nat"], let mapping = nat["mapping"]?.text {
      let lasts = nat["mapping_seconds"].flatMap { $0 == .null ? nil : nat.int("mapping_seconds") }
      let time =
        lasts.map { ", keeps mappings for \($0) s or more" } ?? (nat.flag("measuring") ? ", being measured" : "")
      rows.append(["nat", "\(mapping) mapping\(time) · kept open every \(nat.int("keepalive_seconds")) s"])
    }
    var registry = "registry \(rendezvous.string("registry")) · beacon \(rendezvous.string("beacon"))"
    let others = rendezvous.items("beacons").filter { $0.string("state") != "home" }
    let silent = others.count { $0.string("state") == "silent" }
    if !others.isEmpty { registry += " · \(others.count) more" + (silent > 0 ? ", \(silent) silent" : "") }
    if rendezvous.flag("embedded") { registry += " · embedded" }
    rows.append(["rendezvous", registry])
    let transport = data["transport"] ?? [:]
    if transport.string("carrier") == "tls" || transport["error"]?.object != nil {
      rows.append(["transport", self.transport(transport)])
      if let problem = transport["error"], problem.object != nil {
        rows.append(["", "✗ " + TextForms.plain(problem.string("message"))])
      }
    }
    if let problem = rendezvous["error"]?.text {
      rows.append(["", "✗ " + TextForms.plain(problem)])
      if let hint = rendezvous["hint"]?.text { rows.append(["", "  " + TextForms.plain(hint)]) }
    }
    if let relay = data["relay"], relay.flag("offered") || !relay.items("through").isEmpty {
      let through = relay.items("through").compactMap(\.text)
      rows.append([
        "relay",
        [
          relay.flag("offered") ? "for \(relay.int("peers")) trusted peers" : "",
          through.isEmpty ? "" : "through \(through.joined(separator: ", ")) as well",
        ].filter { !$0.isEmpty }.joined(separator: " · "),
      ])
    }
    let dns = data["dns"] ?? [:]
    let reason = dns.string("reason")
    rows.append([
      "names",
      dns.flag("running") ? "stub on \(dns.string("resolver"))" : reason.isEmpty ? "not started yet" : "off: \(reason)",
    ])
    if dns.flag("running"), let names = names(data["names"] ?? [:]) { rows.append(["", names]) }
    let offloads = (data["offloads"]?.object ?? [:]).sorted { $0.key < $1.key }.map { name, state in
      state.flag("on") ? name : "\(name) off (\(TextForms.plain(state.string("reason"))))"
    }
    if !offloads.isEmpty { rows.append(["offloads", offloads.joined(separator: " · ")]) }
    rows.append(["access", data.flag("public") ? "public: every node may connect" : "private: trusted peers only"])
    lines.append(TextForms.table(rows, indent: "  "))
    for warning in data.items("warnings").compactMap(\.text) { lines.append("  ! " + TextForms.plain(warning)) }
    let advice = (data["names"] ?? [:]).items("advice").compactMap(\.text)
    if !advice.isEmpty { lines.append("    to have programs find NAME.pilot, add one of these:") }
    for line in advice { lines.append("      \(line)") }
    lines.append("")
    lines.append(peers(data))
    let drops = (data["drops"]?.object ?? [:]).filter { $0.value.integer ?? 0 > 0 }.sorted { $0.key < $1.key }
    if !drops.isEmpty {
      lines.append("")
      lines.append("dropped packets")
      lines.append(TextForms.table(drops.map { [$0.key, "\($0.value.integer ?? 0)"] }, indent: "  "))
    }
    return lines.joined(separator: "\n")
  }

  /// Who asks the stub, and whether programs find names; what is wrong stands among the warnings.
  private static func names(_ names: JSONValue) -> String? {
    let proof = names["proof"] ?? [:]
    let way: String? =
      switch names.string("mechanism") {
      case "resolved": "asked by systemd-resolved"
      case "file": "asked first by programs (\(names.string("mode")))"
      default: nil
      }
    guard proof.flag("ok") else { return way }
    return [way, "\(proof.string("name")) is found"].compactMap { $0 }.joined(separator: " · ")
  }

  private static func transport(_ transport: JSONValue) -> String {
    guard transport.string("carrier") == "tls" else { return "UDP: " + transport.string("reason") }
    let proxy = transport.string("proxy")
    return "TLS to \(transport.string("tls"))" + (proxy.isEmpty ? "" : " through the proxy \(proxy)")
      + (transport.flag("connected") ? ": " : ", not connected: ") + transport.string("reason")
  }

  private static func router(_ mapping: JSONValue) -> String {
    switch mapping.string("state") {
    case "mapped": return "maps \(mapping.string("external")) to here by \(mapping.string("protocol"))"
    case "searching": return "is asked for a port mapping"
    default:
      let reason = mapping.string("reason")
      return "no port mapping" + (reason.isEmpty ? "" : ": " + TextForms.plain(reason))
    }
  }

  package static func peers(_ data: JSONValue) -> String {
    let peers = data.items("peers")
    guard !peers.isEmpty else { return "no peers yet: send something to one, for example `pilot-tun ping NAME`" }
    let direct = peers.count { $0.string("path") == "direct" }
    let relayed = peers.count { ["relay", "tcp443"].contains($0.string("path")) }
    var rows = [["NAME", "ADDRESS", "PATH", "SESSION", "TRUST", "RTT", "SENT", "RECEIVED", "HEARD"]]
    for peer in peers {
      let endpoint = peer.string("endpoint")
      rows.append([
        peer.string("hostname").isEmpty ? "-" : peer.string("hostname"), peer.string("address"),
        peer.string("path") + (endpoint.isEmpty ? "" : " " + endpoint), peer.string("session"), peer.string("trust"),
        peer.double("rtt_ms").map(TextForms.milliseconds) ?? "-", TextForms.bytes(peer.int("tx_bytes")),
        TextForms.bytes(peer.int("rx_bytes")),
        peer.double("last_receive_seconds").map { TextForms.duration(seconds: Int64($0)) + " ago" } ?? "never",
      ])
    }
    let head = "\(peers.count) peer\(peers.count == 1 ? "" : "s") · \(direct) direct · \(relayed) relayed"
    let notes = peers.compactMap { peer in
      peer["problem"]?.text.map { "  ! \(peer.string("address")): \(TextForms.plain($0))" }
    }
    return ([head, TextForms.table(rows, indent: "  ")] + notes).joined(separator: "\n")
  }

  package static func explain(_ data: JSONValue) -> String {
    var lines = [
      "\(data.string("address"))\(data.string("hostname").isEmpty ? "" : " · \(data.string("hostname")).pilot")"
    ]
    for step in data.items("steps") {
      let mark = step.flag("ok") ? "✓" : "✗"
      lines.append("  \(mark) \(step.string("name")): \(TextForms.plain(step.string("text")))")
      if let hint = step["hint"]?.text { lines.append("      → \(hint)") }
    }
    let ways = data.items("candidates")
    guard !ways.isEmpty else { return lines.joined(separator: "\n") }
    lines.append("  ways to the peer")
    var rows = [["", "WAY", "KNOWN FROM", "RTT", "ANSWERS", "VERDICT"]]
    for way in ways {
      rows.append([
        way.flag("in_use") ? "▸" : "", way.string("path"), way.string("kind"),
        way.double("rtt_ms").map(TextForms.milliseconds) ?? "-", "\(way.int("answers")) of \(way.int("probes"))",
        way.string("verdict"),
      ])
    }
    lines.append(TextForms.table(rows, indent: "  "))
    return lines.joined(separator: "\n")
  }

  package static func trust(_ data: JSONValue) -> String {
    let entries = data.items("trust")
    guard !entries.isEmpty else { return "none" }
    return TextForms.table(
      [["STATE", "ADDRESS", "NAME", "SINCE", "REASON"]]
        + entries.map { entry in
          [
            entry.string("state"), entry.string("address"),
            entry.string("hostname").isEmpty ? "-" : entry.string("hostname"), entry.string("since"),
            TextForms.plain(entry.string("reason")),
          ]
        })
  }

  /// One line per packet of `pilot-tun ping`.
  package static func ping(_ result: JSONValue) -> String {
    let address = result.string("address")
    guard result.flag("ok") else {
      let code = result.string("code")
      let text = TextForms.plain(result.string("reason"))
      return "✗ no reply from \(address) · \(text.isEmpty ? code : text)"
    }
    let path = [result.string("path"), result.string("endpoint")].filter { !$0.isEmpty }.joined(separator: " ")
    return "✓ reply from \(address) · \(TextForms.milliseconds(result.double("rtt_ms") ?? 0)) · \(path)"
  }
}
