// What `status`, `peers` and `explain` show (docs/design.md §10 lists the members others rely on).

import Directory
import Engine
import Gateway
import Glibc
import JSON
import LinkIO
import Naming
import PortMapping
import Session
import TLSTransport
import Traversal
import Wire

extension Node {
  func status() async -> JSONValue {
    let own = PilotAddress(network: 0, node: node ?? 0)
    var members: [String: JSONValue] = [
      "version": .text(PilotTunVersion.text), "pid": JSONValue(getpid()), "ready": JSONValue(isReady),
      "uptime_seconds": JSONValue((Clock.now() - startedAt) / 1_000_000_000),
      "address": node == nil ? .null : .text(own.description), "node_id": node.map { JSONValue($0) } ?? .null,
      "ipv6": node == nil ? .null : .text(OverlayMapping.address(for: own).description),
      "public_key": .text(Base64.encode(store.identity.publicKey.bytes)),
      "public": JSONValue(isPublic), "interface": .text(engine.interfaceName),
      "interface_in": namespace == nil ? "machine" : "command",
      "mtu": JSONValue(configuration.mtu), "listen": .text(engine.localEndpoint.description),
      "endpoint": JSONValue(observed?.description), "state_dir": .text(configuration.stateDirectory),
      "control_socket": .text(configuration.controlSocket), "relay_only": JSONValue(configuration.isRelayOnly),
      "rendezvous": await rendezvousStatus(), "transport": await transportStatus(),
      "port_mapping": portMappingStatus(.ipv4), "ipv6_pinhole": portMappingStatus(.ipv6),
      "relay": relayStatus(), "nat": natStatus(), "dns": dnsStatus(), "names": await hostNames.status(),
      "offloads": offloadStatus(),
      "peers": .list(await peerList()), "drops": dropStatus(), "counters": counterStatus(),
      "pending_requests": JSONValue(directory.pendingHandshakes().count),
    ]
    let hostname = await directory.hostname ?? (directoryState.isConnected ? nil : configuration.hostname)
    members["hostname"] = JSONValue(hostname)
    members["networks"] = .list(
      networks.filter { $0 != 0 }.map { network in
        AddressForms.describe(PilotAddress(network: network, node: node ?? 0)).adding(["id": JSONValue(network)])
      })
    members["warnings"] = .list(of: await allWarnings())
    return .object(members)
  }

  func allWarnings() async -> [String] {
    var all = store.warnings + warnings + (tls.dialer?.warnings ?? [])
    if let problem = await directory.hostnameProblem { all.append("hostname: \(Self.withHint(problem))") }
    for (network, problem) in await directory.networkProblems.sorted(by: { $0.key < $1.key }) {
      all.append("network \(network): \(Self.withHint(problem))")
    }
    if let beaconProblem { all.append("beacon: \(beaconProblem)") }
    if isReady, configuration.dns != .off, let stubProblem { all.append("names: \(Self.withHint(stubProblem))") }
    if stubProblem == nil, let problem = await hostNames.problem {
      all.append("names: \(Self.withHint(problem))")
    }
    let lock = AEADContext.memoryLock
    if !lock.isLocked { all.append("keys are not locked in memory: \(lock.reason)") }
    let refused = engine.drops().first { $0.reason == "not-trusted" }?.count ?? 0
    if refused > 0 {
      all.append(
        "\(refused) packets of nodes without mutual trust were refused; `pilot-tun trust list` shows who is trusted")
    }
    return all
  }

  private static func withHint(_ problem: any ExplainedError) -> String {
    problem.hint.map { "\(problem.message) (\($0))" } ?? problem.message
  }

  private func rendezvousStatus() async -> JSONValue {
    let registry = directory.configuration
    var members: [String: JSONValue] = [
      "registry": .text(HostPort(host: registry.registryHost, port: registry.registryPort).description),
      "beacon": JSONValue(udpBeacon?.description ?? configuration.beacon?.description),
      "beacons": .list(beaconChoice.beacons.map(describe)),
      "state": .text(directoryState.word), "embedded": JSONValue(configuration.isRendezvousEmbedded), "error": nil,
    ]
    switch directoryState {
    case .connecting: break
    case .connected(let since): members["since_seconds"] = JSONValue((ContinuousClock.now - since).components.seconds)
    case .unreachable(let since, let reason, let nextTry):
      members["since_seconds"] = JSONValue((ContinuousClock.now - since).components.seconds)
      members["next_try_seconds"] = JSONValue(max(0, (nextTry - ContinuousClock.now).components.seconds))
      members["error"] = .text(reason.message)
      members["code"] = .text(reason.code)
      members["hint"] = JSONValue(reason.hint)
    }
    return .object(members)
  }

  private func describe(_ beacon: BeaconChoice.Beacon) -> JSONValue {
    let isHome = beacon.endpoint == beaconChoice.home
    let state =
      !beacon.isHealthy
      ? (beacon.answeredAt == 0 && beacon.misses == 0 ? "asked" : "silent")
      : isHome
        ? "home"
        : beaconChoice.known.contains(beacon.endpoint) ? "known" : "measured"
    let name = resolvedBeacons.first { $0.value == beacon.endpoint }?.key
    return [
      "endpoint": .text(beacon.endpoint.description), "name": JSONValue(name?.description), "state": .text(state),
      "rtt_ms": JSONValue(rounded: beacon.roundTrip.map { Double($0) / 1e6 }),
      "seen": JSONValue(beacon.seen?.description),
    ]
  }

  /// Whether this node relays and for how many, and who relays for it.
  private func relayStatus() -> JSONValue {
    let limit = configuration.relayLimit
    return [
      "offered": JSONValue(configuration.isRelay), "limit_bytes": JSONValue(limit.bytes),
      "limit_packets": JSONValue(limit.packets), "peers": JSONValue(peers.values.count { $0.isRelayedFor }),
      "through": .list(relayNodes.compactMap { peers[$0].map { .text($0.address.description) } }),
    ]
  }

  private func dnsStatus() -> JSONValue {
    [
      "mode": .text(configuration.dns.description), "running": JSONValue(isStubRunning),
      "resolver": .text(OverlayMapping.resolver.description), "zone": "pilot",
      "reason": configuration.dns == .off ? "dns = off" : JSONValue(stubProblem?.message),
      "code": JSONValue(stubProblem?.code), "hint": JSONValue(stubProblem?.hint),
    ]
  }

  private func offloadStatus() -> JSONValue {
    let states = engine.offloads.map { state in
      (state.name, ["on": JSONValue(state.isOn), "reason": JSONValue(state.reason)] as JSONValue)
    }
    return .object(Dictionary(states, uniquingKeysWith: { $1 }))
  }

  /// Every counted drop: the worker's, the handshake machines', the stub's, this room's.
  private func dropStatus() -> JSONValue { .object(dropCounts().mapValues { JSONValue($0) }) }

  func dropCounts() -> [String: UInt64] {
    var drops = counts
    for (name, number) in gateway.counts { drops[name, default: 0] += number }
    let ignored = mappingSeats.values.reduce(0) { $0 + $1.mapper.ignored }
    if ignored > 0 { drops["port-mapping-ignored"] = ignored }
    if let refused = tls.detour?.refused, refused > 0 { drops["tls-queue-full"] = refused }
    for drop in engine.drops() { drops[drop.reason, default: 0] += drop.count }
    return drops
  }

  private func counterStatus() -> JSONValue {
    var counters = tallies
    counters["streams"] = UInt64(gateway.streamCount)
    let byPath = peersByPath()
    for path in PathClass.allCases { counters["peers-\(path.rawValue)"] = UInt64(byPath[path] ?? 0) }
    for counter in engine.counters() { counters[counter.name] = counter.value }
    for (name, value) in stub?.counters.snapshot ?? [:] {
      counters["dns-" + name.map { $0 == "_" ? "-" : String($0) }.joined()] = value
    }
    return .object(counters.mapValues { JSONValue($0) })
  }

  // MARK: Peers

  /// Peers with a row, and trusted ones without, by node.
  func peerList() async -> [JSONValue] {
    var list = peers.values.sorted { $0.node < $1.node }.map(describe)
    for node in store.trustedNodes.sorted() where peers[node] == nil {
      let record = store.record(of: node)
      let own = AddressForms.describe(PilotAddress(network: 0, node: node))
      list.append(
        own.adding([
          "hostname": JSONValue(record?.hostname), "path": "none", "endpoint": nil, "session": "none", "rtt_ms": nil,
          "tx_bytes": 0, "rx_bytes": 0, "tx_packets": 0, "rx_packets": 0, "last_receive_seconds": nil,
          "path_mtu": nil, "trust": "trusted", "problem": nil, "public": JSONValue(record?.isPublic ?? false),
        ]))
    }
    return list
  }

  private func describe(_ peer: PeerState) -> JSONValue {
    let statistics = engine.statistics(of: peer.index)
    let now = Clock.now()
    let age = statistics.lastReceive == 0 ? nil : Double(now - min(now, statistics.lastReceive)) / 1e9
    var path = "none"
    var endpoint: String?
    if peer.handshake.currentSession != nil {
      switch peer.enginePath {
      case .none: break
      case .direct(let way): (path, endpoint) = ("direct", way.description)
      // The worker's endpoint means nothing to people while it is our own socket.
      case .relay(let relay):
        path = pathClass(peer.enginePath).rawValue
        endpoint = relay == tls.entrance ? relayName(of: peer) : relay.description
      }
    }
    let pathMTU = statistics.innerMTU == 0 ? configuration.mtu : Int(statistics.innerMTU)
    return AddressForms.describe(peer.address).adding([
      "hostname": JSONValue(peer.record.hostname), "path": .text(path), "endpoint": JSONValue(endpoint),
      "session": .text(peer.sessionWord),
      "rtt_ms": JSONValue(rounded: peer.path[peer.path.path]?.roundTrip.map { Double($0) / 1e6 } ?? peer.roundTrip),
      "tx_bytes": JSONValue(statistics.sentBytes), "rx_bytes": JSONValue(statistics.receivedBytes),
      "tx_packets": JSONValue(statistics.sentPackets), "rx_packets": JSONValue(statistics.receivedPackets),
      "last_receive_seconds": JSONValue(rounded: age), "path_mtu": JSONValue(pathMTU),
      "trust": .text(PeerPolicy.word(peer.trust)), "public": JSONValue(peer.record.isPublic),
      "problem": JSONValue(peer.problem), "raw_ipv6": JSONValue(peer.handshake.takesRawIPv6),
      "path_reason": .text(peer.path.reason.rawValue),
      "relay": JSONValue(endpoint == nil || path == "direct" ? nil : relayName(of: peer)),
    ])
  }

  /// Which relay, for people: a beacon's endpoint, the rendezvous by TLS, or the address of a node.
  func relayName(of peer: PeerState) -> String? {
    switch peer.relays.present {
    case .beacon(let endpoint)?: transport.carrier == .tls ? configuration.tls?.authority : endpoint.description
    case .node(let node)?: peers[node]?.address.description ?? "\(node)"
    case nil: nil
    }
  }

  /// The relays that both ends may use, when the path is one of them.
  private func relayLines(of peer: PeerState) -> [String] {
    guard peer.path.path == .relay, peer.relays.ways.count > 1 else { return [] }
    return peer.relays.ways.map { way in
      let name =
        switch way.relay {
        case .beacon(let endpoint): "beacon \(endpoint)"
        case .node(let node): "node \(peers[node]?.address.description ?? "\(node)")"
        }
      let time = way.roundTrip.map { TextForms.milliseconds(Double($0) / 1e6) } ?? "not measured"
      return "\(name): \(time), \(way.answers) of \(way.probes) pings answered"
        + (way.relay == peer.relays.present ? ", in use" : "")
    }
  }

  // MARK: Explain

  /// Step by step what stands between this node and the peer.
  func explain(_ address: PilotAddress) async -> JSONValue {
    var steps: [JSONValue] = []
    func step(_ name: String, _ ok: Bool, _ text: String, hint: String? = nil) {
      steps.append(["name": .text(name), "ok": JSONValue(ok), "text": .text(text), "hint": JSONValue(hint)])
    }
    step(
      "rendezvous", directoryState.isConnected, directoryState.word,
      hint: directoryState.isConnected ? nil : "known peers go on working; pilot-tun status shows the reason")
    if configuration.tls != nil {
      let isOnTLS = transport.carrier == .tls
      step(
        "transport", !isOnTLS || transport.isLinkUp,
        isOnTLS
          ? "TLS to \(configuration.tls?.authority ?? "")\(transport.isLinkUp ? "" : ", not connected"): "
            + transport.reason : "UDP: \(transport.reason)",
        hint: tls.problem.map { $0.hint ?? $0.message })
    }
    let result = await directory.lookUp(address.node)
    let record = result.record
    switch result {
    case .found(let record):
      let source = record.isFromStore ? "remembered" : "found"
      let seen = record.lastSeen.map { "last seen \(TextForms.duration(seconds: NodeStore.unixTime() - $0)) ago" }
      step("directory", true, [source, seen].compactMap { $0 }.joined(separator: ", "))
    case .notFound: step("directory", false, "no such node", hint: "check the address or the name")
    case .unavailable: step("directory", false, "never seen, and the rendezvous does not answer")
    }
    if let record {
      let trust = await directory.trust(of: address.node)
      let isAllowed = trust.isAdmitted || record.isPublic
      step(
        "trust", isAllowed,
        PeerPolicy.word(trust) + (record.isPublic ? " · the peer is public" : " · the peer is private"),
        hint: isAllowed ? nil : "pilot-tun trust request \(address)")
      var distinct: [String] = []
      for endpoint in record.endpoints.map(\.description) where !distinct.contains(endpoint) {
        distinct.append(endpoint)
      }
      let endpoints = distinct.joined(separator: ", ")
      step(
        "endpoints", !record.endpoints.isEmpty || record.isRelayOnly || udpBeacon != nil || tls.entrance != nil,
        endpoints.isEmpty ? (record.isRelayOnly ? "relay only" : "none known") : endpoints)
    }
    for line in openingLines() { step("router", true, line) }
    if let peer = peers[address.node] {
      let pinned = store.pinnedKey(node: address.node).map { "pinned: \(Base64.encode($0.bytes))" }
      step(
        "key", !peer.isKeyRefused, peer.isKeyRefused ? peer.problem ?? "changed" : pinned ?? "none is pinned yet",
        hint: peer.isKeyRefused ? "pilot-tun trust accept-key \(address)" : nil)
      step("session", peer.handshake.currentSession != nil, peer.sessionWord)
      for line in peer.path.explanation(now: Clock.now(), relay: relayWord(of: peer)) {
        step("path", peer.enginePath != .none, line)
      }
      for line in relayLines(of: peer) { step("relay", true, line) }
    } else if record != nil {
      step("session", false, "nothing was sent yet", hint: "pilot-tun ping \(address)")
    }
    let now = Clock.now()
    let machine = peers[address.node]?.path
    let relay = peers[address.node].map { relayWord(of: $0) } ?? PathClass.relay.rawValue
    let ways = (machine?.accounts(now: now) ?? []).map { account in
      [
        "path": .text(account.path == .relay ? relay : account.path.description), "kind": .text(account.kind),
        "in_use": JSONValue(account.isPath),
        "rtt_ms": JSONValue(rounded: account.roundTripMilliseconds), "probes": JSONValue(UInt64(account.probes)),
        "answers": JSONValue(UInt64(account.answers)), "tried_seconds_ago": JSONValue(rounded: account.triedAgo),
        "answered_seconds_ago": JSONValue(rounded: account.answeredAgo), "verdict": .text(account.verdict),
      ] as JSONValue
    }
    return AddressForms.describe(address).adding([
      "hostname": JSONValue(record?.hostname), "steps": .list(steps), "candidates": .list(ways),
      "next_attempt_seconds": JSONValue(rounded: machine?.nextAttempt(now: now)),
    ])
  }
}
