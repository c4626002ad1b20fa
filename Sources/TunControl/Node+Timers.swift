// One timer for everything: deadlines of the machines as they come, a survey of the peers every 5 s, a discover every
// 25 or 60 s. An idle node with 100 known peers wakes for the survey alone.

import Engine
import LinkIO
import Logging
import PortMapping
import Session
import Shim
import Telemetry
import Traversal
import Wire

extension Node {
  static let surveyInterval: UInt64 = 5_000_000_000
  /// Without any contact this long, the row goes.
  private static let contactLasts: UInt64 = 300_000_000_000

  /// The peer's machines may have moved their deadlines.
  func rearm(_ peer: PeerState) {
    guard peers[peer.node] === peer else { return }
    let now = Clock.now()
    let times = [
      peer.handshake.nextDeadline, peer.path.nextDeadline(now),
      peer.relays.nextDeadline(isUsed: isRelayUsed(peer), now: now),
    ].compactMap { $0 }
    deadlines.set(peer.node, to: times.min())
    arm()
  }

  /// Sets the timer to the earliest thing that is due.
  func arm() {
    guard !isStopping else { return }
    let due = min(
      deadlines.next() ?? .max, nextSurvey, nextDiscover, nextLinkCheck, nextMapping, nextBeaconTick,
      transport.nextDeadline)
    guard due < timerAt else { return }
    timer?.cancel()
    timerAt = due
    timer = Task {
      let now = Clock.now()
      if due > now { try? await Task.sleep(for: .nanoseconds(due - now), tolerance: .milliseconds(2)) }
      if !Task.isCancelled { expire() }
    }
  }

  private func expire() {
    timerAt = .max
    let now = Clock.now()
    // Bounded: a machine that wants to be called again at once waits for the next turn.
    for _ in 0..<4096 {
      guard let node = deadlines.popDue(now) else { break }
      guard let peer = peers[node] else { continue }
      feed(peer, .tick)
      choose(peer, .tick)
      walk(peer, .tick)
    }
    if now >= nextDiscover {
      nextDiscover = now + discoverInterval
      if beaconProblem != nil || udpBeacon == nil { Task { await findBeacons() } }
      // Beacons on UDP have deadlines of their own.
      if transport.carrier == .tls || udpBeacon == nil { discover() }
    }
    if now >= nextBeaconTick { steerBeacons(.tick) }
    if now >= nextLinkCheck {
      nextLinkCheck = .max
      checkLink()
    }
    if now >= nextMapping { for family in MappingFamily.allCases { drive(.tick, family) } }
    if now >= transport.nextDeadline { steer(.tick) }
    if now >= nextSurvey { survey(now) }
    arm()
  }

  /// Looks at the counters of all peers: which are in use, which need a keepalive, which are long gone.
  private func survey(_ now: UInt64) {
    nextSurvey = now + Self.surveyInterval
    armPortMapping()
    surveyBeacons()
    surveyRelays(now)
    keepRecentPeers()
    tellStatus()
    for peer in Array(peers.values) {
      let statistics = engine.statistics(of: peer.index)
      let sent = statistics.sentPackets &- peer.surveyed.sentPackets
      let received = statistics.receivedPackets &- peer.surveyed.receivedPackets
      if sent > peer.controlFramesSent || received > peer.controlFramesReceived {
        (peer.lastUse, peer.lastTraffic) = (now, now)
      }
      peer.surveyed = statistics
      account(peer)
      peer.controlFramesSent = 0
      peer.controlFramesReceived = 0
      keepRelay(peer, now)
      if peer.handshake.currentSession != nil {
        keepAlive(peer, statistics, now)
        if now < peer.lastUse + Keepalive.useLasts {
          walk(peer, .tick)
          if isRelayUsed(peer) { keepReached(peer) }
        }
      }
      let lastContact = max(peer.createdAt, peer.lastUse, statistics.lastReceive)
      if now > lastContact + Self.contactLasts, !peer.handshake.isAttempting { removePeer(peer) }
    }
  }

  /// Keeps NAT mappings open, and the peer from thinking that we are gone.
  private func keepAlive(_ peer: PeerState, _ statistics: PeerStatistics, _ now: UInt64) {
    // Measured is what the NAT does to IPv4.
    let isMeasured =
      switch peer.enginePath {
      case .direct(let endpoint), .relay(let endpoint): endpoint.isIPv4
      case .none: false
      }
    let keepalive = Keepalive.due(
      now: now, lastUse: peer.lastUse, lastSend: max(statistics.lastSend, peer.lastKeepalive),
      lastReceive: statistics.lastReceive, isOfficial: !peer.handshake.isAnnouncing,
      interval: isMeasured ? keepaliveGap - Self.surveyInterval : Keepalive.interval)
    switch keepalive {
    case .none: return
    case .probe: probe(peer)
    case .empty: sendControl(PilotPacket.keepalive(from: PilotAddress(network: 0, node: node ?? 0)).encoded(), to: peer)
    }
    peer.lastKeepalive = now
  }

  // MARK: Network changes

  /// A thread waits for changes of links, addresses and routes, and for the end of a sleep; what it tells is looked at
  /// once things are quiet.
  func watchLink() {
    let (changes, continuation) = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))
    let logger = logger
    do {
      try DedicatedThread.start("pilot-network") {
        do {
          let watcher = try LinkWatcher()
          let clock = pt_clock_watch()
          var descriptors = [watcher.fd, clock]
          while true {
            let ready = pt_poll(&descriptors, clock < 0 ? 1 : 2, -1)
            if ready & 2 != 0, pt_clock_watch_again(clock) < 0 { descriptors[1] = watcher.fd }
            if try !watcher.drain().isEmpty || ready & 2 != 0 { continuation.yield() }
          }
        } catch {
          logger.warning("network changes are not noticed", error: error)
          continuation.finish()
        }
      }
    } catch {
      warnings.append("network changes are not noticed: \(error)")
      return goWithout(error)
    }
    Task { for await _ in changes { scheduleLinkCheck() } }
  }

  private func scheduleLinkCheck() {
    // Changes come in bursts, and our own repairs are among them.
    nextLinkCheck = min(nextLinkCheck, Clock.now() + 500_000_000)
    arm()
  }

  private func checkLink() {
    guard node != nil, !isStopping else { return }
    Task { await hostNames.look() }
    do {
      try configureLink()
    } catch {
      logOnce("link \(error.message)", level: .error, "interface", fields: Logger.Metadata(describing: error))
    }
    let addresses = LocalAddresses.list(except: configuration.interface)
    let hasSlept = noteSleep()
    let hasMoved = noteWayOut()
    guard addresses != lanAddresses || hasSlept || hasMoved else {
      // Only the way out is another one.
      if MappingFamily.allCases.contains(where: { mappingNetwork($0) != mappingSeats[$0]?.socket?.network }) {
        Task { await findMappingServers() }
      }
      return
    }
    if addresses != lanAddresses {
      lanAddresses = addresses
      logger.info("addresses of this machine changed")
      announce()
    }
    networkChanged()
  }

  /// Whether packets leave by another way since the last call. A default route may come long after the address, or change
  /// alone.
  @discardableResult
  func noteWayOut() -> Bool {
    guard let target = beaconChoice.beacons.first?.endpoint else { return false }
    let before = wayOut
    let now = WayOut(to: target, except: configuration.interface)
    wayOut = now
    guard now.isNews(after: before) else { return false }
    logger.info("another way leads out", metadata: ["source": "\(now.source.map(\.description) ?? "none")"])
    return true
  }

  /// Whether the machine slept since the last call: the boot-time clock went on, the monotonic one stood.
  private func noteSleep() -> Bool {
    let before = sleptFor
    sleptFor = Clock.sleep()
    guard sleptFor > before + 1_000_000_000 else { return false }
    logger.info("this machine slept", metadata: ["seconds": "\((sleptFor - before) / 1_000_000_000)"])
    return true
  }
}
