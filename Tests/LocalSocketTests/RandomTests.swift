// A few clients, a world that answers when it likes, and a clock: what has to hold whatever happens.

import LocalSocket
import SeededRandom
import Testing
import Wire

@Suite("Local socket: random") struct RandomTests {
  @Test("no byte is lost or out of order, and every request is answered once", arguments: 0..<40)
  func world(round: Int) {
    let seed = round < 20 ? UInt64(round) : UInt64.random(in: 100...UInt64.max)
    var world = World(seed: seed)
    for _ in 0..<3000 where world.fault == nil { world.step() }
    world.finish()
    if let fault = world.fault { Issue.record("seed \(seed): \(fault)") }
  }
}

/// A client as its program sees it.
private struct Program {
  var id: ClientID
  /// Written and not yet taken by the server.
  var toWrite: [UInt8] = []
  var read: [UInt8] = []
  var isReading = true
  /// Requests that were written whole, and answers.
  var asked = 0
  var answered = 0
  var open: Set<UInt32> = []
  /// Streams that this program closed, and how often it was told: once as the answer, and once if the peer was first.
  var closed: [UInt32: Int] = [:]
  var received: [UInt32: [UInt8]] = [:]
}

/// A stream as the stream table sees it.
private struct TableStream {
  var buffer: [UInt8] = []
  var room: Int
  var taken: [UInt8] = []
  var isOpen = false
}

private struct World {
  var server: LocalSocketServer
  var random: SeededGenerator
  var now: UInt64 = 0
  var programs: [ClientID: Program] = [:]
  var table: [UInt32: TableStream] = [:]
  /// What was written to each stream by its owner while it was open, and what each stream handed to it.
  var sent: [UInt32: [UInt8]] = [:]
  var handed: [UInt32: [UInt8]] = [:]
  var requests: [RequestID] = []
  var bound: Set<UInt16> = []
  var serial: UInt8 = 0
  var fault: String?

  init(seed: UInt64) {
    random = SeededGenerator(seed: seed)
    var limits = LocalSocketLimits()
    limits.queuedFrames = 12
    limits.requestsPerClient = 8
    limits.streamsPerClient = 6
    limits.clients = 4
    server = LocalSocketServer(reservedPorts: [7], limits: limits)
  }

  mutating func pick(_ range: Range<Int>) -> Int { Int.random(in: range, using: &random) }

  mutating func bytes(_ count: Int) -> [UInt8] {
    (0..<count).map { _ in
      serial &+= 1
      return serial
    }
  }

  mutating func step() {
    now += UInt64(pick(0..<3)) * 40 * millisecond
    if let due = server.nextDeadline, due <= now { server.tick(now) }
    switch pick(0..<12) {
    case 0:
      if let id = server.connected() { programs[id] = Program(id: id) }
      if server.clientCount > 4 { fault = "too many clients" }
    case 1, 2, 3: request()
    case 4, 5: write()
    case 6: read()
    case 7: answer()
    case 8: settleDial()
    case 9: moveTable()
    case 10: peerSends()
    default: rare()
    }
    carryOut()
  }

  private mutating func someone() -> ClientID? {
    programs.keys.sorted { $0.number < $1.number }.randomElement(using: &random)
  }

  /// A program writes a request.
  mutating func request() {
    guard let id = someone(), let program = programs[id], program.toWrite.count < 4000 else { return }
    let stream = program.open.sorted().randomElement(using: &random)
    var answers = 1
    let request: [UInt8]
    switch pick(0..<10) {
    case 0: request = dial()
    case 1: request = frame(0x0D)
    case 2: request = frame(0x21)
    case 3: request = frame(0x39, peerBytes + [0, 9] + bytes(3))
    case 4: request = frame(0x01, [0, UInt8(pick(0..<12))])
    case 5:
      if pick(0..<4) > 0 { return }
      guard let stream else { return }
      request = frame(0x08, big(stream))
      programs[id]?.open.remove(stream)
      programs[id]?.closed[stream] = 0
      answers = 0
    case 6: request = frame(UInt8(pick(0x3A..<0x100)))
    default:
      guard let stream else { return }
      let data = bytes(pick(0..<90))
      request = frame(0x06, big(stream) + data)
      sent[stream, default: []] += data
      answers = 0
    }
    programs[id]?.toWrite += request
    programs[id]?.asked += answers
  }

  /// The server reads some of what a program wrote.
  mutating func write() {
    guard let id = someone(), server.wantsInput(id), let program = programs[id], !program.toWrite.isEmpty else {
      return
    }
    let count = pick(1..<program.toWrite.count + 1)
    programs[id]?.toWrite.removeFirst(count)
    server.received(id, program.toWrite.prefix(count), now: now)
  }

  mutating func read() {
    guard let id = someone(), programs[id]?.isReading == true else { return }
    let output = server.pendingOutput(of: id)
    guard !output.isEmpty else { return }
    let part = Array(output.prefix(pick(1..<output.count + 1)))
    server.wrote(id, part.count, now: now)
    take(part, id)
  }

  mutating func take(_ part: [UInt8], _ id: ClientID) {
    programs[id]?.read += part
    while let read = programs[id]?.read, read.count >= 4 {
      let length = read.prefix(4).reduce(0) { $0 << 8 | Int($1) }
      guard read.count >= 4 + length else { return }
      programs[id]?.read.removeFirst(4 + length)
      understand(Array(read[4..<(4 + length)]), id)
    }
  }

  mutating func understand(_ frame: [UInt8], _ id: ClientID) {
    var reader = ByteReader(frame)
    switch reader.byte() {
    case 0x04:
      guard let stream = reader.u32() else { return fault = "a short DialOK" }
      programs[id]?.open.insert(stream)
      programs[id]?.answered += 1
    case 0x05:
      guard let port = reader.u16(), let stream = reader.u32(), port < 12 else { return fault = "a malformed Accept" }
      programs[id]?.open.insert(stream)
    case 0x07:
      guard let stream = reader.u32() else { return fault = "a short Recv" }
      programs[id]?.received[stream, default: []] += Array(reader.rest())
    case 0x09:
      guard let stream = reader.u32() else { return fault = "a short CloseOK" }
      if programs[id]?.open.remove(stream) != nil {
        closedByPeer(stream, id)
      } else {
        programs[id]?.closed[stream, default: 5] += 1
      }
    case 0x0C: break
    case nil: fault = "an empty frame"
    default: programs[id]?.answered += 1
    }
  }

  /// All that the peer gave before its end was received.
  mutating func closedByPeer(_ stream: UInt32, _ id: ClientID) {
    if programs[id]?.received[stream] ?? [] != handed[stream] ?? [] { fault = "an end ahead of its data" }
  }

  mutating func answer() {
    guard let index = requests.indices.randomElement(using: &random) else { return }
    let request = requests.remove(at: index)
    server.answered(request, pick(0..<3) == 0 ? .failure(LocalError("no")) : .success([0x7B, 0x7D]), now: now)
  }

  mutating func settleDial() {
    guard let number = table.keys.filter({ table[$0]?.isOpen == false }).sorted().randomElement(using: &random) else {
      return
    }
    if pick(0..<4) == 0 {
      table[number] = nil
      server.failed(StreamID(number), .refused, now: now)
    } else {
      table[number]?.isOpen = true
      server.opened(StreamID(number), now: now)
    }
  }

  /// The peers take something, which makes room.
  mutating func moveTable() {
    for number in table.keys.sorted() where table[number]?.isOpen == true && pick(0..<2) == 0 {
      guard var stream = table[number] else { continue }
      stream.taken += stream.buffer
      stream.buffer = []
      stream.room = max(stream.room, min(stream.room + pick(0..<40), 80))
      table[number] = stream
      server.canTake(StreamID(number), room: stream.room, now: now)
    }
  }

  mutating func peerSends() {
    guard let number = table.keys.filter({ table[$0]?.isOpen == true }).sorted().randomElement(using: &random),
      server.wantsData(StreamID(number))
    else { return }
    let data = bytes(pick(1..<40))
    handed[number, default: []] += data
    server.data(StreamID(number), data, now: now)
  }

  mutating func rare() {
    switch pick(0..<8) {
    case 0, 1:
      guard let port = bound.sorted().randomElement(using: &random),
        let stream = server.arrived(port: port, remote: peer, remotePort: 1, now: now)
      else { return }
      table[stream.number] = TableStream(room: 0, isOpen: true)
    case 2:
      guard let number = table.keys.filter({ table[$0]?.isOpen == true }).sorted().randomElement(using: &random) else {
        return
      }
      table[number] = nil
      server.ended(StreamID(number), now: now)
    case 3:
      guard let id = someone() else { return }
      server.hungUp(id, now: now)
      programs[id] = nil
    case 4:
      guard let id = someone() else { return }
      programs[id]?.isReading.toggle()
    case 5: server.datagram(from: peer, sourcePort: 1, destinationPort: 2, bytes(5), now: now)
    case 6: now += 3 * second
    default: break
    }
  }

  mutating func carryOut() {
    for action in server.takeActions() {
      switch action {
      case .dial(let stream, _, _):
        if table[stream.number] != nil { fault = "a number is used twice" }
        table[stream.number] = TableStream(room: 0)
      case .cancelDial(let stream): table[stream.number] = nil
      case .send(let stream, let data):
        guard let state = table[stream.number], state.isOpen else { return fault = "sent to a stream that is not open" }
        guard data.count <= state.room, !data.isEmpty else { return fault = "more is sent than there is room" }
        table[stream.number]?.room -= data.count
        table[stream.number]?.buffer += data
        // A prefix at any time, and in order.
        let all = state.taken + state.buffer + data
        let written = Array((sent[stream.number] ?? []).prefix(all.count))
        if all != written { fault = "other bytes than those written" }
      case .close(let stream): table[stream.number] = nil
      case .bind(let port): if !bound.insert(port).inserted || port == 7 { fault = "a port is bound twice" }
      case .unbind(let port): if bound.remove(port) == nil { fault = "a free port is freed" }
      case .sendDatagram(_, _, _, let confirm): if let confirm { requests.append(confirm) }
      case .ask(let request, _): requests.append(request)
      case .disconnect(let id): programs[id] = nil
      case .resume: break
      }
    }
  }

  /// Everything that is under way comes to its end; then all clients that are left have their answers.
  mutating func finish() {
    for _ in 0..<4000 where fault == nil {
      var isMoving = false
      for id in programs.keys.sorted(by: { $0.number < $1.number }) {
        programs[id]?.isReading = true
        if server.wantsInput(id), let program = programs[id], !program.toWrite.isEmpty {
          programs[id]?.toWrite = []
          server.received(id, program.toWrite, now: now)
          isMoving = true
        }
        let output = Array(server.pendingOutput(of: id))
        server.wrote(id, output.count, now: now)
        take(output, id)
        isMoving = isMoving || !output.isEmpty
      }
      isMoving = isMoving || !requests.isEmpty || table.values.contains { !$0.isOpen }
      while !requests.isEmpty { answer() }
      settleDial()
      for number in table.keys.sorted() where table[number]?.isOpen == true {
        table[number]?.room = 1000
        server.canTake(StreamID(number), room: 1000, now: now)
      }
      let actions = server.takeChangedClients()
      carryOut()
      now += 25 * millisecond
      server.tick(now)
      carryOut()
      if !isMoving, actions.isEmpty { break }
    }
    guard fault == nil else { return }
    for (id, program) in programs where program.asked != program.answered {
      fault = "client \(id.number): \(program.asked) requests, \(program.answered) answers"
    }
    for (id, program) in programs {
      for (stream, count) in program.closed where !(1...2).contains(count) {
        fault = "client \(id.number): the Close of \(stream) has \(count) answers"
      }
      for stream in program.open where program.received[stream] ?? [] != handed[stream] ?? [] {
        fault = "client \(id.number) did not get all of stream \(stream)"
      }
      for stream in program.open {
        if let state = table[stream], state.taken + state.buffer != sent[stream] ?? [] {
          fault = "stream \(stream) did not get all that client \(id.number) wrote"
        }
      }
      server.hungUp(id, now: now)
    }
    carryOut()
    guard server.clientCount == 0, server.nextDeadline == nil, bound.isEmpty, table.isEmpty else {
      return fault = "something is left: \(server.clientCount), \(bound), \(table.keys)"
    }
  }
}
