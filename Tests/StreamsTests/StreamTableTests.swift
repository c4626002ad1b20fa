import SeededRandom
import Testing
import Wire

@testable import Streams

/// A node whose only service is the echo.
private struct EchoHost {
  var table = StreamTable()
  var wallOffset: UInt64 = 0

  mutating func receive(_ packet: PilotPacket, from peer: UInt32, isAdmitted: Bool, now: UInt64) -> [PilotPacket] {
    table.receive(packet, from: peer, mayOpen: isAdmitted, now: now)
    return serve(now)
  }

  mutating func tick(_ now: UInt64) -> [PilotPacket] {
    table.tick(now)
    return serve(now)
  }

  private mutating func serve(_ now: UInt64) -> [PilotPacket] {
    while true {
      let events = table.takeEvents()
      guard !events.isEmpty else {
        table.flush(now)
        let packets = table.takePackets()
        let late = table.takeEvents()
        #expect(late.allSatisfy { if case .closed = $0 { true } else { false } })
        return packets
      }
      for event in events {
        switch event {
        case .arrived(let id):
          guard table.ends(of: id)?.localPort == PilotPort.echo else {
            table.refuse(id, now: now)
            continue
          }
          table.accept(id, now: now)
          table.closeWhenIdle(id, after: Echo.idleLasts, now: now)
        case .changed(let id): Echo.work(&table, id, now: now, wall: now + wallOffset)
        case .opened, .closed: break
        }
      }
    }
  }

  var count: Int { table.count }
  var nextDeadline: UInt64? { table.nextDeadline }
  mutating func takeCounts() -> [StreamCount: Int] { table.takeCounts() }
  mutating func forget(_ peer: UInt32) { table.forget(peer) }
}

@Suite("Stream table") struct StreamTableTests {
  private static let own = PilotAddress(network: 0, node: 2)
  private static let second: UInt64 = 1_000_000_000

  private static func packet(
    _ flags: PilotFlags, from node: UInt32 = 1, port: UInt16 = 50_000, to localPort: UInt16 = 7, sequence: UInt32 = 0,
    acknowledgement: UInt32 = 0, payload: [UInt8] = []
  ) -> PilotPacket {
    PilotPacket(
      flags: flags, protocolNumber: .stream, source: PilotAddress(network: 0, node: node), destination: own,
      sourcePort: port, destinationPort: localPort, sequence: sequence, acknowledgement: acknowledgement, window: 512,
      payload: payload)
  }

  @Test("port 7 returns what it gets, with addresses and ports turned round")
  func echo() throws {
    var host = EchoHost()
    let answer = host.receive(Self.packet(.syn), from: 1, isAdmitted: true, now: 1)
    #expect(answer.count == 1)
    let accept = try #require(answer.first)
    #expect(accept.flags == [.syn, .ack] && accept.acknowledgement == 1 && accept.window == 512)
    #expect(accept.source == Self.own && accept.destination.node == 1)
    #expect(accept.sourcePort == 7 && accept.destinationPort == 50_000)
    let back = host.receive(
      Self.packet(.ack, sequence: 1, acknowledgement: 1, payload: Array("ping-1".utf8)), from: 1, isAdmitted: true,
      now: 2)
    #expect(back.map(\.payload) == [Array("ping-1".utf8)])
    #expect(back.first?.acknowledgement == 7)
    let last = host.receive(Self.packet(.fin, sequence: 7), from: 1, isAdmitted: true, now: 3)
    #expect(last.map(\.flags) == [[.fin, .ack]] && last.first?.acknowledgement == 8)
    #expect(host.count == 1)
    let due = try #require(host.nextDeadline)
    #expect(host.tick(due).isEmpty)
    #expect(host.count == 0 && host.nextDeadline == nil)
  }

  @Test("a trace comes back with our time behind it")
  func trace() {
    var host = EchoHost()
    host.wallOffset = 1000
    _ = host.receive(Self.packet(.syn), from: 1, isAdmitted: true, now: 1)
    let message = Array("TRCE".utf8) + [1, 2, 3, 4, 5, 6, 7, 8]
    let back = host.receive(
      Self.packet(.ack, sequence: 1, acknowledgement: 1, payload: message), from: 1, isAdmitted: true, now: 24)
    #expect(back.map(\.payload) == [message + [0, 0, 0, 0, 0, 0, 4, 0]])
  }

  @Test("a closed port is refused, a stranger hears nothing of any port, an unknown segment is ignored and counted")
  func refusals() {
    var host = EchoHost()
    let closed = host.receive(Self.packet(.syn, to: 80), from: 1, isAdmitted: true, now: 1)
    #expect(closed.map(\.flags) == [.rst] && closed.first?.sequence == 0)
    for port: UInt16 in [7, 80] {
      #expect(host.receive(Self.packet(.syn, to: port), from: 1, isAdmitted: false, now: 1).isEmpty)
    }
    #expect(host.receive(Self.packet(.ack, sequence: 5), from: 1, isAdmitted: true, now: 1).isEmpty)
    #expect(host.takeCounts() == [.notTrusted: 2, .unknown: 1])
    #expect(host.takeCounts().isEmpty && host.count == 0)
  }

  @Test("ten thousand streams of one peer leave room for another's, and for the next after a while")
  func flood() {
    var host = EchoHost()
    for port in 0..<10_000 {
      _ = host.receive(Self.packet(.syn, port: UInt16(40_000 + port)), from: 1, isAdmitted: true, now: 1)
    }
    #expect(host.count == 64)
    #expect(host.takeCounts()[.overLimit] == 10_000 - 64)
    #expect(host.receive(Self.packet(.syn, from: 3), from: 3, isAdmitted: true, now: 2).first?.flags == [.syn, .ack])
    host.forget(1)
    #expect(host.count == 1)
    #expect(host.receive(Self.packet(.syn), from: 1, isAdmitted: true, now: 2).isEmpty)
    let later = host.receive(Self.packet(.syn), from: 1, isAdmitted: true, now: 2 + Self.second)
    #expect(later.first?.flags == [.syn, .ack])
  }

  @Test("dials to one peer leave as fast as it takes them, those to another at once; too many fail")
  func dialPace() {
    var table = StreamTable()
    func dial(_ node: UInt32, _ now: UInt64) -> Bool {
      table.dial(from: Self.own, to: PilotAddress(network: 0, node: node), port: 80, now: now) != nil
    }
    let begin = 5 * Self.second
    let taken = (0..<300).count { _ in dial(1, begin) }
    #expect(taken == 60 + 90, "10 s of waiting, nine a second")
    #expect(dial(3, begin))
    // The first SYN of each, as the peer counts them; nobody answers.
    var (times, seen): ([UInt32: [UInt64]], Set<String>) = ([:], [])
    var now = begin
    while now < begin + 12 * Self.second {
      table.tick(now)
      table.flush(now)
      for packet in table.takePackets()
      where seen.insert("\(packet.destination.node) \(packet.sourcePort)").inserted {
        times[packet.destination.node, default: []].append(now - begin)
      }
      _ = table.takeEvents()
      now = max(now + 1, table.nextDeadline ?? .max)
    }
    #expect(times[3] == [0])
    #expect(times[1]?.count == taken && times[1]?.prefix(60).allSatisfy { $0 == 0 } == true)
    for (index, at) in (times[1] ?? []).enumerated() {
      let allowed = 64 + Double(at) / 1e9 * 10
      #expect(Double(index) < allowed, "SYN \(index) after \(at) ns")
    }
    #expect(dial(1, now), "and then there is room again")
  }

  @Test("streams that only linger give way, an idle one is closed, and a dialer that started anew gets a new stream")
  func room() throws {
    var host = EchoHost()
    // As fast as SYNs are taken.
    for port in 0..<StreamTable.perPeer {
      let now = UInt64(port) * Self.second / 10
      _ = host.receive(Self.packet(.syn, from: 2, port: UInt16(40_000 + port)), from: 2, isAdmitted: true, now: now)
    }
    let later = UInt64(StreamTable.perPeer) * Self.second / 10
    let full = host.receive(Self.packet(.syn, from: 2, port: 50_001), from: 2, isAdmitted: true, now: later)
    #expect(full.map(\.flags) == [.rst])
    _ = host.receive(Self.packet(.fin, from: 2, port: 40_003, sequence: 1), from: 2, isAdmitted: true, now: later + 1)
    let taken = host.receive(Self.packet(.syn, from: 2, port: 50_001), from: 2, isAdmitted: true, now: later + 2)
    #expect(taken.map(\.flags) == [[.syn, .ack]] && host.count == StreamTable.perPeer)
    host.forget(2)
    #expect(host.count == 0)

    _ = host.receive(Self.packet(.syn), from: 1, isAdmitted: true, now: 5)
    _ = host.receive(
      Self.packet(.ack, sequence: 1, acknowledgement: 1, payload: [9, 9]), from: 1, isAdmitted: true, now: 6)
    let soon = host.receive(Self.packet(.syn, sequence: 700), from: 1, isAdmitted: true, now: Self.second)
    #expect(soon.first?.acknowledgement == 3, "a repetition, whatever its number")
    let anew = host.receive(Self.packet(.syn, sequence: 700), from: 1, isAdmitted: true, now: 30 * Self.second)
    #expect(anew.first?.acknowledgement == 701)

    // The peer answers every question whether it lives, so that only the idle limit can end the stream.
    var flags: [PilotFlags] = []
    while let now = host.nextDeadline, now <= 30 * Self.second + Echo.idleLasts {
      for packet in host.tick(now) {
        flags.append(packet.flags)
        let answer = Self.packet(.ack, sequence: 701, acknowledgement: packet.sequence)
        if packet.flags == .ack { _ = host.receive(answer, from: 1, isAdmitted: true, now: now) }
      }
    }
    #expect(flags.contains(.fin) && !flags.contains(.rst), "\(flags)")
  }

  @Test("a megabyte comes back over a line that loses and turns round", arguments: [1, 2, 3] as [UInt64])
  func bench(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    var host = EchoHost()
    var dialer = StreamMachine(dialing: 0, now: 0)
    var line: [(at: UInt64, toHost: Bool, packet: PilotPacket)] = []
    var now: UInt64 = 0
    let text = pattern(1 << 20, seed: seed)
    var (written, received) = (0, [UInt8]())
    func carry(_ packet: PilotPacket, toHost: Bool) {
      guard Int.random(in: 0..<50, using: &random) > 0 else { return }
      line.append((now + UInt64.random(in: 1_000_000...3_000_000, using: &random), toHost, packet))
    }
    for _ in 0..<200_000 where received.count < text.count {
      received += dialer.read(1 << 20, now: now)
      if dialer.phase == .open, written < text.count { written += dialer.write(text[written...].prefix(65_536)) }
      while let segment = dialer.nextSegment(now) {
        carry(
          Self.packet(
            segment.flags, sequence: segment.sequence, acknowledgement: segment.acknowledgement,
            payload: segment.payload), toHost: true)
      }
      let nextOnLine = line.indices.min { line[$0].at < line[$1].at }
      let times = [nextOnLine.map { line[$0].at }, dialer.nextDeadline, host.nextDeadline].compactMap { $0 }
      guard let next = times.min() else { break }
      now = max(now, next)
      if let nextOnLine, line[nextOnLine].at <= now {
        let passage = line.remove(at: nextOnLine)
        if passage.toHost {
          for answer in host.receive(passage.packet, from: 1, isAdmitted: true, now: now) {
            carry(answer, toHost: false)
          }
        } else {
          dialer.receive(
            StreamSegment(
              flags: passage.packet.flags, sequence: passage.packet.sequence,
              acknowledgement: passage.packet.acknowledgement, window: passage.packet.window,
              payload: passage.packet.payload), now: now)
        }
      }
      for answer in host.tick(now) { carry(answer, toHost: false) }
      if let due = dialer.nextDeadline, due <= now { dialer.tick(now) }
    }
    // Compared here: a failed expectation would list the differences, for hours.
    let isSame = received == text
    #expect(isSame, "\(received.count) bytes came back, seed \(seed)")
  }
}
