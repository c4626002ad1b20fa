// What a survey finds of simulated NATs: how they give out ports, and for how long they keep a mapping.

import SeededRandom
import Simulator
import Testing
import Traversal
import Wire

private let ms: UInt64 = 1_000_000
private let second: UInt64 = 1_000_000_000

@Suite("NAT surveys")
struct NATSurveyTests {
  private struct Found {
    var translation: PortTranslation?
    var lifetime: UInt64??
    var took: UInt64 = 0
    var datagrams = 0
  }

  private let beacon = Endpoint(address: IPv6Address(mappedIPv4: 0xC633_6402), port: 9001)
  private let inside = IPv6Address(mappedIPv4: 0xC0A8_0105)

  /// A survey behind `nat` (nil: none), with a beacon that answers checks on 9001 and 9002. A round trip takes 40 ms.
  /// `loses`: whether the datagram of this number, out or in, is lost.
  private func survey(
    _ behaviour: VirtualNAT.Behaviour?, otherPort: UInt16 = 9002, servesChecks: Bool = true,
    loses: (Int) -> Bool = { _ in false }
  ) -> Found {
    var nat = behaviour.map { VirtualNAT(external: IPv6Address(mappedIPv4: 0xCB00_7109), behaviour: $0) }
    var generator = SeededGenerator(seed: 1)
    var survey = NATSurvey(beacon: beacon, local: [inside], entropy: 1 << 40)
    var inbound: [(at: UInt64, to: Endpoint, from: Endpoint, bytes: [UInt8])] = []
    var (found, now, count) = (Found(), 1000 * second, 0)
    func passes() -> Bool {
      count += 1
      return !loses(count)
    }
    func perform(_ actions: [SocketAction<NATSurvey.News>]) {
      for action in actions {
        switch action {
        case .tell(.translation(let translation, _)): found.translation = translation
        case .tell(.lifetime(let lifetime)): found.lifetime = .some(lifetime)
        case .send(let socket, let bytes, let target):
          found.datagrams += 1
          guard target.address == beacon.address, passes() else { continue }
          let own = Endpoint(address: inside, port: 5000 + UInt16(socket))
          let outer = nat == nil ? own : nat?.outbound(from: own, to: target, now: now, using: &generator)
          guard servesChecks, let outer, case .check(let transaction, let port, let size)? = BeaconMessage(bytes) else {
            continue
          }
          let other = target.port == otherPort ? beacon.port : otherPort
          let reply = BeaconMessage.checkReply(transaction: transaction, seen: outer, otherPort: other, size: size)
          let to = Endpoint(address: outer.address, port: port == 0 ? outer.port : port)
          inbound.append((now + 40 * ms, to, target, reply.encoded()))
        }
      }
    }
    while let next = survey.nextDeadline {
      if let index = inbound.indices.min(by: { inbound[$0].at < inbound[$1].at }), inbound[index].at <= max(next, now) {
        let datagram = inbound.remove(at: index)
        now = max(now, datagram.at)
        var to: Endpoint? = datagram.to
        if nat != nil { to = (try? nat?.inbound(from: datagram.from, to: datagram.to, now: now).get()) ?? nil }
        guard let to, passes() else { continue }
        perform(survey.received(Int(to.port) - 5000, from: datagram.from, datagram.bytes, now))
      } else {
        now = max(now, next)
        perform(survey.tick(now))
      }
    }
    found.took = now - 1000 * second
    return found
  }

  @Test("how a NAT gives out ports is known within a second: kept, another one for each destination, or no NAT at all")
  func translations() {
    #expect(survey(.portRestricted).translation == .independent)
    #expect(survey(.fullCone).translation == .independent)
    #expect(survey(.symmetric).translation == .dependent)
    #expect(survey(.symmetricSequential).translation == .dependent)
    let open = survey(nil)
    #expect(open.translation == .independent && open.lifetime == nil && open.took < 2 * second)
    // A beacon with one port does not tell, and one without checks ends it.
    #expect(survey(.symmetric, otherPort: 0).translation == .unknown)
    let official = survey(.symmetric, servesChecks: false)
    #expect(official.translation == nil && official.lifetime == nil && official.took < 3 * second)
  }

  @Test(
    "the lifetime found is the longest rest that the NAT's mapping survives, never a longer one",
    arguments: [
      (10, 0), (25, 20), (30, 28), (44, 28), (60, 45), (90, 65), (120, 95), (300, 125),
    ])
  func lifetimes(timeout: Int, expected: Int) throws {
    for mapping in [VirtualNAT.Dependence.endpointIndependent, .addressAndPortDependent] {
      for allocation in VirtualNAT.PortAllocation.allCases {
        let nat = VirtualNAT.Behaviour(mapping: mapping, allocation: allocation, timeout: UInt64(timeout) * second)
        let found = survey(nat)
        let lifetime = try #require(found.lifetime)
        #expect(lifetime == UInt64(expected) * second, "\(nat)")
        #expect(found.datagrams <= 60 && found.took <= 135 * second, "\(found)")
      }
    }
  }

  @Test("lost datagrams make it find less, never more")
  func losses() {
    for every in 2...9 {
      let found = survey(.init(timeout: 60 * second)) { $0 % every == 0 }
      if case .some(.some(let lifetime)) = found.lifetime { #expect(lifetime <= 45 * second) }
    }
  }

  @Test("keepalives leave some seconds before the lifetime, between 15 and 120 s")
  func keepalives() {
    for (lifetime, gap) in [(0, 15), (20, 15), (28, 23), (45, 40), (125, 120), (1000, 120)] {
      #expect(NATSurvey.keepalive(lifetime: UInt64(lifetime) * second) == UInt64(gap) * second)
    }
  }
}
