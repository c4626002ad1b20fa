// Invites to networks: given by who administers one, answered by the invited node (wire/registry §2.6, §6.1).

import JSON
import Wire

extension RegistryService {
  private static let inviteLimit = 100

  /// Signed by an owner or administrator of the network; the administrator's token does without (then `inviter_id` is
  /// only a claim and not remembered).
  func invite(_ request: Request) {
    let body = request.body
    let (inviter, target) = (body.id("inviter_id"), body.id("target_node_id"))
    let id = body.network("network_id")
    let now = now
    if body.text("signature").isEmpty, !body.text("admin_token").isEmpty {
      return administer(request, id) { state, network throws(RequestError) in
        try self.invite(target, to: network, by: 0, request, &state, now: now)
      }
    }
    signed(request, by: inviter, "invite:\(inviter):\(id):\(target)", .registeredHost) {
      state, _ throws(RequestError) in
      let network = try state.network(id)
      guard try state.member(inviter, of: id).role != .member else {
        throw RequestError("cannot invite: not an owner or admin of network \(id)")
      }
      return try self.invite(target, to: network, by: inviter, request, &state, now: now)
    }
  }

  private func invite(
    _ target: UInt32, to network: NetworkRecord, by inviter: UInt32, _ request: Request, _ state: inout RegistryState,
    now: Int64
  ) throws(RequestError) -> Reply {
    var reply = [("network_id", JSONValue.whole(network.id)), ("target_node_id", .whole(target))]
    guard network.rule == .invite else {
      throw RequestError("cannot invite: network \(network.id) is not an invite network")
    }
    _ = try state.live(target, now: now)
    guard !state.isMember(target, of: network.id) else {
      throw RequestError("node \(target) is already in network \(network.id)")
    }
    if state.invite(of: target, to: network.id, now: now) != nil {
      reply.append(("status", .text("already_invited")))
      return request.ok(reply)
    }
    guard state.invites(of: target, now: now).count < Self.inviteLimit else {
      throw RequestError("too many invites wait for node \(target)")
    }
    state.enter(InviteRecord(network: network.id, target: target, inviter: inviter, at: now))
    return request.ok(reply)
  }

  /// Reading does not clear: an invite waits for its answer.
  func pollInvites(_ request: Request) {
    let node = request.body.id("node_id")
    let now = now
    signed(request, by: node, "poll_invites:\(node)", .registeredHost) { state, _ throws(RequestError) in
      let invites = state.invites(of: node, now: now).map { invite -> JSONValue in
        .object(of: [
          ("network_id", .whole(invite.network)), ("inviter_id", .whole(invite.inviter)),
          // Text here, as pilotctl shows it.
          ("timestamp", .text(Self.timestamp(invite.at))),
        ])
      }
      return request.ok([("invites", .list(invites))])
    }
  }

  /// Accepting makes the node a member.
  func respondInvite(_ request: Request) {
    let node = request.body.id("node_id")
    let id = request.body.network("network_id")
    let accepts = request.body.flag("accept")
    let now = now
    signed(request, by: node, "respond_invite:\(node):\(id)", .registeredHost) { state, _ throws(RequestError) in
      let reply = request.ok([("network_id", .whole(id)), ("accepted", .bool(accepts))])
      let network = try state.network(id)
      guard state.invite(of: node, to: id, now: now) != nil else {
        // A request repeated on a second connection changes nothing (§1.5).
        if accepts, state.isMember(node, of: id) { return reply }
        throw RequestError("invite to network \(id) not found")
      }
      if accepts { try state.join(node, network, as: .member, now: now) } else { state.dropInvite(of: node, to: id) }
      return reply
    }
  }
}
