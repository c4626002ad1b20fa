// What the NAT in front of this machine does, found by a NATSurvey at start and on each new network, and what follows: how
// peers are punched, and how often paths are kept open.

import Directory
import Engine
import JSON
import Logging
import Session
import Traversal
import Wire

extension Node {
  /// RFC 4787 wants mappings to last for two minutes, and some NATs give 30 s: until it is known.
  static let assumedLifetime: UInt64 = 30_000_000_000

  /// Nanoseconds between frames that keep the NAT's mappings open.
  var keepaliveGap: UInt64 { NATSurvey.keepalive(lifetime: mappingLifetime ?? Self.assumedLifetime) }

  /// Asks the home beacon, for two minutes at most, from sockets of its own. One at a time.
  func surveyNAT() {
    // One under way is about another network, or a beacon that is home no more.
    natSurvey?.cancel()
    natSurvey = nil
    guard !isStopping, let beacon = udpBeacon, beacon.isIPv4 else { return }
    let machine = NATSurvey(beacon: beacon, local: lanAddresses, entropy: entropy.next())
    let stream: AsyncStream<(news: NATSurvey.News, fd: Int32)>
    do {
      stream = try SocketThread.start(machine, name: "pilot-survey", local: engine.localEndpoint.address)
    } catch {
      return goWithout(error)
    }
    natSurvey = Task {
      for await (news, _) in stream where !Task.isCancelled { learn(news) }
      if !Task.isCancelled { natSurvey = nil }
    }
  }

  private func learn(_ news: NATSurvey.News) {
    switch news {
    case .translation(let found, let seen):
      outerAddress = seen.address
      // Measured before, and a mapping in use says when it is wrong: silence.
      mappingLifetime = store.mappingLifetime(behind: seen.address)
      guard found != translation else { return }
      translation = found
      logger.info("nat", metadata: ["mapping": "\(found.word ?? "unknown")", "seen": "\(seen.address)"])
      tellOwnNetwork()
    case .lifetime(let lifetime):
      guard let lifetime, let outerAddress else { return }
      store.note(mappingLifetime: lifetime, behind: outerAddress)
      mappingLifetime = lifetime
      logger.info(
        "nat",
        metadata: [
          "mapping_lasts_seconds": "\(lifetime / 1_000_000_000)",
          "keepalive_seconds": "\(keepaliveGap / 1_000_000_000)",
        ])
    }
  }

  /// Another network may have another NAT.
  func forgetNAT() {
    translation = .unknown
    mappingLifetime = nil
    for peer in peers.values { giveUpPort(of: peer) }
    tellOwnNetwork()
    surveyNAT()
  }

  private func tellOwnNetwork() {
    for peer in peers.values {
      walk(peer, .ownNetwork(ownNetwork, mayOpenPorts: mayOpenPorts))
      tellTranslation(to: peer)
    }
  }

  /// A peer of our own kind learns whether a punch can do, or ports have to be opened.
  func tellTranslation(to peer: PeerState) {
    guard peer.handshake.isAnnouncing, peer.handshake.currentSession != nil, translation != .unknown else { return }
    sendControl(TunnelControl.translation(translation.rawValue).encoded(), to: peer)
  }

  func natStatus() -> JSONValue {
    [
      "mapping": JSONValue(translation.word),
      "mapping_seconds": mappingLifetime.map { JSONValue($0 / 1_000_000_000) } ?? .null,
      "keepalive_seconds": JSONValue(keepaliveGap / 1_000_000_000), "measuring": JSONValue(natSurvey != nil),
    ]
  }
}

extension PortTranslation {
  /// In the words of RFC 4787; nil: not known.
  var word: String? {
    switch self {
    case .unknown: nil
    case .independent: "endpoint-independent"
    case .dependent: "endpoint-dependent"
    }
  }
}
