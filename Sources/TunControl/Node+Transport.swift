// By UDP or by TLS to the beacon: carries out what TransportChoice decides, and tells what came of it.

import Directory
import Engine
import JSON
import Logging
import NIOCore
import Session
import TLSTransport
import Telemetry
import Traversal
import Wire

/// What stands for TLS: the dialer, which the registry's connection shares, and what is there once it was needed.
struct TLSParts {
  let dialer: TLSDialer?
  var detour: RelayDetour?
  /// Where the detour begins, while relayed frames take it: to the worker the one beacon there is.
  var entrance: Endpoint?
  /// When the rendezvous was last told by it that we are there.
  var toldAt: UInt64 = 0
  /// Which attempt the present connection came of; what an older one tells is no news.
  var attempt = 0
  var problem: TransportError?
}

extension Node {
  func steer(_ event: TransportChoice.Event) {
    for action in transport.handle(event, now: Clock.now()) { carryOut(action) }
    arm()
  }

  private func carryOut(_ action: TransportChoice.Action) {
    switch action {
    case .ask: discover()
    case .dial:
      tls.attempt += 1
      let attempt = tls.attempt
      Task { await dialTLS(attempt) }
    case .hangUp:
      tls.attempt += 1
      tls.detour?.hangUp()
    case .probe: Task { await probeUDP() }
    case .use(let carrier, let reason): use(carrier, reason)
    }
  }

  /// Relayed frames, and questions to the beacon, take this way from now on. Sessions do not notice.
  private func use(_ carrier: TransportChoice.Carrier, _ reason: String) {
    let next = carrier == .tls ? tls.detour?.endpoint : nil
    let isNew = next != tls.entrance
    // What passed so far went by the other way.
    for peer in peers.values { account(peer) }
    tls.entrance = next
    tellRelayEndpoints()
    if isNew {
      tally(carrier == .tls ? "transport-to-tls" : "transport-to-udp")
      let target = configuration.tls?.authority ?? ""
      logger.notice(
        carrier == .tls ? "the relay is reached by TLS" : "the relay is reached by UDP",
        metadata: carrier == .tls ? ["reason": "\(reason)", "rendezvous": "\(target)"] : ["reason": "\(reason)"])
    }
    if carrier == .udp {
      // Ways that did not answer may do so now.
      networkChanged()
    } else {
      nextBeaconTick = .max
      tls.toldAt = 0
      discover()
    }
    relaysMoved()
    // What was asked by the other way waits for no answer.
    for peer in peers.values where peer.handshake.isAttempting { feed(peer, .relayMoved) }
  }

  // MARK: TLS

  private func dialTLS(_ attempt: Int) async {
    guard let dialer = tls.dialer, let node, attempt == tls.attempt else { return }
    do {
      if let closed = tls.detour, !closed.isOpen {
        tls.detour = nil
        await closed.close()
      }
      if tls.detour == nil {
        let opened = try await RelayDetour.open(worker: engine.localEndpoint)
        // Another attempt may have opened one, or the node may have come to its end.
        if tls.detour == nil, !isStopping { tls.detour = opened } else { await opened.close() }
      }
      guard let detour = tls.detour, attempt == tls.attempt, !isStopping else { return }
      let identity = store.identity
      let credentials = CompatLink.Credentials(node: node, key: identity.publicKey, sign: { identity.sign($0) })
      let link = try await detour.dial(dialer, as: credentials) { [weak self] error in
        guard let self else { return }
        Task { await self.linkEnded(attempt, error) }
      }
      guard attempt == tls.attempt, !isStopping else { return link.close() }
      detour.use(link)
      tls.problem = nil
      steer(.linkUp)
    } catch {
      let error =
        error as? TransportError ?? TransportError(.tlsUnreachable, "TLS cannot be tried: \(error)")
      linkEnded(attempt, error)
    }
  }

  private func linkEnded(_ attempt: Int, _ error: TransportError) {
    guard attempt == tls.attempt, !isStopping else { return }
    // A second event of the same attempt would be counted as another failure.
    tls.attempt += 1
    tls.problem = error
    tally("tls-failures")
    logOnce("tls \(error.code)", "TLS to the rendezvous", fields: Logger.Metadata(describing: error))
    steer(.linkDown)
  }

  private func probeUDP() async {
    if udpBeacon == nil { await findBeacons() }
    guard await UDPProbe.isAnswered(byAnyOf: beaconChoice.beacons.map(\.endpoint)) else { return }
    steer(.probeAnswered)
  }

  /// Another way to the registry, for networks that let its own port not through.
  static func registryDetour(_ dialer: TLSDialer?, _ configuration: NodeConfiguration) -> RegistryDetour? {
    guard let dialer else { return nil }
    return RegistryDetour(isOnly: configuration.transport == .tls) { eventLoop in
      try await dialer.connect(on: eventLoop) { _ in }
    }
  }

  // MARK: Words

  /// The class of a path as the worker has it.
  func pathClass(_ path: EnginePath) -> PathClass {
    if case .relay(let endpoint) = path, endpoint == tls.entrance { return PathClass(path, relay: .tcp443) }
    return PathClass(path, relay: .relay)
  }

  /// The word for the relay to the peer.
  func relayWord(of peer: PeerState) -> String {
    relayEndpoint(to: peer).map { pathClass(.relay(beacon: $0)) }.map(\.rawValue) ?? PathClass.relay.rawValue
  }

  func transportStatus() async -> JSONValue {
    var members: [String: JSONValue] = [
      "mode": .text(configuration.transport.rawValue), "carrier": .text(transport.carrier.rawValue),
      "reason": .text(transport.reason), "since_seconds": JSONValue((Clock.now() - transport.since) / 1_000_000_000),
      "tls": JSONValue(configuration.tls?.authority),
      "proxy": JSONValue(configuration.tls?.effectiveProxy?.description),
      "connected": JSONValue(transport.isLinkUp), "registry_by_tls": JSONValue(await directory.client.isByDetour),
      "error": .null,
    ]
    if let problem = tls.problem {
      members["error"] = [
        "code": .text(problem.code), "message": .text(problem.message), "hint": JSONValue(problem.hint),
      ]
    }
    return .object(members)
  }
}
