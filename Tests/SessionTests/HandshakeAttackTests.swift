// What an attacker on the network tries against a healthy pair: recordings, forgeries, other people's keys.

import SeededRandom
import Session
import Simulator
import Testing
import Wire

private let ms: UInt64 = 1_000_000
private let second: UInt64 = 1_000_000_000

@Suite("Attacks on the handshake")
struct HandshakeAttackTests {
  private let attacker = Endpoint(address: IPv6Address(mappedIPv4: 0x0A00_00FF), port: 666)

  @Test("recorded PILAs, also from before restarts and rekeys, never cut a healthy session")
  func recordings() {
    for seed in UInt64(1)...5 {
      let pair = VirtualPair(seed: seed)
      pair.start()
      // Three lives of a and two of b leave recordings of many keys, some of which b has forgotten.
      for round in UInt64(0)..<3 {
        pair.traffic(every: 50 * ms, for: second)
        pair.network.run(for: 2 * second)
        pair.a.handle(.rekey)
        pair.network.run(for: 2 * second)
        if round < 2 { pair.a.restart() }
        if round == 1 { pair.b.restart() }
        pair.network.run(for: second)
      }
      let recordings = pair.network.recordedExchanges
      #expect(recordings.count >= 10)
      let start = (a: UInt64(pair.a.offered.count), b: UInt64(pair.b.offered.count))
      pair.traffic(every: 10 * ms, for: 60 * second)
      var at: UInt64 = second
      for (index, recording) in recordings.enumerated() {
        let target: UInt32 = recording.from == 1 ? 2 : 1
        pair.network.schedule(after: at) { pair.network.inject(recording.bytes, to: target, from: attacker) }
        if index % 3 == 0 { at += 700 * ms }
        // The same without the announcement: anybody can cut it off.
        pair.network.schedule(after: at + 100 * ms) {
          pair.network.inject(Array(recording.bytes[..<136]), to: target, from: attacker)
        }
        at += 300 * ms
      }
      pair.network.run(for: 80 * second)
      #expect(pair.unexplainedLosses(from: pair.a, to: pair.b, after: start.a).isEmpty, "\(pair.network.report)")
      #expect(pair.unexplainedLosses(from: pair.b, to: pair.a, after: start.b).isEmpty, "\(pair.network.report)")
      #expect(pair.a.directEndpoint == pair.b.endpoint, "the path did not move to the attacker")
    }
  }

  @Test("a recorded PILA during an idle phase neither cuts the session nor starts endless talk")
  func recordingsWhileIdle() {
    let pair = VirtualPair(seed: 5)
    pair.start()
    pair.a.sendPacket()
    pair.network.run(for: second)
    pair.a.restart()
    pair.network.run(for: second)
    pair.a.sendPacket()
    pair.network.run(for: 60 * second)
    let recordings = pair.network.recordedExchanges.filter { $0.from == 1 }
    let datagrams = pair.network.sentDatagrams
    for recording in recordings { pair.network.inject(recording.bytes, to: 2, from: attacker) }
    pair.network.run(for: 60 * second)
    #expect(pair.network.sentDatagrams - datagrams < 60, "\(pair.network.report)")
    let before = pair.a.received.count
    for _ in 0..<5 { pair.b.sendPacket() }
    pair.network.run(for: 50 * ms)
    #expect(pair.a.received.count == before + 5, "\(pair.network.report)")
  }

  @Test("a burst of forged sealed frames tears nothing down and is answered at most once a second")
  func forgedFrames() {
    let pair = VirtualPair(seed: 6)
    pair.start()
    pair.traffic(every: 10 * ms, for: 20 * second)
    pair.network.run(for: 5 * second)
    let promotions = pair.a.promotions + pair.b.promotions
    for number in 0..<2000 {
      pair.network.schedule(after: UInt64(number) * 5 * ms) {
        var forged: [UInt8] = [0x50, 0x49, 0x4C, 0x53, 0, 0, 0, 1]
        for _ in 0..<60 { forged.append(UInt8.random(in: 0...255, using: &pair.network.generator)) }
        pair.network.inject(forged, to: 2, from: attacker)
      }
    }
    let exchanges = pair.network.recordedExchanges.count
    pair.network.run(for: 30 * second)
    #expect(pair.b.undecryptable >= 2000)
    #expect(pair.a.promotions + pair.b.promotions == promotions, "no new session")
    #expect(pair.network.recordedExchanges.count - exchanges <= 12)
    #expect(pair.unexplainedLosses(from: pair.a, to: pair.b).isEmpty)
    #expect(pair.unexplainedLosses(from: pair.b, to: pair.a).isEmpty)
  }

  @Test("PILK installs nothing, from nobody, and is answered at most four times a second")
  func keyRequests() {
    let pair = VirtualPair(seed: 7)
    pair.start()
    let request = KeyRequestFrame(node: 1, x25519: VirtualPair.seed(77)).encoded()
    for number in 0..<100 {
      pair.network.schedule(after: UInt64(number) * 10 * ms) {
        pair.network.inject(request, to: 2, from: attacker)
      }
    }
    pair.network.run(for: 3 * second)
    #expect(pair.b.handshake.installedSessions.isEmpty)
    #expect(pair.network.recordedExchanges.count <= 5)
    #expect((pair.b.counts[.keyRequestLimited] ?? 0) >= 95)
    pair.a.sendPacket()
    pair.network.run(for: second)
    #expect(pair.b.received == [1])
  }

  @Test("a PILA signed by another key is refused, asked about freshly, and alarmed once until the operator accepts it")
  func wrongKey() {
    let pair = VirtualPair(seed: 9)
    pair.start()
    pair.a.sendPacket()
    pair.network.run(for: second)
    let other = Identity(seed: VirtualPair.seed(99))
    // A new key each time, but the same ones in each run.
    var forged: UInt64 = 1000
    func forge() -> [UInt8] {
      forged += 1
      let pair = X25519KeyPair(privateKey: VirtualPair.seed(forged))
      return KeyExchangeFrame.signed(node: 1, x25519: pair.publicKey, by: other, announcing: nil).encoded()
    }
    for _ in 0..<20 {
      pair.network.inject(forge(), to: 2, from: attacker)
      pair.network.run(for: second)
    }
    #expect(pair.b.counts[.wrongKey] == 20)
    #expect(
      pair.b.alarms == [
        KeyAlarm(pinned: pair.a.identity.publicKey, seen: other.publicKey, isRegistered: false)
      ])
    pair.a.sendPacket()
    pair.network.run(for: second)
    #expect(pair.b.received == [1, 2], "the session goes on")
    // The directory names the new key, too: still refused, once more alarmed.
    pair.b.directoryKey = other.publicKey
    for _ in 0..<10 {
      pair.network.inject(forge(), to: 2, from: attacker)
      pair.network.run(for: second)
    }
    #expect(pair.b.alarms.count == 2)
    #expect(pair.b.alarms.last?.isRegistered == true)
    #expect(pair.b.handshake.peerKey == pair.a.identity.publicKey)
    pair.b.handle(.acceptKey(other.publicKey))
    #expect(pair.b.handshake.installedSessions.isEmpty)
    pair.network.inject(forge(), to: 2, from: attacker)
    pair.network.run(for: 100 * ms)
    #expect(pair.b.handshake.currentSession != nil)
  }

  @Test("a PILA made for another node, with a zero key, or of another node id is refused and counted")
  func refusedFrames() {
    let pair = VirtualPair(seed: 10)
    pair.start()
    pair.b.handle(.peerKey(pair.a.identity.publicKey))
    let a = pair.a.identity
    let key = X25519KeyPair(privateKey: VirtualPair.seed(4)).publicKey
    let arrival = Arrival.direct(attacker)
    let elsewhere = PeerAnnouncement(
      takesRawIPv6: true, takesSplitPackets: true, wantsAnswer: true, receiver: 3, echo: Bytes32())
    pair.b.handle(.keyExchange(.signed(node: 1, x25519: key, by: a, announcing: elsewhere), arrival))
    pair.b.handle(.keyExchange(.signed(node: 1, x25519: Bytes32(), by: a, announcing: nil), arrival))
    pair.b.handle(.keyExchange(.signed(node: 5, x25519: key, by: a, announcing: nil), arrival))
    var bad = KeyExchangeFrame.signed(node: 1, x25519: key, by: a, announcing: nil)
    bad.signature.first.words.0 ^= 1
    pair.b.handle(.keyExchange(bad, arrival))
    #expect(pair.b.counts[.otherReceiver] == 1 && pair.b.counts[.zeroKey] == 1)
    #expect(pair.b.counts[.otherNode] == 1 && pair.b.counts[.badSignature] == 1)
    #expect(pair.b.handshake.installedSessions.isEmpty)
    var spoiled = KeyExchangeFrame.signed(
      node: 1, x25519: key, by: a,
      announcing: PeerAnnouncement(
        takesRawIPv6: true, takesSplitPackets: true, wantsAnswer: true, receiver: 2, echo: Bytes32()))
    spoiled.extensionBytes[20] ^= 1
    pair.b.handle(.keyExchange(spoiled, arrival))
    #expect(pair.b.counts[.badAnnouncement] == 1)
    #expect(pair.b.handshake.currentSession != nil && !pair.b.handshake.takesRawIPv6)
  }

  @Test("signature checks are limited: a flood of frames costs ten a second")
  func flood() {
    let pair = VirtualPair(seed: 11)
    pair.start()
    pair.b.handle(.peerKey(pair.a.identity.publicKey))
    var frame = KeyExchangeFrame.signed(node: 1, x25519: VirtualPair.seed(4), by: pair.a.identity, announcing: nil)
    frame.signature.first.words.0 ^= 1
    for _ in 0..<1000 { pair.b.handle(.keyExchange(frame, .direct(attacker))) }
    #expect(pair.b.counts[.badSignature] == 10 && pair.b.counts[.limited] == 990)
    // The other way of arrival is not starved.
    pair.b.handle(.keyExchange(frame, .relayed))
    #expect(pair.b.counts[.badSignature] == 11)
  }

  @Test("a key that the peer retired is refused")
  func retiredKeys() {
    let pair = VirtualPair(seed: 12)
    pair.start()
    pair.traffic(every: 100 * ms, for: 40 * second)
    pair.network.run(for: 2 * second)
    let old = pair.network.recordedExchanges.filter { $0.from == 1 }.map(\.bytes)
    pair.a.handle(.rekey)
    pair.network.run(for: 30 * second)
    for bytes in old { pair.network.inject(bytes, to: 2, from: attacker) }
    pair.network.run(for: second)
    #expect(pair.b.counts[.retiredKey] == old.count, "\(pair.network.report)")
  }

  @Test("a withheld recording that echoes a key in use, or lost its announcement, makes a candidate and no more")
  func withheldRecordings() {
    var generator = SeededGenerator(seed: 1)
    let own = Identity(seed: VirtualPair.seed(2))
    let peer = Identity(seed: VirtualPair.seed(1))
    var machine = HandshakeMachine(identity: own, node: 2, peer: 1, peerKey: peer.publicKey)
    var now: UInt64 = 1000 * second
    var sent: [KeyExchangeFrame] = []
    var promoted: [HandshakeMachine.SessionID] = []
    func step(_ event: HandshakeMachine.Event) {
      for action in machine.handle(event, now: now, lastReceive: now - 10 * second, using: &generator) {
        switch action {
        case .send(let bytes, _): if let frame = KeyExchangeFrame(bytes) { sent.append(frame) }
        case .install(_, let context, _): context.release()
        case .promote(let session, _): promoted.append(session)
        default: break
        }
      }
    }
    func frame(_ key: UInt64, echo: Bytes32?) -> HandshakeMachine.Event {
      let announcement = echo.map {
        PeerAnnouncement(takesRawIPv6: true, takesSplitPackets: true, wantsAnswer: true, receiver: 2, echo: $0)
      }
      return .keyExchange(
        .signed(node: 1, x25519: VirtualPair.seed(key), by: peer, announcing: announcement), .direct(attacker))
    }
    step(frame(50, echo: Bytes32()))
    #expect(promoted.isEmpty && sent.count == 1, "a first frame may be a recording")
    let offer = sent[0].x25519
    step(frame(50, echo: offer))
    #expect(promoted == [1], "an echo of the key just made is none")
    step(.confirmed(1))
    now += 20 * second
    step(frame(51, echo: offer))
    #expect(promoted == [1] && machine.installedSessions == [1, 2])
    step(.confirmed(2))
    #expect(promoted == [1, 2], "a frame that opens is proof")
    now += 20 * second
    step(frame(52, echo: nil))
    now += 400 * ms
    step(.tick)
    #expect(promoted == [1, 2], "without its announcement a peer that made one is not believed")
    now += 60 * second
    step(.tick)
    #expect(machine.installedSessions == [2], "what nobody proves goes")
    // The replaced session went after its successor was proven, so its key is retired now.
    step(frame(50, echo: offer))
    #expect(machine.installedSessions == [2])
  }
}
