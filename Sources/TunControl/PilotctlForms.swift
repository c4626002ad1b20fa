// What `pilotctl` prints: the keys and texts of wire/cli, made from the data of the node's control socket. Pure.

package import JSON
import Telemetry

package enum PilotctlForms {
  /// `{"data":{…},"status":"ok"}`.
  package static func success(_ data: JSONValue) -> String {
    JSONValue.object(["data": data, "status": "ok"]).line
  }

  /// The error object: `error` and `message` are the same text.
  package static func failure(_ error: ControlError) -> String {
    error.json.adding(["error": .text(error.message)]).line
  }

  // MARK: Peers

  static func isRelayed(_ peer: JSONValue) -> Bool { ["relay", "tcp443"].contains(peer.string("path")) }
  static func isEncrypted(_ peer: JSONValue) -> Bool { peer.string("session") == "established" }

  package static func peers(_ data: JSONValue) -> JSONValue {
    let rows = data.items("peers").map { peer -> JSONValue in
      [
        "node_id": JSONValue(peer.int("node_id")), "encrypted": JSONValue(isEncrypted(peer)),
        "authenticated": JSONValue(isEncrypted(peer)), "relay": JSONValue(isRelayed(peer)),
      ]
    }
    return [
      "peers": rows.isEmpty ? .null : .list(rows), "total": JSONValue(rows.count),
      "encrypted": JSONValue(rows.count { $0.flag("encrypted") }),
    ]
  }

  package static func peersText(_ data: JSONValue, showsAll: Bool) -> String {
    let rows = data.items("peers")
    let encrypted = rows.count { $0.flag("encrypted") }
    let relayed = rows.count { $0.flag("relay") }
    let head =
      "● \(rows.count) peer\(rows.count == 1 ? "" : "s") — \(encrypted) encrypted+authenticated · \(relayed) relay · "
      + "\(encrypted - rows.count { $0.flag("relay") && $0.flag("encrypted") }) direct"
    let shown = rows.filter { showsAll || !$0.flag("encrypted") }
    guard !shown.isEmpty else { return head }
    func word(_ flag: Bool) -> String { flag ? "yes" : "no" }
    let table = shown.map { row in
      [
        "\(row.int("node_id"))", word(row.flag("encrypted")), word(row.flag("authenticated")),
        row.flag("relay") ? "relay" : "direct",
      ]
    }
    return head + "\n\n" + TextForms.table([["NODE ID", "ENCRYPTED", "AUTH", "PATH"]] + table)
  }

  // MARK: Info, health, daemon status

  /// The keys of the official Info object that mean something here (wire/ipc §7.2).
  package static func info(_ status: JSONValue) -> JSONValue {
    let peers = status.items("peers")
    let own = status.items("networks").map { network -> JSONValue in
      ["network_id": JSONValue(network.int("id")), "address": .text(network.string("address"))]
    }
    func sum(_ key: String) -> JSONValue { .integer(peers.reduce(0) { $0 + $1.int(key) }) }
    return [
      "node_id": JSONValue(status.int("node_id")), "address": .text(status.string("address")),
      "hostname": .text(status.string("hostname")), "uptime_secs": JSONValue(status.int("uptime_seconds")),
      "peers": JSONValue(peers.count), "encrypted_peers": JSONValue(peers.count(where: isEncrypted)),
      "authenticated_peers": JSONValue(peers.count(where: isEncrypted)),
      "relay_peer_count": JSONValue(peers.count(where: isRelayed)), "connections": 0, "ports": 0,
      "bytes_sent": sum("tx_bytes"), "bytes_recv": sum("rx_bytes"), "pkts_sent": sum("tx_packets"),
      "pkts_recv": sum("rx_packets"), "encrypt": true, "identity": true,
      "public_key": .text(status.string("public_key")),
      "handshake_pending_count": JSONValue(status.int("pending_requests")),
      "version": .text(status.string("version")), "networks": own.isEmpty ? .null : .list(own),
      "beacon_addr": .text(status["rendezvous"]?.string("beacon") ?? ""), "transport": "udp",
      "features": ["reply_window"], "peer_list": peersList(status),
    ]
  }

  private static func peersList(_ status: JSONValue) -> JSONValue {
    let rows = Self.peers(status)
    return .list(rows.items("peers"))
  }

  package static func infoText(_ info: JSONValue) -> String {
    let relayed = info.int("relay_peer_count")
    let networks = info.items("networks").map { $0.string("address") }
    let name = info.string("hostname")
    return """
      ● pilot-daemon \(info.string("version")) · up \(TextForms.duration(seconds: info.int("uptime_secs")))

        identity   \(name.isEmpty ? "" : name + " · ")\(info.string("address")) · node \(info.int("node_id"))
                   Ed25519 \(info.string("public_key").prefix(8))… · persistent
        network    \(info.int("peers")) peers (\(info.int("encrypted_peers")) encrypted · \(relayed) relay · \
      \(info.int("peers") - relayed) direct)
                   beacon \(info.string("beacon_addr"))
        networks   \(networks.count)\(networks.isEmpty ? "" : " — " + networks.joined(separator: " · "))
        \(traffic(info))
      """
  }

  private static func traffic(_ data: JSONValue) -> String {
    "traffic    ↑ \(TextForms.bytes(data.int("bytes_sent"))) (\(data.int("pkts_sent")) pkts) · "
      + "↓ \(TextForms.bytes(data.int("bytes_recv"))) (\(data.int("pkts_recv")) pkts)"
  }

  package static func health(_ status: JSONValue) -> JSONValue {
    let info = info(status)
    var members: [String: JSONValue] = [
      "status": "ok", "uptime_seconds": JSONValue(status.int("uptime_seconds")), "accept_queue_drops": 0,
    ]
    for key in [
      "connections", "peers", "bytes_sent", "bytes_recv", "encrypted_peers", "authenticated_peers",
      "handshake_pending_count", "relay_peer_count", "beacon_addr",
    ] { members[key] = info[key] }
    return .object(members)
  }

  package static func healthText(_ status: JSONValue) -> String {
    let info = info(status)
    return """
      ● pilot-daemon ok
        uptime     \(TextForms.duration(seconds: info.int("uptime_secs")))
        peers      \(info.int("peers")) (\(info.int("encrypted_peers")) encrypted, \
      \(info.int("relay_peer_count")) via relay)
        \(traffic(info))
      """
  }

  /// `daemon status` of a running node.
  package static func daemon(_ status: JSONValue, pidFile: String, socket: String) -> JSONValue {
    [
      "address": .text(status.string("address")), "connections": 0, "hostname": .text(status.string("hostname")),
      "node_id": JSONValue(status.int("node_id")), "peers": JSONValue(status.items("peers").count),
      "pid": JSONValue(status.int("pid")), "pid_file": .text(pidFile), "responsive": true, "running": true,
      "socket": .text(socket), "uptime_secs": JSONValue(status.int("uptime_seconds")),
    ]
  }

  package static func daemonText(_ data: JSONValue, info: JSONValue) -> String {
    let seconds = data.int("uptime_secs")
    func two(_ value: Int64) -> String { value < 10 ? "0\(value)" : "\(value)" }
    let name = data.string("hostname")
    return """
      ● pilot-daemon running
        uptime \(two(seconds / 3600)):\(two(seconds / 60 % 60)):\(two(seconds % 60)) · pid \(data.int("pid")) · \
      0 connection(s)
        node      \(data.int("node_id")) · \(data.string("address"))\(name.isEmpty ? "" : " · " + name)
        peers     \(data.int("peers")) (\(info.int("encrypted_peers")) encrypted, \
      \(info.int("relay_peer_count")) via relay)
      """
  }

  // MARK: Names, trust

  package static func find(_ answer: JSONValue) -> JSONValue {
    [
      "address": .text(answer.string("address")), "hostname": .text(answer.string("hostname")),
      "node_id": JSONValue(answer.int("node_id")), "public": JSONValue(answer.flag("public")),
    ]
  }

  package static func findText(_ data: JSONValue) -> String {
    """
    Hostname:  \(data.string("hostname"))
    Node ID:   \(data.int("node_id"))
    Address:   \(data.string("address"))
    Visible:   \(data.flag("public") ? "public" : "private")
    """
  }

  package static func trusted(_ answer: JSONValue, search: String?, limit: Int?) -> JSONValue {
    var rows = answer.items("trust").filter { $0.string("state") == "trusted" }
    if let search { rows = rows.filter { "\($0.int("node_id")) \($0.string("hostname"))".contains(search) } }
    let total = rows.count
    let shown = rows.prefix(limit ?? rows.count).map { row -> JSONValue in
      [
        "approved_at": JSONValue(row.int("since_unix")), "mutual": true, "network": 0,
        "node_id": JSONValue(row.int("node_id")), "public_key": .text(row.string("public_key")),
      ]
    }
    return ["total": JSONValue(total), "trusted": .list(Array(shown))]
  }

  package static func trustedText(_ data: JSONValue) -> String {
    let rows = data.items("trusted").map { row in
      "  node \(row.int("node_id")) · approved \(minute(row.int("approved_at")))"
        + (row.flag("mutual") ? "" : " · one-way")
    }
    return (["Trusted peers — \(data.int("total"))"] + (rows.isEmpty ? [] : [""] + rows)).joined(separator: "\n")
  }

  package static func pending(_ answer: JSONValue) -> JSONValue {
    let rows = answer.items("trust").map { row -> JSONValue in
      [
        "justification": .text(row.string("reason")), "node_id": JSONValue(row.int("node_id")),
        "public_key": .text(row.string("public_key")), "received_at": JSONValue(row.int("since_unix")),
      ]
    }
    return ["pending": .list(rows)]
  }

  package static func pendingText(_ data: JSONValue, now: Int64) -> String {
    let rows = data.items("pending").map { row -> String in
      let time = row.int("received_at")
      let reason = TextForms.plain(row.string("justification"))
      return "  node \(row.int("node_id")) · \(TextForms.duration(seconds: now - time)) ago (\(minute(time)))"
        + (reason.isEmpty ? "" : " · \(reason)")
    }
    return (["Pending handshakes — \(rows.count)"] + (rows.isEmpty ? [] : [""] + rows)).joined(separator: "\n")
  }

  /// `2026-11-22 17:58`, UTC.
  private static func minute(_ unix: Int64) -> String {
    let text = LogLine.timestamp(unix * 1000)
    return text.prefix(10) + " " + text.dropFirst(11).prefix(5)
  }

  // MARK: Ping

  /// The one-line form of a packet.
  package static func ping(_ result: JSONValue) -> String {
    let sequence = result.int("seq")
    guard result.flag("ok") else { return "seq=\(sequence) error: \(TextForms.plain(result.string("reason")))" }
    return "seq=\(sequence) bytes=\(result.int("bytes")) time=\(goDuration(milliseconds: result.double("rtt_ms") ?? 0))"
  }

  package static func pings(_ answer: JSONValue, target: String, timedOut: Bool) -> JSONValue {
    let rows = answer.items("results").map { result -> JSONValue in
      guard result.flag("ok") else {
        return ["seq": JSONValue(result.int("seq")), "error": .text(result.string("reason"))]
      }
      return [
        "seq": JSONValue(result.int("seq")), "bytes": JSONValue(result.int("bytes")),
        "rtt_ms": JSONValue(rounded: result.double("rtt_ms")),
      ]
    }
    return ["results": .list(rows), "target": .text(target), "timeout": JSONValue(timedOut), "to": .text(target)]
  }

  /// A duration as Go prints it: `345µs`, `3.633105ms`, `1.5s`.
  package static func goDuration(milliseconds: Double) -> String {
    func trimmed(_ value: Double, _ digits: Int) -> String {
      var text = TextForms.decimal(value, digits)
      while text.hasSuffix("0") { text.removeLast() }
      if text.hasSuffix(".") { text.removeLast() }
      return text
    }
    switch milliseconds {
    case ..<1: return trimmed(milliseconds * 1000, 3) + "µs"
    case ..<1000: return trimmed(milliseconds, 6) + "ms"
    default: return trimmed(milliseconds / 1000, 6) + "s"
    }
  }
}
