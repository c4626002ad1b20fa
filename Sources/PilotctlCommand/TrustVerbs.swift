// handshake, approve, reject, pending, trust, untrust (wire/cli §7.6).

import Directory
import Glibc
import JSON
import TunControl

enum TrustVerbs {
  private static func node(_ context: Context, _ usage: String) throws(ControlError) -> (text: String, id: Int64) {
    let answer = try context.resolve(context.peer(usage))
    return (answer.string("address"), answer.int("node_id"))
  }

  private static func reason(_ context: Context) -> JSONValue {
    .text(context.operands.dropFirst().joined(separator: " "))
  }

  static func handshake(_ context: Context) throws(ControlError) -> Int32 {
    let peer = try node(context, "handshake PEER [REASON]")
    _ = try context.call(.trustRequest, ["peer": .text(peer.text), "reason": reason(context)])
    return context.show(
      ["node_id": .integer(peer.id), "status": "sent"], "handshake request sent to node \(peer.id)")
  }

  static func approve(_ context: Context) throws(ControlError) -> Int32 {
    let peer = try node(context, "approve PEER")
    _ = try context.call(.trustApprove, ["peer": .text(peer.text)])
    return context.show(
      ["node_id": .integer(peer.id), "status": "approved"], "trust established with node \(peer.id)")
  }

  static func reject(_ context: Context) throws(ControlError) -> Int32 {
    let peer = try node(context, "reject PEER [REASON]")
    _ = try context.call(.trustReject, ["peer": .text(peer.text), "reason": reason(context)])
    return context.show(
      ["node_id": .integer(peer.id), "status": "rejected"], "handshake from node \(peer.id) rejected")
  }

  static func untrust(_ context: Context) throws(ControlError) -> Int32 {
    let peer = try node(context, "untrust PEER")
    do {
      _ = try context.call(.trustRevoke, ["peer": .text(peer.text)])
    } catch  where error.code == "not_trusted" {
      throw ControlError("connection_failed", "untrust: revoke: \(error.message)", hint: "pilotctl trust")
    }
    return context.show(["node_id": .integer(peer.id)], "trust revoked for node \(peer.id)")
  }

  static func pending(_ context: Context) throws(ControlError) -> Int32 {
    let data = PilotctlForms.pending(try context.call(.trustPending))
    return context.show(data, PilotctlForms.pendingText(data, now: Int64(time(nil))))
  }

  static func trust(_ context: Context) throws(ControlError) -> Int32 {
    let data = PilotctlForms.trusted(
      try context.call(.trustList), search: context.arguments.flags["search"],
      limit: try context.arguments.integer("limit", in: 0...1_000_000))
    return context.show(data, PilotctlForms.trustedText(data))
  }
}
