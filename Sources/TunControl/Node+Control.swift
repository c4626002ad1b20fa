// The verbs of the control socket.

import Directory
import Engine
import Glibc
package import JSON
import Logging
import Session
import Telemetry
import Wire

extension Node: ControlService {
  package func answer(
    _ request: ControlRequest, emit: @escaping @Sendable (JSONValue) async throws -> Void
  ) async throws -> JSONValue {
    let arguments = request.arguments
    switch request.verb {
    case .status: return await status()
    case .peers: return ["peers": .list(await peerList())]
    case .version: return ["version": .text(PilotTunVersion.text)]
    case .config: return settings.report
    case .metrics: return ["text": .text(Exposition.text(await metrics(), .text))]
    case .logLines: return ["lines": .list(LogOutput.recentLines().map { .text($0) })]
    case .logLevel: return try logLevel(arguments["level"]?.text)
    case .explain: return await explain(try await address(of: arguments))
    case .resolve: return try await resolve(arguments.string("name"))
    case .ping: return try await ping(arguments, emit: emit)
    case .down:
      // The answer goes out before the end begins.
      Task {
        try? await Task.sleep(for: .milliseconds(50))
        stop()
      }
      return ["pid": JSONValue(getpid())]
    case .reload: return ["settings": .list(try await reload().map(\.json))]
    case .waitOnline:
      let seconds = min(max(arguments["timeout_seconds"]?.integer ?? 60, 1), 86_400)
      guard await waitUntilOnline(.seconds(seconds)) else {
        throw ControlError(
          "timeout", "the node is not online after \(seconds) s: \(stateLine)",
          hint: "pilot-tun status; its log says more")
      }
      return [
        "address": .text(PilotAddress(network: 0, node: node ?? 0).description), "state": .text(directoryState.word),
      ]
    case .trustList: return ["trust": .list(directory.trustList().map(describe))]
    case .trustPending: return ["trust": .list(directory.pendingHandshakes().map(describe))]
    case .trustRequest:
      let address = try await address(of: arguments)
      try await directory.requestTrust(address.node, justification: arguments.string("reason"))
      // The peer's operator does not see our name until then.
      let own = node.map { PilotAddress(network: 0, node: $0).description }
      return await trustAnswer(address).adding(["own_address": JSONValue(own)])
    case .trustApprove:
      let address = try await address(of: arguments)
      await waitForRequest(of: address.node)
      // Approving twice is no mistake.
      if !store.isTrusted(address.node) { try await directory.approve(address.node) }
      return await trustAnswer(address)
    case .trustReject:
      let address = try await address(of: arguments)
      try await directory.reject(address.node, reason: arguments.string("reason"))
      return await trustAnswer(address)
    case .trustRevoke:
      let address = try await address(of: arguments)
      guard await directory.revoke(address.node) else {
        throw ControlError("not_trusted", "node \(address.node) was not trusted", hint: "pilot-tun trust list")
      }
      return await trustAnswer(address)
    case .trustAcceptKey:
      let address = try await acceptKey(of: address(of: arguments).node)
      return AddressForms.describe(address)
    }
  }

  /// Sets the level when one is given; tells the one that holds.
  private func logLevel(_ text: String?) throws -> JSONValue {
    let before = LogOutput.level
    if let text {
      guard let level = Logger.Level(named: text) else {
        throw ControlError(
          "invalid_argument", "`\(TextForms.plain(text))` is no log level",
          hint: "one of " + Logger.Level.allCases.map(\.rawValue).joined(separator: ", "), isUsage: true)
      }
      // Said at the more talkative of the two.
      if level < before { LogOutput.change(level: level) }
      if level != before { logger.notice("log level changed", metadata: ["from": "\(before)", "to": "\(level)"]) }
      LogOutput.change(level: level)
    }
    return ["level": .text(LogOutput.level.rawValue), "before": .text(before.rawValue)]
  }

  /// The address that the argument `peer` means.
  private func address(of arguments: JSONValue) async throws -> PilotAddress {
    guard let text = arguments["peer"]?.text else {
      throw ControlError(
        "invalid_argument", "the argument `peer` is missing",
        hint: "a hostname, a Pilot address, an overlay address or a node id")
    }
    switch try PeerReference(text) {
    case .address(let address): return address
    case .hostname(let name):
      let answer = await directory.node(named: name)
      guard case .found(_, let address, _, _) = answer else { throw Self.unknown(name, answer) }
      return address
    }
  }

  private func resolve(_ name: String) async throws -> JSONValue {
    guard case .hostname(let name) = try PeerReference(name) else {
      throw ControlError(
        "invalid_argument", "`\(name)` is an address, not a name", hint: "pilot-tun address converts addresses")
    }
    let answer = await directory.node(named: name)
    guard case .found(let node, let address, let lastSeen, let fromCache) = answer else {
      throw Self.unknown(name, answer)
    }
    let isPublic = node == self.node ? self.isPublic : await directory.record(of: node)?.isPublic ?? false
    return AddressForms.describe(address).adding([
      "hostname": .text(name), "from_cache": JSONValue(fromCache), "public": JSONValue(isPublic),
      "last_seen": lastSeen.map { JSONValue($0) } ?? .null,
    ])
  }

  private static func unknown(_ name: String, _ answer: NameResult) -> ControlError {
    if answer == .unavailable {
      return ControlError(
        "rendezvous_unreachable", "the name \(name) was never resolved and the rendezvous does not answer",
        hint: "pilot-tun status shows what is wrong with the rendezvous")
    }
    return ControlError(
      "not_found", "no node is called \(name)",
      hint: "names of private nodes are shown only to nodes they trust; use its address: `pilot-tun status` there, or "
        + "`pilot-tun trust pending` if it asked for trust")
  }

  // MARK: Trust

  private func trustAnswer(_ address: PilotAddress) async -> JSONValue {
    let trust = await directory.trust(of: address.node)
    return AddressForms.describe(address).adding(["state": .text(PeerPolicy.word(trust))])
  }

  /// A request that was just made may still be at the registry: asks for it, and gives it a moment to come.
  private func waitForRequest(of node: UInt32) async {
    func isThere() -> Bool {
      store.isTrusted(node) || directory.pendingHandshakes().contains { $0.node == node }
    }
    await wait { isThere() }
  }

  /// An approval that was just given may still be on its way here, too.
  private func waitForApproval(of node: UInt32) async {
    await wait { peers[node]?.verdict.refusal != .prohibited }
  }

  private func wait(for isThere: () -> Bool) async {
    guard !isThere(), directoryState.isConnected else { return }
    await directory.pollNow()
    for _ in 0..<30 where !isThere() { try? await Task.sleep(for: .milliseconds(100)) }
  }

  private func describe(_ entry: TrustEntry) -> JSONValue {
    let key = store.pinnedKey(node: entry.node) ?? store.record(of: entry.node)?.publicKey
    return AddressForms.describe(PilotAddress(network: 0, node: entry.node)).adding([
      "state": .text(entry.kind == .outgoing ? "requested" : entry.kind.rawValue),
      "hostname": JSONValue(store.record(of: entry.node)?.hostname), "since_unix": JSONValue(entry.since),
      "since": .text(LogLine.timestamp(entry.since * 1000)), "reason": .text(entry.justification),
      "public_key": .text(key.map { Base64.encode($0.bytes) } ?? ""),
    ])
  }

  // MARK: Ping

  private func ping(
    _ arguments: JSONValue, emit: @escaping @Sendable (JSONValue) async throws -> Void
  ) async throws -> JSONValue {
    let address = try await address(of: arguments)
    let count = Int(min(max(arguments["count"]?.integer ?? 4, 1), 100_000))
    let interval = Duration.milliseconds(min(max(arguments["interval_ms"]?.integer ?? 1000, 10), 3_600_000))
    let untilDirect = arguments.flag("until_direct")
    let deadline = arguments["deadline_ms"]?.integer.map { ContinuousClock.now + .milliseconds(min($0, 86_400_000)) }
    try await checkPing(address)
    var results: [JSONValue] = []
    var received = 0
    var isDirect = false
    var timedOut = false
    let start = ContinuousClock.now
    for sequence in 0..<count {
      if sequence > 0 { try await Task.sleep(until: start + interval * sequence, clock: .continuous) }
      var wait = Duration.seconds(5)
      if let deadline {
        guard ContinuousClock.now < deadline else {
          timedOut = true
          break
        }
        wait = min(wait, max(.milliseconds(100), deadline - ContinuousClock.now))
      }
      let outcome = await ping(address.node, network: address.network, timeout: wait)
      let result = describe(outcome, address, sequence)
      try await emit(result)
      if results.count < 10_000 { results.append(result) }
      if result.flag("ok") { received += 1 }
      if result.string("path") == "direct" { isDirect = true }
      if untilDirect, isDirect { break }
    }
    let times = results.compactMap { $0.double("rtt_ms") }
    return AddressForms.describe(address).adding([
      "hostname": JSONValue(peers[address.node]?.record.hostname), "sent": JSONValue(results.count),
      "received": JSONValue(received), "direct": JSONValue(isDirect), "results": .list(results),
      "timeout": JSONValue(timedOut),
      "rtt_ms": [
        "min": JSONValue(rounded: times.min()), "max": JSONValue(rounded: times.max()),
        "avg": JSONValue(rounded: times.isEmpty ? nil : times.reduce(0, +) / Double(times.count)),
      ],
    ])
  }

  /// What keeps every ping from being sent is an error at once.
  private func checkPing(_ address: PilotAddress) async throws {
    guard node != nil else {
      throw ControlError(
        "not_registered", "this node has no address yet: its rendezvous has not answered", hint: "pilot-tun status")
    }
    guard address.node != node else {
      throw ControlError("invalid_argument", "\(address) is this node itself", hint: "name another node")
    }
    let made = await peer(for: address.node)
    if case .failure(let error) = made { throw error }
    guard let peer = peers[address.node], peer.verdict.refusal == .prohibited else { return }
    switch await directory.trust(of: address.node) {
    case .requested, .trusted: await waitForApproval(of: address.node)
    default: break
    }
    guard peers[address.node]?.verdict.refusal == .prohibited else { return }
    let isAsked = await directory.trust(of: address.node) == .requested
    throw ControlError(
      "trust_required",
      isAsked
        ? "\(address) is private and has not approved this node's request yet"
        : "\(address) is private and there is no mutual trust",
      hint: isAsked
        ? "its operator approves with: pilot-tun trust approve \(PilotAddress(network: 0, node: node ?? 0))"
        : "pilot-tun trust request \(address)")
  }

  private func describe(_ outcome: PingOutcome, _ address: PilotAddress, _ sequence: Int) -> JSONValue {
    let peer = peers[address.node]
    var members: [String: JSONValue] = ["seq": JSONValue(sequence), "address": .text(address.description)]
    switch outcome {
    case .answered(let milliseconds, let arrival):
      members["ok"] = true
      members["rtt_ms"] = JSONValue(rounded: milliseconds)
      members["bytes"] = 16
      switch arrival {
      case .direct(let endpoint):
        members["path"] = "direct"
        members["endpoint"] = .text(endpoint.description)
      case .relayed:
        members["path"] = .text(peer.map { relayWord(of: $0) } ?? PathClass.relay.rawValue)
        members["endpoint"] = JSONValue(peer.flatMap { relayName(of: $0) })
      }
    case .silent:
      members["ok"] = false
      members["code"] = "timeout"
      members["reason"] = "timeout"
    case .failed(let error):
      members["ok"] = false
      members["code"] = .text(error.code)
      members["reason"] = .text(error.message)
      members["hint"] = JSONValue(error.hint)
    }
    return .object(members)
  }
}
