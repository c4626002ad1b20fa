// What official clients are told of this node, in the words they know (wire/ipc §7). Pure: from the node's status and
// the streams to JSON.

import Gateway
import JSON
import LocalSocket
import Streams
import Wire

enum LocalForms {
  /// An untrusted peer that this node has contacted may answer by dialing back.
  static let features: JSONValue = ["reply_window"]

  /// Official clients end with a panic when one of the counters is missing.
  static func info(_ status: JSONValue, _ local: LocalStatus) -> JSONValue {
    let status = tunnelsOnly(status)
    var members = counters(local)
    for (name, value) in (PilotctlForms.info(status).object ?? [:]) where members[name] == nil { members[name] = value }
    members["endpoint"] = .text(status.string("endpoint"))
    members["email"] = ""
    members["motd"] = ""
    members["features"] = features
    members["ports"] = JSONValue(local.ports)
    members["tunnel_encryption_success"] = 0
    members["tunnel_encryption_failure"] = 0
    let open = Set(local.open.map { Int64($0.remote.node) })
    let endpoints = Dictionary(
      status.items("peers").map { ($0.int("node_id"), $0.string("endpoint")) }, uniquingKeysWith: { $1 })
    // Those with open streams first: where not all fit, they are the ones of interest.
    let all = PilotctlForms.peers(status).items("peers").map { peer in
      peer.adding(["endpoint": .text(endpoints[peer.int("node_id")] ?? "")])
    }
    let peers = all.filter { open.contains($0.int("node_id")) } + all.filter { !open.contains($0.int("node_id")) }
    return cut(.object(members), [("conn_list", local.streams.map(row)), ("peer_list", peers)])
  }

  static func health(_ status: JSONValue, _ local: LocalStatus) -> JSONValue {
    PilotctlForms.health(tunnelsOnly(status)).adding(counters(local))
  }

  private static func counters(_ local: LocalStatus) -> [String: JSONValue] {
    [
      "connections": JSONValue(local.open.count), "accept_queue_drops": 0, "webhook_queue_dropped": 0,
      "webhook_circuit_skips": 0,
    ]
  }

  /// The status without the trusted peers that nothing was exchanged with: official clients list tunnels.
  private static func tunnelsOnly(_ status: JSONValue) -> JSONValue {
    status.adding(["peers": .list(status.items("peers").filter { $0.string("session") != "none" })])
  }

  static func row(_ stream: StreamRow) -> JSONValue {
    let now = stream.statistics
    return [
      "id": JSONValue(stream.id), "local_port": JSONValue(stream.localPort),
      "remote_addr": .text(stream.remote.description), "remote_port": JSONValue(stream.remotePort),
      "state": .text(stream.state.rawValue), "bytes_sent": JSONValue(now.bytesSent),
      "bytes_recv": JSONValue(now.bytesReceived), "segs_sent": JSONValue(now.segmentsSent),
      "segs_recv": JSONValue(now.segmentsReceived), "retransmits": JSONValue(now.retransmissions),
      "fast_retx": JSONValue(now.fastRetransmissions), "sack_sent": JSONValue(now.selectiveSent),
      "sack_recv": JSONValue(now.selectiveReceived), "dup_acks": JSONValue(now.duplicateAcknowledgements),
      "cong_win": JSONValue(now.congestionWindow), "ssthresh": JSONValue(now.slowStartThreshold),
      "in_flight": JSONValue(now.inFlight), "unacked": JSONValue(now.unacknowledgedSegments),
      "ooo_buf": JSONValue(now.earlySegments), "peer_recv_win": JSONValue(now.peerWindow),
      "recv_win": JSONValue(now.window), "srtt_ms": .number(Double(now.roundTrip) / 1e6),
      "rttvar_ms": .number(Double(now.roundTripVariation) / 1e6), "in_recovery": JSONValue(now.isRecovering),
    ]
  }

  // MARK: Lists that may be too long

  /// The object with these lists, whose last rows are left out where they would not fit into a frame; a member
  /// `NAME_truncated` says so. Earlier lists have the room first.
  static func cut(
    _ object: JSONValue, _ lists: [(name: String, rows: [JSONValue])], limit: Int = LocalSocketLimits.replyBody
  ) -> JSONValue {
    let empty = Dictionary(lists.map { ($0.name, JSONValue.list([])) }, uniquingKeysWith: { $1 })
    // The notes themselves need some of it.
    var room = limit - object.adding(empty).encoded.count - lists.reduce(0) { $0 + $1.name.utf8.count + 20 }
    var result = object
    for (name, rows) in lists {
      var taken = 0
      while taken < rows.count {
        let size = rows[taken].encoded.count + 1
        guard size <= room else { break }
        room -= size
        taken += 1
      }
      result = result.adding([name: .list(Array(rows.prefix(taken)))])
      if taken < rows.count { result = result.adding(["\(name)_truncated": true]) }
    }
    return result
  }
}
