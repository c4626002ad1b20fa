// The rules of the path machine, one by one, under a virtual clock.

import Testing
import Wire

@testable import Traversal

private let millisecond = PathBench.millisecond
private let second = PathBench.second

@Suite("Path machine")
struct PathMachineTests {
  private let home = PathBench.endpoint(1)
  private let lan = PathBench.endpoint(2)
  private let elsewhere = PathBench.endpoint(3)

  /// A peer with one endpoint and a relay, a session, and ways that both answer.
  private func pair(direct: UInt64? = 10 * millisecond, relay: UInt64? = 30 * millisecond) -> PathBench {
    var bench = PathBench([.init(home, .directory)])
    if let direct { bench.ways[.direct(home)] = .init(roundTrip: direct) }
    if let relay { bench.ways[.relay] = .init(roundTrip: relay) }
    bench.connect(direct == nil ? .relay : .direct(home))
    return bench
  }

  // MARK: Without a session

  @Test("direct to the directory's endpoint first, the relay on the fourth try")
  func threeTries() {
    var bench = PathBench([.init(home, .directory)])
    #expect(bench.machine.path == .direct(home))
    for number in 1...3 { bench.feed(.handshakeTry(number)) }
    #expect(bench.machine.path == .direct(home))
    bench.feed(.handshakeTry(4))
    #expect(bench.machine.path == .relay)
    #expect(bench.machine.reason == .unanswered)
  }

  @Test("two tries without answer: the beacon hears where we are, with each further one; not where there is none")
  func renewal() {
    for hasBeacon in [true, false] {
      var bench = PathBench([.init(home, .directory)], hasBeacon: hasBeacon)
      let renewals = (1...4).map { number in
        bench.machine.handle(.handshakeTry(number), now: bench.now).contains(.renewRelay)
      }
      #expect(renewals == [false, false, hasBeacon, hasBeacon])
    }
  }

  @Test("without a relay the direct endpoint is kept, without an endpoint the relay is taken at once")
  func onlyOneWay() {
    var bench = PathBench([.init(home, .directory)], hasBeacon: false)
    for number in 1...9 { bench.feed(.handshakeTry(number)) }
    #expect(bench.machine.path == .direct(home))
    #expect(PathBench([]).machine.path == .relay)
    #expect(PathBench([], hasBeacon: false).machine.path == .none)
  }

  @Test("the handshake's first answer is the path, whichever way it came; a direct one then goes before a relayed one")
  func race() {
    var bench = PathBench([.init(home, .directory)])
    bench.feed(.handshakeTry(1))
    bench.feed(.handshakeHeard(nil))
    #expect(bench.machine.path == .relay)
    bench.feed(.handshakeHeard(home))
    #expect(bench.machine.path == .direct(home))
    bench.feed(.handshakeHeard(nil))
    #expect(bench.machine.path == .direct(home), "a direct answer is not given up for a relayed one")
  }

  @Test("a key exchange from a place that nobody names is a path only when there is none")
  func strangersPlace() {
    var bench = PathBench([.init(home, .directory)])
    bench.feed(.handshakeTry(1))
    bench.feed(.handshakeHeard(elsewhere))
    #expect(bench.machine.path == .direct(home))
    var lost = PathBench([], hasBeacon: false)
    lost.feed(.handshakeHeard(elsewhere))
    #expect(lost.machine.path == .direct(elsewhere))
  }

  @Test("addresses that no peer can have are no candidates")
  func useless() {
    let addresses = ["0.0.0.0", "127.0.0.1", "169.254.3.4", "224.0.0.1", "255.255.255.255"].map { "\($0):4000" }
    let six = ["[::]:4000", "[::1]:4000", "[fe80::1]:4000", "[ff02::1]:4000", "[fd50:494c:4f54::7]:4000"]
    for text in addresses + six + ["198.51.100.9:0"] {
      guard let endpoint = Endpoint(text) else {
        Issue.record("\(text) is no endpoint at all")
        continue
      }
      var machine = PathMachine()
      _ = machine.handle(.beacon(isAvailable: true), now: second)
      _ = machine.handle(.told([endpoint]), now: second)
      _ = machine.handle(.moved(endpoint), now: second)
      #expect(machine.candidates.isEmpty, "\(text)")
    }
  }

  // MARK: Choosing

  @Test("a relayed session becomes direct as soon as small and large probes are answered there")
  func upgrade() {
    var bench = pair()
    bench.machine = PathMachine(seed: 1)
    bench.feed(.beacon(isAvailable: true))
    bench.feed(.record([.init(home, .directory)], isRelayOnly: false))
    let start = bench.now
    bench.connect(.relay)
    #expect(bench.machine.path == .relay)
    #expect(bench.count(.callPeer, since: start) == 1, "the peer is asked to open its NAT")
    bench.run(25 * millisecond)
    #expect(bench.machine.path == .direct(home), "after two round trips of 10 ms")
    #expect(bench.machine.reason == .probeAnswered)
  }

  @Test("a way that passes small probes only carries no data before three of data size were lost, and says so")
  func smallOnly() {
    var bench = PathBench([.init(home, .directory)])
    bench.ways[.direct(home)] = .init(roundTrip: 10 * millisecond, limit: 1000)
    bench.ways[.relay] = .init(roundTrip: 30 * millisecond)
    bench.connect(.relay)
    bench.isSending = true
    bench.run(500 * millisecond)
    #expect(bench.machine.path == .relay)
    bench.run(3 * second)
    #expect(bench.machine.path == .direct(home))
    #expect(bench.machine.reason == .smallOnly)
  }

  @Test("of two direct ways the shorter round trip wins, by a quarter at least, and not twice in a minute")
  func fastest() {
    var bench = PathBench([.init(home, .directory), .init(lan, .told)])
    bench.ways[.direct(home)] = .init(roundTrip: 20 * millisecond)
    bench.ways[.direct(lan)] = .init(roundTrip: 10 * millisecond)
    bench.connect(.direct(home))
    bench.isSending = true
    bench.run(second)
    #expect(bench.machine.path == .direct(lan))
    #expect(bench.machine.reason == .faster)
    // A little better is no reason; much better is one, but not again within the minute.
    bench.ways[.direct(home)] = .init(roundTrip: 9 * millisecond)
    bench.run(600 * second)
    #expect(bench.machine.path == .direct(lan))
    bench.ways[.direct(home)] = .init(roundTrip: 1 * millisecond)
    bench.run(600 * second)
    #expect(bench.machine.path == .direct(home))
    let changes = bench.log.filter { if case .setPath = $0.action { true } else { false } }.map(\.at)
    #expect(zip(changes.dropFirst(2), changes.dropFirst(3)).allSatisfy { $1 - $0 >= 60 * second })
  }

  @Test("the same network goes before the way through the router and back, though it is hardly faster")
  func hairpin() {
    var bench = PathBench([.init(home, .directory), .init(lan, .lan)])
    bench.ways[.direct(home)] = .init(roundTrip: 600_000)
    bench.ways[.direct(lan)] = .init(roundTrip: 400_000)
    bench.connect(.direct(home))
    bench.run(second)
    #expect(bench.machine.path == .direct(lan))
    #expect(bench.machine.reason == .nearer)
  }

  @Test("a relay-only peer is never probed directly and never made direct")
  func relayOnly() {
    var bench = PathBench([.init(home, .directory)], isRelayOnly: true)
    bench.ways[.direct(home)] = .init(roundTrip: 1 * millisecond)
    bench.ways[.relay] = .init(roundTrip: 30 * millisecond)
    bench.connect(.relay)
    bench.isSending = true
    bench.feed(.told([home]))
    bench.feed(.moved(home))
    bench.run(300 * second)
    #expect(bench.machine.path == .relay)
    #expect(bench.machine.reason == .relayOnly)
    #expect(bench.probes(.direct(home)).isEmpty)
    #expect(bench.machine.nextDeadline(bench.now).map { $0 >= bench.now } ?? true)
  }

  // MARK: Life and death

  @Test("a direct path that dies while packets flow is left within 2.5 s, for a relay that answers")
  func death() {
    for phase in stride(from: UInt64(0), to: second, by: 97_000_000) {
      var bench = pair()
      bench.isSending = true
      bench.run(10 * second + phase)
      #expect(bench.machine.path == .direct(home))
      bench.ways[.direct(home)] = nil
      let start = bench.now
      bench.run(2500 * millisecond)
      #expect(bench.machine.path == .relay, "died \(phase) ns after a second")
      #expect(bench.machine.reason == .silent)
      #expect(bench.paths(since: start) == [.relay])
    }
  }

  @Test("packets that need no answer do not end a path: its probes are answered")
  func oneWay() {
    var bench = pair()
    bench.isSending = true
    bench.isAnswered = false
    bench.run(300 * second)
    #expect(bench.machine.path == .direct(home))
    #expect(bench.paths().count == 1)
    #expect(bench.probes(.direct(home)).count < 300, "one probe in two seconds or so")
  }

  @Test("when nothing answers the path stays, the session is questioned, and the first way that is back is taken")
  func blackout() {
    var bench = pair()
    bench.isSending = true
    bench.run(10 * second)
    bench.ways = [:]
    let start = bench.now
    bench.run(60 * second)
    #expect(bench.machine.path == .direct(home))
    #expect(bench.count(.suspectSession, since: start) >= 5)
    #expect(bench.probes(.direct(home), since: start).count < 300)
    bench.ways[.relay] = .init(roundTrip: 30 * millisecond)
    bench.run(5 * second)
    #expect(bench.machine.path == .relay)
  }

  @Test("an idle pair sends nothing, wants no wake-up, and is not touched")
  func idle() {
    for isRelayed in [false, true] {
      var bench = pair(direct: isRelayed ? nil : 10 * millisecond)
      bench.isSending = true
      bench.run(5 * second)
      bench.isSending = false
      let path = bench.machine.path
      bench.run(200 * second)
      let start = bench.now
      bench.run(3600 * second)
      #expect(bench.machine.path == path)
      #expect(!bench.log.contains { $0.at >= start })
      #expect(bench.machine.nextDeadline(bench.now) == nil)
    }
  }

  @Test("after a rest the first packet tries the path at once: a dead one is left within 2 s")
  func afterRest() {
    var bench = pair()
    bench.isSending = true
    bench.run(5 * second)
    bench.isSending = false
    bench.run(600 * second)
    bench.ways[.direct(home)] = nil
    bench.isSending = true
    bench.run(2 * second)
    #expect(bench.machine.path == .relay)
  }

  @Test("a way that was left for silence is not taken again within a minute, though its probes are answered")
  func penalty() {
    var bench = pair()
    bench.isSending = true
    bench.run(10 * second)
    bench.ways[.direct(home)] = nil
    bench.run(5 * second)
    bench.ways[.direct(home)] = .init(roundTrip: 10 * millisecond)
    let back = bench.now
    bench.run(50 * second)
    #expect(bench.machine.path == .relay)
    bench.run(120 * second)
    #expect(bench.machine.path == .direct(home))
    #expect(bench.paths(since: back) == [.direct(home)])
  }

  @Test("attempts to leave the relay never stop while it is used, at growing distances with jitter")
  func attempts() {
    var bench = pair(direct: nil)
    bench.isSending = true
    bench.run(3600 * second)
    let rounds = bench.log.filter { $0.action == .callPeer }.map(\.at)
    let gaps = zip(rounds, rounds.dropFirst()).map { $1 - $0 }
    #expect(gaps.allSatisfy { $0 >= 5 * second && $0 <= 80 * second }, "\(gaps.map { $0 / second })")
    #expect(rounds.count > 40 && rounds.count < 90)
    #expect(Set(gaps.suffix(20)).count > 10, "jitter")
    #expect(bench.probes(.direct(home)).count <= rounds.count * 3, "an address that never answered gets little")
    bench.ways[.direct(home)] = .init(roundTrip: 10 * millisecond)
    bench.run(80 * second)
    #expect(bench.machine.path == .direct(home))
  }

  // MARK: Moves

  @Test(
    "a peer that moved is followed when a probe is answered there and none on the old path, within three round trips")
  func moves() {
    var bench = pair()
    bench.isSending = true
    bench.run(8 * second + 50 * millisecond)
    bench.ways[.direct(home)] = nil
    bench.ways[.direct(elsewhere)] = .init(roundTrip: 20 * millisecond)
    bench.feed(.moved(elsewhere))
    bench.run(61 * millisecond)
    #expect(bench.machine.path == .direct(elsewhere))
    #expect(bench.machine.reason == .peerMoved)
  }

  @Test("a newest frame that somebody else sent on from his own address moves nothing")
  func recorded() {
    var bench = pair()
    bench.isSending = true
    bench.run(10 * second)
    for _ in 0..<100 {
      bench.feed(.moved(elsewhere))
      bench.run(100 * millisecond)
    }
    #expect(bench.machine.path == .direct(home))
    #expect(bench.paths().count == 1)
    #expect(bench.probes(.direct(elsewhere)).count <= 100)
  }

  @Test("a peer that tries all its ways moves nothing while the path answers, and frames from known ways cost nothing")
  func racing() {
    var bench = pair()
    bench.ways[.direct(elsewhere)] = .init(roundTrip: 10 * millisecond)
    bench.isSending = true
    bench.run(10 * second)
    let start = bench.now
    for _ in 0..<50 {
      bench.feed(.moved(elsewhere))
      bench.run(100 * millisecond)
    }
    #expect(bench.machine.path == .direct(home))
    #expect(bench.probes(.direct(elsewhere), since: start).count <= 4)
  }

  @Test("after a change of our own network everything is asked at once and the first answer wins")
  func ownNetwork() {
    var bench = pair()
    bench.isSending = true
    bench.run(10 * second)
    bench.ways[.direct(home)] = nil
    let start = bench.now
    bench.feed(.networkChanged)
    #expect(bench.count(.callPeer, since: start) == 1)
    bench.run(40 * millisecond)
    #expect(bench.machine.path == .relay)
    #expect(bench.machine.reason == .networkChanged)
    bench.ways[.direct(home)] = .init(roundTrip: 10 * millisecond)
    bench.feed(.networkChanged)
    bench.run(40 * millisecond)
    #expect(bench.machine.path == .direct(home))
  }

  @Test("what the peer tells through the tunnel is tried at once, and makes a relayed pair direct")
  func told() {
    var bench = pair(direct: nil)
    bench.isSending = true
    bench.run(10 * second)
    bench.ways[.direct(lan)] = .init(roundTrip: 1 * millisecond)
    bench.feed(.told([lan]))
    bench.run(5 * millisecond)
    #expect(bench.machine.path == .direct(lan))
  }

  // MARK: Size

  private func limits(_ bench: PathBench, since: UInt64 = 0) -> [Int] {
    bench.log.compactMap { if case .setPathLimit(let limit) = $0.action, $0.at >= since { limit } else { nil } }
  }

  @Test("full size is taken for granted until its probe tells, and found to 8 bytes where it does not pass")
  func size() {
    for limit in [1400, 1399, 1300, 1281, 1280, 1196, 900, 650] {
      var bench = PathBench([.init(home, .directory)])
      bench.ways[.direct(home)] = .init(roundTrip: 10 * millisecond, limit: limit)
      bench.connect(.direct(home))
      bench.isSending = true
      bench.run(30 * second)
      let found = limits(bench).last ?? 0
      #expect(found <= limit && found + PathMTUSearch.resolution >= limit, "\(limit): \(limits(bench))")
      if limit == 1400 { #expect(limits(bench) == [1400]) }
      #expect(bench.machine.path == .direct(home) && bench.paths().count == 1)
    }
  }

  @Test("a path that begins to swallow large packets is found out while packets stay unanswered, and data gets smaller")
  func blackHole() {
    var bench = pair()
    bench.isSending = true
    bench.run(10 * second)
    #expect(limits(bench) == [1400])
    bench.ways[.direct(home)] = .init(roundTrip: 10 * millisecond, limit: 1310)
    bench.isAnswered = false
    let start = bench.now
    bench.run(8 * second)
    #expect(limits(bench, since: start).first.map { $0 <= 1310 } == true)
    bench.isAnswered = true
    bench.run(30 * second)
    #expect(limits(bench).last.map { $0 <= 1310 && $0 > 1300 } == true, "\(limits(bench))")
    #expect(bench.machine.path == .direct(home))
  }

  @Test("one lost probe makes no path small, a second one does until more is known", arguments: [1, 2])
  func lostProbes(losses: Int) {
    var bench = PathBench([.init(home, .directory)])
    bench.ways[.direct(home)] = .init(roundTrip: 10 * millisecond, losses: losses)
    bench.connect(.direct(home))
    bench.isSending = true
    bench.run(30 * second)
    #expect(limits(bench) == (losses == 1 ? [1400] : [1280, 1400]))
  }

  @Test("a queue that fills makes everything late and no path small", arguments: [300, 700, 1500, 2500])
  func queue(late: UInt64) {
    var bench = pair()
    bench.isSending = true
    bench.run(5 * second)
    bench.ways[.direct(home)] = .init(roundTrip: late * millisecond)
    bench.ways[.relay] = nil
    let start = bench.now
    bench.run(60 * second)
    #expect(limits(bench) == [1400])
    #expect(bench.machine.path == .direct(home) && bench.paths().count == 1)
    // Six times the size is asked, and what is small with it, four times at most.
    #expect(bench.probes(.direct(home), since: start).count <= 6 * 5)
    bench.isSending = false
    bench.run(10 * second)
    let end = bench.now
    bench.run(600 * second)
    #expect(bench.probes(.direct(home), since: end).isEmpty, "who is not used is not asked")
  }

  @Test("a size that vanishes is found however long the round trip is", arguments: [10, 300, 900, 2500])
  func slowBlackHole(roundTrip: UInt64) {
    var bench = pair(direct: roundTrip * millisecond, relay: nil)
    bench.isSending = true
    bench.run(30 * second)
    #expect(limits(bench) == [1400])
    bench.ways[.direct(home)]?.limit = 1300
    bench.run(60 * second)
    #expect(limits(bench).last.map { $0 <= 1300 && $0 > 1290 } == true, "\(limits(bench))")
  }

  @Test("a path that leaves small probes without answer for a while is searched and asked again")
  func stall() {
    var bench = pair(relay: nil)
    bench.isSending = true
    bench.run(9 * second)
    let way = bench.ways[.direct(home)]
    // What comes the other way goes on.
    bench.ways[.direct(home)] = .init(roundTrip: 10 * millisecond, limit: 0)
    bench.run(8 * second)
    bench.ways[.direct(home)] = way
    bench.ways[.direct(home)]?.limit = 1300
    bench.run(60 * second)
    #expect(limits(bench).last.map { $0 <= 1300 && $0 > 1290 } == true, "\(limits(bench))")
    #expect(bench.machine.path == .direct(home))
  }

  @Test("what is lost of a size that is not in use any more takes no proof of a smaller one back")
  func staleVerification() {
    var bench = PathBench([.init(home, .directory)])
    bench.ways[.direct(home)] = .init(roundTrip: 10 * millisecond)
    bench.connect(.direct(home))
    bench.run(30 * second)
    // The first packet after a rest asks the size, too, while the search begins.
    bench.ways[.direct(home)]?.limit = 1300
    bench.isAnswered = false
    bench.isSending = true
    bench.run(20 * second)
    #expect(limits(bench).allSatisfy { $0 == 0 || $0 >= 1280 }, "\(limits(bench))")
    #expect(limits(bench).last.map { $0 <= 1300 && $0 > 1290 } == true, "\(limits(bench))")
  }

  @Test("a way that gets slow while it is measured is no small one")
  func slowWay() {
    var bench = PathBench([.init(home, .directory)])
    bench.ways[.direct(home)] = .init(roundTrip: 10 * millisecond)
    bench.ways[.relay] = .init(roundTrip: 300 * millisecond)
    bench.connect(.relay)
    bench.isSending = true
    // The first small one is answered; what follows waits.
    bench.run(5 * millisecond)
    bench.ways[.direct(home)]?.roundTrip = 900 * millisecond
    bench.run(5 * second)
    #expect(bench.machine.path == .direct(home) && bench.machine.reason == .probeAnswered)
    #expect(limits(bench) == [1400, 1400], "that of the relay, and its own")
  }

  @Test("what our own kernel refuses is known at once, and a way that takes no probe of data size is small")
  func refused() {
    var bench = pair()
    bench.isSending = true
    bench.run(10 * second)
    bench.ways[.direct(home)] = .init(roundTrip: 10 * millisecond, limit: 1250)
    let start = bench.now
    bench.feed(.tooBig(.direct(home), size: 1400, limit: 1250))
    #expect(limits(bench, since: start).last.map { $0 <= 1280 } == true)
    bench.run(10 * second)
    #expect(limits(bench).last == 1250)
  }

  @Test("what our kernel would take is what packets hear of, and less only when its probe is lost twice")
  func hint() {
    for limit in [1336, 1300] {
      var bench = pair()
      bench.isSending = true
      bench.run(10 * second)
      bench.ways[.direct(home)] = .init(roundTrip: 10 * millisecond, limit: limit)
      let start = bench.now
      bench.feed(.tooBig(.direct(home), size: 1400, limit: 1336))
      bench.run(10 * second)
      let told = limits(bench, since: start)
      #expect(limit == 1336 ? told == [1336] : told.prefix(2) == [1336, 1280], "\(told)")
      #expect(told.last.map { $0 <= limit && $0 + PathMTUSearch.resolution >= limit } == true, "\(told)")
    }
  }

  @Test("a smaller answer takes nothing from what our kernel would take, nor does one lost probe of it")
  func hintAndAnswer() {
    var search = PathMTUSearch(ceiling: 1400)
    #expect(search.nextProbe(1) == 1400)
    search.refused(size: 1400, limit: 1336, now: 2)
    #expect(search.nextProbe(3) == 1336)
    search.lost(size: 1336, now: 4)
    search.answered(size: 1280, now: 5)
    #expect(search.limit == 1336)
    #expect(search.nextProbe(6) == 1336)
    // It is refused itself, and the route does not say why.
    search.refused(size: 1336, limit: nil, now: 7)
    #expect(search.limit == 1280)
  }

  // MARK: Bounds

  @Test("endpoints are bounded: those that never answered give way, the path never does")
  func bounded() {
    var bench = pair()
    bench.isSending = true
    for number in 0..<200 {
      bench.feed(.told([PathBench.endpoint(UInt32(10 + number % 200))]))
      bench.run(3 * second)
    }
    #expect(bench.machine.candidates.count <= PathLimits.candidates)
    #expect(bench.machine.path == .direct(home))
    #expect(bench.machine.history.count <= 8)
  }

  @Test("a relay that is lost is left for the endpoint that failed least")
  func relayLost() {
    var bench = pair(direct: nil)
    bench.feed(.beacon(isAvailable: false))
    #expect(bench.machine.path == .direct(home))
    #expect(bench.machine.reason == .relayLost)
    bench.feed(.beacon(isAvailable: true))
    bench.ways[.relay] = .init(roundTrip: 30 * millisecond)
    bench.isSending = true
    bench.run(5 * second)
    #expect(bench.machine.path == .relay)
  }

  @Test("every way has its account: why it is the path, or why not")
  func accounts() {
    var bench = PathBench([.init(home, .directory), .init(lan, .told), .init(elsewhere, .remembered)])
    bench.ways[.direct(home)] = .init(roundTrip: 10 * millisecond)
    bench.ways[.direct(lan)] = .init(roundTrip: 10 * millisecond, limit: 1000)
    bench.ways[.relay] = .init(roundTrip: 30 * millisecond)
    bench.connect(.relay)
    bench.isSending = true
    bench.run(5 * second)
    let accounts = bench.machine.accounts(now: bench.now)
    #expect(accounts.map(\.path) == [.direct(home), .direct(lan), .direct(elsewhere), .relay])
    #expect(accounts.map(\.isPath) == [true, false, false, false])
    #expect(accounts[0].verdict == PathReason.probeAnswered.rawValue)
    #expect(accounts[1].verdict.contains("data size"))
    #expect(accounts[2].verdict.contains("no answer"))
    #expect(accounts[3].verdict.contains("fallback"))
    #expect(accounts[2].answers == 0 && accounts[2].probes == 3)
    let machine = bench.machine
    #expect(machine.explanation(now: bench.now).first?.contains(PathReason.probeAnswered.rawValue) == true)
  }

  // MARK: Answers through the relay, other mappings

  @Test("a direct probe that is answered through the relay proves nothing of the direct way")
  func detour() {
    var bench = pair(direct: nil)
    bench.isSending = true
    bench.run(10 * second)
    #expect(bench.machine.path == .relay)
    for case .probe(let id, .direct(home), _) in bench.log.map(\.action).suffix(3) {
      bench.feed(.probeAnswered(id, by: .relay))
    }
    bench.run(second)
    #expect(bench.machine.path == .relay && bench.machine.candidates[0].answers == 0)
    // The peer's frames come from there: it gets three frames, as an official daemon wants.
    let began = bench.now
    bench.feed(.moved(home))
    guard case .probe(let id, _, _)? = bench.log.last?.action else {
      Issue.record("no probe")
      return
    }
    bench.feed(.probeAnswered(id, by: .relay))
    let sent = bench.probes(.direct(home), since: began)
    #expect(sent.count == 3 && bench.machine.path == .relay)
  }

  @Test("a faster way is not taken while its answers come from elsewhere: an old mapping lets in, and dies unused")
  func oldMapping() {
    for comesFromThere in [false, true] {
      var bench = pair(direct: 40 * millisecond)
      bench.isSending = true
      bench.run(70 * second)
      #expect(bench.machine.path == .direct(home))
      bench.feed(.moved(elsewhere))
      let present = Path.direct(home)
      for _ in 0..<4 {
        let waiting = bench.log.map(\.action).suffix(6)
        bench.run(5 * millisecond)
        for case .probe(let id, .direct(elsewhere), _) in waiting {
          bench.feed(.probeAnswered(id, by: comesFromThere ? .direct(elsewhere) : present))
        }
      }
      #expect(bench.machine.path == (comesFromThere ? .direct(elsewhere) : present))
    }
  }

  @Test("a way that died is taken again at once when the beacon sees us elsewhere; without that, after a minute")
  func renewedMapping() {
    for isRenewed in [true, false] {
      var bench = pair()
      bench.isSending = true
      bench.run(5 * second)
      #expect(bench.machine.path == .direct(home))
      bench.ways[.direct(home)] = nil
      bench.run(5 * second)
      #expect(bench.machine.path == .relay)
      bench.ways[.direct(home)] = .init(roundTrip: 10 * millisecond)
      if isRenewed { bench.feed(.mappingChanged) }
      bench.run(3 * second)
      #expect(bench.machine.path == (isRenewed ? .direct(home) : .relay))
    }
  }

  @Test("a living path is not touched when the beacon sees us elsewhere")
  func mappingOfOthers() {
    var bench = pair()
    bench.isSending = true
    bench.run(5 * second)
    let began = bench.now
    bench.feed(.mappingChanged)
    #expect(bench.count(.callPeer, since: began) == 0 && bench.machine.path == .direct(home))
  }

  // MARK: Ports in numbers

  @Test("ports are opened by the end whose NAT maps by destination, ever more rarely, and only when it may")
  func openings() {
    func openings(_ own: PortTranslation, _ peer: PortTranslation, may: Bool = true) -> [UInt64] {
      var bench = pair(direct: nil)
      bench.feed(.ownNetwork(OwnNetwork(translation: own), mayOpenPorts: may))
      bench.feed(.peerTranslation(peer))
      bench.isSending = true
      let began = bench.now
      bench.run(1000 * second)
      return bench.log.filter { $0.action == .openPorts(home) }.map { ($0.at - began) / second }
    }
    let times = openings(.dependent, .independent)
    #expect(times.count >= 3 && times[0] <= 3 && times[1] >= 120 && times[2] >= times[1] + 240, "\(times)")
    #expect(openings(.dependent, .dependent).isEmpty && openings(.independent, .dependent).isEmpty)
    #expect(openings(.dependent, .unknown).isEmpty && openings(.unknown, .independent).isEmpty)
    #expect(openings(.dependent, .independent, may: false).isEmpty)
  }

  @Test("a port that was opened is no path before a probe there is answered")
  func openedPort() {
    for answers in [true, false] {
      var bench = pair(direct: nil)
      bench.isSending = true
      bench.run(5 * second)
      if answers { bench.ways[.direct(home)] = .init(roundTrip: 10 * millisecond) }
      bench.feed(.portOpened(home))
      #expect(bench.machine.path == .relay)
      bench.run(second)
      #expect(bench.machine.path == (answers ? .direct(home) : .relay))
    }
  }
}
