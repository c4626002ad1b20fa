// Keeps one UDP port of this machine mapped at the default gateway, or open in its firewall for IPv6, as a pure state
// machine: (event, time, entropy) -> actions. Node+PortMapping of TunControl gives one of each family a socket, a clock
// and what speaks UPnP.
//
// Rules:
// - PCP first; NAT-PMP when the server says that it knows no PCP, or nothing; UPnP when it knows neither. A service that
//   answers and refuses has the last word. IPv6 is PCP alone.
// - A question is repeated after 250 ms, then in doubling gaps (RFC 6886 §3.1): 4 times while searching, 9 times where
//   a mapping is at stake.
// - Renewed between 1/2 and 5/8 of the lifetime (RFC 6887 §11.2.1), then in the middle of what is left of it. The
//   lifetime is short: a renewal finds a server that restarted, and what a crash leaves behind goes soon.
// - A server that announces a restart (§8.5, §14.1) is asked again within 5 s, at most once in 10 s.
// - Without success: again after 15 minutes, or on another network.
// - What is granted and useless is given back at once.
// - Answers count from the server's endpoint only, those of PCP with our nonce, and while the question is open.

import Wire

package struct PortMapper: Sendable {
  /// Seconds asked for.
  package static let lifetime: UInt32 = 1200
  /// A server that grants less would have us ask all the time.
  package static let leastLifetime: UInt32 = 60
  /// RFC 6887 §15 has no use for more than a day.
  package static let largestLifetime: UInt32 = 86_400
  /// Nanoseconds, as all times here.
  package static let firstGap: UInt64 = 250_000_000
  package static let searchTries = 4
  package static let renewalTries = 9
  package static let retryInterval: UInt64 = 900 * second
  /// UPnP searches for 2 s, then makes three requests.
  package static let upnpPatience: UInt64 = 40 * second
  private static let second: UInt64 = 1_000_000_000

  private enum Subject { case pcp, natPMPAddress, natPMPMapping, upnp }

  private struct Question {
    var subject: Subject
    var tries = 1
    var gap = PortMapper.firstGap
    var dueAt: UInt64
  }

  package private(set) var mapping: PortMapping?
  /// Why there is none; nil while that is not known yet.
  package private(set) var problem: MappingProblem?

  /// Datagrams of others, of another mapping, or of no protocol that we know.
  package private(set) var ignored: UInt64 = 0

  private let internalPort: UInt16
  private let family: MappingFamily
  private var network: MappingNetwork?
  private var service = MappingProtocol.pcp
  private let nonceOfNetwork: @Sendable (MappingNetwork) -> PCPNonce
  private var nonce = PCPNonce(high: 0, low: 0)
  private var epoch = ServerEpoch()
  private var question: Question?
  private var askedAt: UInt64 = 0
  /// What NAT-PMP answered to its first question.
  private var natPMPAddress: IPv6Address?
  /// The external endpoint of before: asked for again.
  private var wish: Endpoint
  private var renewAt: UInt64?
  private var expiresAt: UInt64?
  private var retryAt: UInt64?

  private var anyAddress: IPv6Address { family == .ipv4 ? IPv6Address(mappedIPv4: 0) : IPv6Address(high: 0, low: 0) }

  /// `nonce`: unguessable for others (RFC 6887 §11.2), and always the same one on a network: after a crash the mapping of
  /// before is renewed and given back with it.
  package init(
    internalPort: UInt16, family: MappingFamily = .ipv4, nonce: @escaping @Sendable (MappingNetwork) -> PCPNonce
  ) {
    self.internalPort = internalPort
    self.family = family
    nonceOfNetwork = nonce
    wish = Endpoint(address: IPv6Address(high: 0, low: 0), port: internalPort)
    wish.address = anyAddress
  }

  package var isSearching: Bool { question != nil && mapping == nil }

  /// When `tick` is due.
  package var nextDeadline: UInt64? { [question?.dueAt, renewAt, expiresAt, retryAt].compactMap { $0 }.min() }

  package mutating func handle(_ event: PortMapperEvent, now: UInt64, entropy: UInt64) -> [PortMapperAction] {
    var actions: [PortMapperAction] = []
    switch event {
    case .network(let network): enter(network, now, &actions)
    case .received(let from, let bytes):
      guard from == network?.server else {
        ignored += 1
        break
      }
      if let response = PCPMessage.Response(bytes) {
        hear(response, now, entropy, &actions)
      } else if let response = NATPMPMessage.Response(bytes) {
        hear(response, now, entropy, &actions)
      } else {
        ignored += 1
      }
    case .refused:
      // A server that we know restarts: it is asked again, as if it had said nothing.
      if mapping == nil, let question, question.subject != .upnp { goOn(with: .upnp, now, &actions) }
    case .upnp(let answer):
      guard question?.subject == .upnp else { break }
      switch answer {
      case .mapped(let external): grant(external, Self.lifetime, now, entropy, &actions)
      case .failed(let text): refuse(.noService(text), now, &actions)
      }
    case .tick: tick(now, &actions)
    case .leave: leave(&actions)
    }
    return actions
  }

  // MARK: Networks

  private mutating func enter(_ new: MappingNetwork?, _ now: UInt64, _ actions: inout [PortMapperAction]) {
    if new != network {
      forget(&actions)
      network = new
      if let new { nonce = nonceOfNetwork(new) }
      wish.address = anyAddress
    } else if mapping != nil {
      return
    }
    if network == nil {
      problem = .noGateway(family)
      actions.append(.changed)
    } else {
      search(now, &actions)
    }
  }

  /// Gives back what we have, or what a question on its way may bring us.
  private mutating func leave(_ actions: inout [PortMapperAction]) {
    // A call of UPnP under way says its port when it is too late; the lease ends by itself.
    if mapping != nil || question != nil { giveBack(mapping?.external.port ?? 0, &actions) }
    forget(&actions)
    network = nil
  }

  private func giveBack(_ externalPort: UInt16, _ actions: inout [PortMapperAction]) {
    guard let network else { return }
    switch service {
    case .pcp:
      let nothing = Endpoint(address: anyAddress, port: 0)
      let gone = PCPMessage.Mapping(nonce: nonce, internalPort: internalPort, external: nothing)
      actions.append(.send(PCPMessage.mapRequest(gone, lifetime: 0, client: network.local)))
    case .natPMP:
      actions.append(.send(NATPMPMessage.mapRequest(internalPort: internalPort, externalPort: 0, lifetime: 0)))
    case .upnp: if externalPort != 0 { actions.append(.upnp(.unmap(externalPort: externalPort))) }
    }
  }

  private mutating func forget(_ actions: inout [PortMapperAction]) {
    if mapping != nil { actions.append(.changed) }
    (mapping, problem, question) = (nil, nil, nil)
    (renewAt, expiresAt, retryAt) = (nil, nil, nil)
  }

  // MARK: Asking

  private mutating func search(_ now: UInt64, _ actions: inout [PortMapperAction]) {
    epoch = ServerEpoch()
    retryAt = nil
    ask(.pcp, now, &actions)
  }

  /// The next protocol; by IPv6 there is none.
  private mutating func goOn(with subject: Subject, _ now: UInt64, _ actions: inout [PortMapperAction]) {
    if family == .ipv4 { ask(subject, now, &actions) } else { refuse(.noPCP, now, &actions) }
  }

  private mutating func ask(_ subject: Subject, _ now: UInt64, _ actions: inout [PortMapperAction]) {
    guard let network else { return }
    askedAt = now
    renewAt = nil
    service = subject == .pcp ? .pcp : subject == .upnp ? .upnp : .natPMP
    question = Question(subject: subject, dueAt: now + (subject == .upnp ? Self.upnpPatience : Self.firstGap))
    send(subject, network, &actions)
  }

  private func send(_ subject: Subject, _ network: MappingNetwork, _ actions: inout [PortMapperAction]) {
    switch subject {
    case .pcp:
      let wanted = PCPMessage.Mapping(nonce: nonce, internalPort: internalPort, external: wish)
      actions.append(.send(PCPMessage.mapRequest(wanted, lifetime: Self.lifetime, client: network.local)))
    case .natPMPAddress: actions.append(.send(NATPMPMessage.addressRequest))
    case .natPMPMapping:
      let bytes = NATPMPMessage.mapRequest(
        internalPort: internalPort, externalPort: wish.port, lifetime: Self.lifetime)
      actions.append(.send(bytes))
    case .upnp:
      actions.append(
        .upnp(
          .map(
            internalPort: internalPort, externalPort: wish.port, client: network.local, lifetime: Self.lifetime)))
    }
  }

  private mutating func tick(_ now: UInt64, _ actions: inout [PortMapperAction]) {
    if let expiresAt, now >= expiresAt {
      forget(&actions)
      search(now, &actions)
    }
    if let open = question, let network, now >= open.dueAt {
      let tries = mapping == nil ? Self.searchTries : Self.renewalTries
      if open.subject == .upnp || open.tries >= tries {
        giveUp(open.subject, now, &actions)
      } else {
        let gap = open.gap * 2
        question = Question(subject: open.subject, tries: open.tries + 1, gap: gap, dueAt: now + gap)
        send(open.subject, network, &actions)
      }
    }
    if let renewAt, now >= renewAt {
      ask(service == .pcp ? .pcp : service == .upnp ? .upnp : .natPMPAddress, now, &actions)
    }
    if let retryAt, now >= retryAt { search(now, &actions) }
  }

  /// No answer.
  private mutating func giveUp(_ subject: Subject, _ now: UInt64, _ actions: inout [PortMapperAction]) {
    switch subject {
    case .pcp where mapping == nil: goOn(with: .natPMPAddress, now, &actions)
    case .natPMPAddress where mapping == nil, .natPMPMapping where mapping == nil: ask(.upnp, now, &actions)
    default: refuse(family == .ipv4 ? .noService("no answer") : .noPCP, now, &actions)
    }
  }

  // MARK: Answers

  private mutating func hear(
    _ response: PCPMessage.Response, _ now: UInt64, _ entropy: UInt64, _ actions: inout [PortMapperAction]
  ) {
    guard service == .pcp else { return }
    if response.opcode == PCPMessage.announce {
      guard mapping != nil, response.result == .success else { return }
      if epoch.hasRestarted(response.epoch, now: now) { hurry(now, entropy) }
      return
    }
    guard question?.subject == .pcp else { return }
    if let answered = response.mapping {
      guard answered.nonce == nonce, answered.internalPort == internalPort else {
        ignored += 1
        return
      }
    } else {
      // The header alone has no nonce: enough to try another way, not to believe anything else.
      guard response.result == .unsupportedVersion || response.result == .unsupportedOpcode else { return }
    }
    switch response.result {
    case .success:
      guard let external = response.mapping?.external else { return }
      // The answer to our own request: whatever was lost, the mapping stands now.
      _ = epoch.hasRestarted(response.epoch, now: now)
      grant(external, response.lifetime, now, entropy, &actions)
    case .unsupportedVersion where mapping == nil, .unsupportedOpcode where mapping == nil,
      .unsupportedProtocol where mapping == nil:
      goOn(with: .natPMPAddress, now, &actions)
    default:
      let pause = UInt64(min(max(response.lifetime, 30), 900)) * Self.second
      refuse(.refused(.pcp, response.result.description), now, after: pause, &actions)
    }
  }

  private mutating func hear(
    _ response: NATPMPMessage.Response, _ now: UInt64, _ entropy: UInt64, _ actions: inout [PortMapperAction]
  ) {
    if question?.subject == .pcp, mapping == nil, case .failure(.unsupportedVersion) = response.answer {
      return goOn(with: .natPMPAddress, now, &actions)
    }
    guard service == .natPMP else { return }
    switch response.answer {
    case .address(let address):
      let hasRestarted = epoch.hasRestarted(response.epoch, now: now)
      if question?.subject == .natPMPAddress {
        natPMPAddress = address
        ask(.natPMPMapping, now, &actions)
      } else if question == nil, let mapping, hasRestarted || address != mapping.external.address {
        hurry(now, entropy)
      }
    case .mapping(let inner, let port, let lifetime):
      guard question?.subject == .natPMPMapping, inner == internalPort, let natPMPAddress else { return }
      _ = epoch.hasRestarted(response.epoch, now: now)
      grant(Endpoint(address: natPMPAddress, port: port), lifetime, now, entropy, &actions)
    case .failure(let result):
      guard question?.subject == .natPMPAddress || question?.subject == .natPMPMapping else { return }
      if mapping == nil, result == .unsupportedVersion {
        ask(.upnp, now, &actions)
      } else {
        refuse(.refused(.natPMP, result.description), now, &actions)
      }
    }
  }

  /// The server lost its mappings. Not all its clients at once.
  private mutating func hurry(_ now: UInt64, _ entropy: UInt64) {
    guard question == nil else { return }
    let soon = max(now, askedAt + 10 * Self.second) + entropy % (5 * Self.second)
    renewAt = min(renewAt ?? soon, soon)
  }

  private mutating func grant(
    _ external: Endpoint, _ granted: UInt32, _ now: UInt64, _ entropy: UInt64, _ actions: inout [PortMapperAction]
  ) {
    if let flaw = flaw(external, granted) {
      giveBack(external.port, &actions)
      if mapping != nil { forget(&actions) }
      return refuse(.useless(service, flaw), now, &actions)
    }
    let lifetime = UInt64(min(granted, Self.largestLifetime)) * Self.second
    let before = mapping
    mapping = PortMapping(external: external, service: service, lifetime: granted)
    (problem, question, retryAt) = (nil, nil, nil)
    wish = external
    expiresAt = now + lifetime
    renewAt = now + lifetime / 2 + entropy % (lifetime / 8)
    if before?.external != external || before?.service != service { actions.append(.changed) }
  }

  /// Whether peers could make use of it; nobody shall be told to knock at a place that no router has.
  private func flaw(_ external: Endpoint, _ lifetime: UInt32) -> String? {
    if let flaw = family == .ipv4 ? Self.flawOfIPv4(external.address) : Self.flawOfIPv6(external.address) {
      return flaw
    }
    if external.port == 0 { return "no external port" }
    if lifetime < Self.leastLifetime { return "for \(lifetime) seconds only" }
    return nil
  }

  private static func flawOfIPv4(_ external: IPv6Address) -> String? {
    guard let address = external.mappedIPv4 else { return "the external address is no IPv4 address" }
    if address == 0 { return "the router has no external address" }
    if address >> 24 == 0 || address >> 24 == 127 || address >> 28 >= 14 { return "no router has \(external)" }
    return nil
  }

  /// Only global unicast (RFC 4291 §2.4) is reached from beyond the firewall.
  private static func flawOfIPv6(_ external: IPv6Address) -> String? {
    external.high >> 61 == 1 ? nil : "nobody beyond the router reaches \(external)"
  }

  /// No success this time. A mapping that stands is good until it ends.
  private mutating func refuse(
    _ reason: MappingProblem, _ now: UInt64, after pause: UInt64 = PortMapper.retryInterval,
    _ actions: inout [PortMapperAction]
  ) {
    question = nil
    if let expiresAt, mapping != nil {
      // §11.2.1: not more often than every 4 s.
      let left = expiresAt - min(now, expiresAt)
      renewAt = left > 8 * Self.second ? now + left / 2 : nil
      return
    }
    retryAt = now + pause
    guard problem != reason else { return }
    problem = reason
    actions.append(.changed)
  }
}
