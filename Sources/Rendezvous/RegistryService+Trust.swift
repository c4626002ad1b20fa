// Trust between nodes and the handshake relay (wire/registry §2.5, §9.2).

import JSON
import Wire

extension RegistryService {
  private static let justificationLimit = 1024

  func reportTrust(_ request: Request) {
    let node = request.body.id("node_id")
    let peer = request.body.id("peer_id")
    let limit = configuration.limits.reportsPerNode
    signed(request, by: node, "report_trust:\(node):\(peer)", .registeredHost) { state, _ throws(RequestError) in
      guard node != peer else { throw RequestError("cannot trust itself") }
      guard peer != 0 else { throw .nodeNotFound(peer) }
      // Known or not: after a loss of the database one of two comes back first, and official daemons report once.
      guard state.trust[node]?.contains(peer) == true || state.trust[node, default: []].count < limit else {
        throw RequestError("too many trust reports")
      }
      state.setTrust(node, in: peer)
      return request.ok()
    }
  }

  /// Ends the pair for both: what one end withdrew, the other cannot bring back alone.
  func revokeTrust(_ request: Request) {
    let node = request.body.id("node_id")
    let peer = request.body.id("peer_id")
    signed(request, by: node, "revoke_trust:\(node):\(peer)", .registeredHost) { state, _ throws(RequestError) in
      let had = state.removeTrust(node, in: peer)
      let was = state.removeTrust(peer, in: node)
      state.forgetHandshake(from: peer, to: node)
      state.forgetHandshake(from: node, to: peer)
      guard had || was else { throw RequestError("trust with node \(peer) not found") }
      return request.ok()
    }
  }

  /// Only the two themselves learn whether they trust each other: by what they proved on this connection, or by
  /// coming from the host that registered one of them (daemons ask on any connection).
  func checkTrust(_ request: Request) {
    let a = request.body.id("node_id")
    let b = request.body.id("peer_id")
    guard a != b else { return finish(.success(request.ok([("trusted", .bool(false))])), request.completion) }
    perform(request.completion) { state throws(RequestError) in
      let viewers = self.viewers(request.client, state)
      let mayKnow = [a, b].contains { id in
        viewers.contains(id) || state.nodes[id]?.host == request.client.host
      }
      return request.ok([("trusted", .bool(mayKnow && state.areRelated(a, b)))])
    }
  }

  // MARK: Handshakes

  func requestHandshake(_ request: Request) {
    let body = request.body
    let (sender, target) = (body.id("from_node_id"), body.id("to_node_id"))
    let justification = body.text("justification")
    let now = now
    guard justification.utf8.count <= Self.justificationLimit else {
      return finish(.failure(RequestError("justification too long")), request.completion)
    }
    guard
      admission.isExempt(request.client.host)
        || handshakeRequests.allows(request.client.host.limitKey, now: now)
    else {
      counters.add(.requestsLimited)
      return finish(.failure(.rateLimited), request.completion)
    }
    let limit = configuration.limits.inboxSize
    signed(request, by: sender, "handshake:\(sender):\(target)", .registeredHost) { state, _ throws(RequestError) in
      guard sender != target else { throw RequestError("cannot ask itself") }
      _ = try state.live(target, now: now)
      let inbox = state.handshakes[target] ?? [:]
      let earlier = inbox[sender]
      if earlier?.state == .waiting { throw RequestError("handshake request already pending") }
      guard inbox.values.reduce(0, { $0 + ($1.state == .waiting ? 1 : 0) }) < limit else {
        throw RequestError("too many pending requests")
      }
      // Settled and forgotten ones make room; what is open stays.
      if inbox.count >= 10 * limit, earlier == nil {
        guard let oldest = inbox.values.filter({ $0.state != .waiting }).min(by: { $0.at < $1.at }) else {
          throw RequestError("too many pending requests")
        }
        state.forgetHandshake(from: oldest.sender, to: target)
      }
      state.record(
        HandshakeRecord(sender: sender, target: target, justification: justification, at: now, state: .waiting))
      return request.ok([("status", .text("delivered"))], notify: [target])
    }
  }

  func pollHandshakes(_ request: Request) {
    let node = request.body.id("node_id")
    signed(request, by: node, "poll_handshakes:\(node)", .registeredHost) { state, _ throws(RequestError) in
      let inbox = state.takeInbox(of: node)
      let requests = inbox.requests.map { record -> JSONValue in
        .object(of: [
          ("from_node_id", .whole(record.sender)), ("justification", .text(record.justification)),
          ("timestamp", .integer(record.at / 1000)),
        ])
      }
      let responses = inbox.responses.map { record -> JSONValue in
        .object(of: [
          ("from_node_id", .whole(record.peer)), ("accept", .bool(record.isAccepted)),
          ("timestamp", .integer(record.at / 1000)),
        ])
      }
      return request.ok([("requests", .list(requests)), ("responses", .list(responses))])
    }
  }

  /// Accepting makes the pair, as the other end asked for it. Without a recorded request there is nothing to accept.
  func respondHandshake(_ request: Request) {
    let node = request.body.id("node_id")
    let peer = request.body.id("peer_id")
    let accepts = request.body.flag("accept")
    let now = now
    signed(request, by: node, "respond:\(node):\(peer)", .registeredHost) { state, _ throws(RequestError) in
      let reply = [("accept", JSONValue.bool(accepts)), ("peer_id", .whole(peer))]
      guard var asked = state.handshakes[node]?[peer] else {
        throw RequestError("handshake request from node \(peer) not found")
      }
      let settled: HandshakeRecord.State = accepts ? .accepted : .rejected
      // A request repeated on a second connection changes nothing (§1.5).
      if asked.state == settled { return request.ok(reply) }
      guard asked.state == .waiting || asked.state == .delivered else {
        throw RequestError("handshake request from node \(peer) not found: already answered")
      }
      asked.state = settled
      state.record(asked)
      if accepts {
        state.setTrust(node, in: peer)
        state.setTrust(peer, in: node)
      }
      state.queue(ResponseRecord(requester: peer, peer: node, isAccepted: accepts, at: now))
      return request.ok(reply, notify: [peer])
    }
  }
}
