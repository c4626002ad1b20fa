// By UDP or by TLS to the beacon: carries out what TransportChoice decides, and tells what came of it.

import Directory
import Engine
import JSON
import Logging
import NIOCore
import Session
import TLSTransport
import Telemetry
import Wire

/// What stands for TLS, once it was needed.
struct TLSParts {
  var dialer: TLSDialer?
  var detour: RelayDetour?
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
    // Whoever changed the way may have asked already.
    case .ask: if discoverSentAt.map({ Clock.now() > $0 + 100_000_000 }) ?? true { discover() }
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
    let next = carrier == .tls ? tls.detour?.endpoint : udpBeacon
    let isNew = next != beacon
    // What passed so far went by the other way.
    for peer in peers.values { account(peer) }
    beacon = next
    tell(.setBeacon(next))
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
      discover()
    }
    beaconMoved()
  }

  // MARK: TLS

  private func dialTLS(_ attempt: Int) async {
    guard let settings = configuration.tls, let node, attempt == tls.attempt else { return }
    do {
      let dialer = try tls.dialer ?? TLSDialer(settings)
      tls.dialer = dialer
      if tls.detour == nil { tls.detour = try await RelayDetour.open(worker: engine.localEndpoint) }
      guard let detour = tls.detour, attempt == tls.attempt, !isStopping else { return }
      let identity = store.identity
      let credentials = CompatLink.Credentials(node: node, key: identity.publicKey, sign: { identity.sign($0) })
      try await detour.dial(dialer, as: credentials) { [weak self] error in
        guard let self else { return }
        Task { await self.linkEnded(attempt, error) }
      }
      guard attempt == tls.attempt, !isStopping else { return detour.hangUp() }
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
    if udpBeacon == nil { await findBeacon() }
    guard let target = udpBeacon, await UDPProbe.isAnswered(by: target) else { return }
    steer(.probeAnswered)
  }

  /// Another way to the registry, for networks that let its own port not through.
  static func registryDetour(_ configuration: NodeConfiguration) -> RegistryDetour? {
    guard let settings = configuration.tls else { return nil }
    return RegistryDetour(isOnly: configuration.transport == .tls) { eventLoop in
      // Made each time: a file of authorities that was mended is read again.
      try await TLSDialer(settings).connect(on: eventLoop) { _ in }
    }
  }

  // MARK: Words

  /// The class of relayed paths.
  var relayClass: PathClass { transport.carrier == .tls ? .tcp443 : .relay }
  var relayWord: String { relayClass.rawValue }

  /// Where relayed frames go, for people: the worker's endpoint means nothing to them while it is our own socket.
  func relayName(_ endpoint: Endpoint?) -> String? {
    transport.carrier == .tls ? configuration.tls?.authority : endpoint?.description
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
