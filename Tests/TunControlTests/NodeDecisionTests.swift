// Decisions of the node as pure functions: admission, deadlines, lifetimes of names, log lines, privileges.

import SeededRandom
import Directory
import Engine
import Glibc
import LinkIO
import Logging
import Testing
import Wire

@testable import TunControl

@Suite("Node decisions")
struct NodeDecisionTests {
  func verdict(trusted: Bool, own: Bool, peer: Bool, come: Bool) -> PeerPolicy.Verdict {
    PeerPolicy.verdict(isTrusted: trusted, isOwnPublic: own, isPeerPublic: peer, hasPeerCome: come)
  }

  @Test("a private node admits trusted peers only")
  func privateAdmission() {
    #expect(verdict(trusted: true, own: false, peer: false, come: false).admission == .all)
    for peer in [true, false] {
      for come in [true, false] {
        #expect(verdict(trusted: false, own: false, peer: peer, come: come).admission == .repliesOnly)
      }
    }
  }

  @Test("a path in use hears from us within 25 s; when it is not, an official daemon does for as long as it keeps on")
  func keepalives() {
    let second: UInt64 = 1_000_000_000
    let start = 1000 * second
    /// Two ends that look every 5 s: how often and how long we speak. An official daemon speaks every 30 s for two
    /// minutes after what it takes for use.
    func quiet(_ isOfficial: Bool) -> (last: UInt64, longest: UInt64, frames: [Keepalive]) {
      var (lastSend, lastReceive, usedThere, frames, longest) = (start, start, start, [Keepalive](), UInt64(0))
      for now in stride(from: start, through: start + 1800 * second, by: Int(5 * second)) {
        if isOfficial, now < usedThere + 120 * second, now >= lastReceive + 30 * second { lastReceive = now }
        let due = Keepalive.due(
          now: now, lastUse: start, lastSend: lastSend, lastReceive: lastReceive, isOfficial: isOfficial)
        guard due != .none else { continue }
        longest = max(longest, now - lastSend)
        lastSend = now
        frames.append(due)
        // A ping is answered, and an official daemon takes it for use.
        if due == .probe { (lastReceive, usedThere) = (now, now) }
      }
      return (lastSend - start, longest, frames)
    }
    let own = quiet(false)
    #expect(own.last <= 120 * second && own.longest <= 25 * second && Set(own.frames.map(\.self)) == [.probe])
    let official = quiet(true)
    // It is never left in silence while it keeps on, and then both fall silent.
    #expect(official.last >= 220 * second && official.last <= 300 * second, "\(official)")
    #expect(official.longest <= 25 * second && official.frames.last == .empty)
  }

  @Test(
    "behind a NAT that keeps mappings for long, a path of ours hears from us as rarely; an official daemon does not")
  func longKeepalives() {
    let second: UInt64 = 1_000_000_000
    func due(_ isOfficial: Bool, after silence: UInt64) -> Keepalive {
      Keepalive.due(
        now: 1000 * second, lastUse: 990 * second, lastSend: (1000 - silence) * second, lastReceive: 990 * second,
        isOfficial: isOfficial, interval: 85 * second)
    }
    #expect(due(false, after: 84) == .none && due(false, after: 85) == .probe)
    #expect(due(true, after: 19) == .none && due(true, after: 20) == .probe)
  }

  @Test("another way out is news when there is one, and it leads to the same beacon as before")
  func wayOut() throws {
    func way(_ target: UInt16, _ source: UInt32?, _ gateway: UInt32?) -> WayOut {
      WayOut(
        target: Endpoint(address: IPv6Address(mappedIPv4: 0xCB00_7102), port: target),
        source: source.map { IPv6Address(mappedIPv4: $0) }, gateway: gateway.map { IPv6Address(mappedIPv4: $0) })
    }
    let home = way(9001, 1, 2)
    #expect(!home.isNews(after: nil) && !home.isNews(after: home))
    #expect(way(9001, 3, 4).isNews(after: home))
    #expect(way(9001, 1, 5).isNews(after: home), "the same address on another network")
    #expect(!way(9001, nil, nil).isNews(after: home), "nothing leads out")
    #expect(home.isNews(after: way(9001, nil, nil)), "it is back")
    #expect(!way(9002, 3, 4).isNews(after: home), "another beacon, of which nothing is known")
    // The kernel's own word.
    let loopback = IPv6Address(mappedIPv4: 0x7F00_0001)
    #expect(Endpoint(address: loopback, port: 9001).sourceAddress == loopback)
  }

  @Test("a public node admits everybody")
  func publicAdmission() {
    #expect(verdict(trusted: false, own: true, peer: false, come: false).admission == .all)
  }

  @Test("packets to a private peer without trust are refused here")
  func prohibition() {
    #expect(verdict(trusted: false, own: false, peer: false, come: false).refusal == .prohibited)
    #expect(verdict(trusted: false, own: true, peer: false, come: false).refusal == .prohibited)
    #expect(verdict(trusted: false, own: false, peer: true, come: false).refusal == .none)
    #expect(verdict(trusted: true, own: false, peer: false, come: false).refusal == .none)
  }

  @Test("a public node may answer a private peer that came by itself; a private one may not")
  func answers() {
    #expect(verdict(trusted: false, own: true, peer: false, come: true).refusal == .none)
    #expect(verdict(trusted: false, own: false, peer: false, come: true).refusal == .prohibited)
  }

  @Test("status names what keeps a peer's packets out, in either direction, and nothing else")
  func problems() throws {
    let address = PilotAddress(network: 0, node: 7)
    func problem(trusted: Bool, own: Bool, peer: Bool, come: Bool) -> String? {
      PeerPolicy.problem(
        verdict(trusted: trusted, own: own, peer: peer, come: come), hasPeerCome: come, address: address)
    }
    #expect(problem(trusted: true, own: false, peer: false, come: true) == nil)
    #expect(problem(trusted: false, own: true, peer: false, come: true) == nil)
    #expect(problem(trusted: false, own: false, peer: true, come: false) == nil)
    let outbound = try #require(problem(trusted: false, own: false, peer: false, come: false))
    #expect(outbound.contains("trust request \(address)") && !outbound.contains("trust approve"))
    let inbound = try #require(problem(trusted: false, own: false, peer: true, come: true))
    #expect(inbound.contains("trust approve \(address)") && !inbound.contains("trust request"))
    let both = try #require(problem(trusted: false, own: false, peer: false, come: true))
    #expect(both.contains("trust approve \(address)") && both.contains("trust request \(address)"))
  }

  @Test("deadlines come up in order, and a moved one counts once, where it moved to")
  func deadlines() {
    var queue = DeadlineQueue()
    #expect(queue.next() == nil)
    queue.set(1, to: 30)
    queue.set(2, to: 10)
    queue.set(3, to: 20)
    queue.set(2, to: 40)
    queue.set(3, to: nil)
    #expect(queue.next() == 30)
    #expect(queue.popDue(29) == nil)
    #expect(queue.popDue(30) == 1)
    #expect(queue.popDue(100) == 2)
    #expect(queue.popDue(100) == nil)
    #expect(queue.next() == nil)
  }

  @Test(
    "deadlines agree with a sorted list, whatever is set, moved and taken out",
    arguments: [1, UInt64.random(in: 2..<99_999)])
  func deadlineModel(seed: UInt64) {
    var queue = DeadlineQueue()
    var model: [UInt32: UInt64] = [:]
    var generator = SeededGenerator(seed: seed)
    var now: UInt64 = 0
    for _ in 0..<20_000 {
      let node = UInt32.random(in: 0..<50, using: &generator)
      switch Int.random(in: 0..<4, using: &generator) {
      case 0:
        queue.set(node, to: nil)
        model[node] = nil
      case 1:
        now += UInt64.random(in: 0..<20, using: &generator)
        while let due = queue.popDue(now) {
          #expect(model[due].map { $0 <= now } == true)
          model[due] = nil
        }
        #expect(model.values.allSatisfy { $0 > now })
      default:
        let time = now + UInt64.random(in: 1..<100, using: &generator)
        queue.set(node, to: time)
        model[node] = time
      }
      #expect(queue.next() == model.values.min(), "seed \(seed)")
    }
  }

  @Test("strangers cause a burst of lookups and then twenty a second")
  func strangers() {
    var limiter = StrangerLimiter()
    let start: UInt64 = 1_000_000_000_000
    let burst = (0..<1000).count { _ in limiter.admit(start) }
    #expect(burst == 50)
    let later = (0..<1000).count { _ in limiter.admit(start + 1_000_000_000) }
    #expect(later == 20)
  }

  @Test("a name lives as long as its node shows signs of life")
  func timeToLive() {
    #expect(NodeNames.timeToLive(lastSeen: 1000, fromCache: false, now: 1010) == 60)
    #expect(NodeNames.timeToLive(lastSeen: 1000, fromCache: false, now: 1100) == 15)
    #expect(NodeNames.timeToLive(lastSeen: 1000, fromCache: false, now: 9000) == 5)
    #expect(NodeNames.timeToLive(lastSeen: 1000, fromCache: true, now: 1001) == 5)
    #expect(NodeNames.timeToLive(lastSeen: nil, fromCache: false, now: 1001) == 30)
  }

  @Test("CAP_NET_ADMIN is read from the effective set")
  func capabilities() {
    #expect(Privileges.hasNetAdmin(status: Array("Name:\tx\nCapEff:\t000001ffffffffff\n".utf8)))
    #expect(!Privileges.hasNetAdmin(status: Array("CapPrm:\t000001ffffffffff\nCapEff:\t0000000000000000\n".utf8)))
    #expect(Privileges.hasNetAdmin(status: Array("CapEff:\t0000000000001000\n".utf8)))
    #expect(!Privileges.hasNetAdmin(status: Array("CapEff:\t0000000000000fff\n".utf8)))
  }
}
