// A server with nothing around it: frames in, frames out, under a virtual clock.

import Testing
import Wire

@testable import LocalSocket

// A failed expectation would print megabytes.
extension LocalSocketServer: CustomTestStringConvertible {
  package var testDescription: String { "\(clientCount) clients" }
}
extension SocketBench: CustomTestStringConvertible {
  var testDescription: String { server.testDescription }
}

typealias Action = LocalSocketServer.Action

let millisecond: UInt64 = 1_000_000
let second: UInt64 = 1_000_000_000

struct SocketBench {
  var server: LocalSocketServer
  var now: UInt64 = 5 * second

  init(limits: LocalSocketLimits = LocalSocketLimits()) {
    server = LocalSocketServer(reservedPorts: [7, 444], limits: limits)
  }

  mutating func connect() -> ClientID {
    guard let id = server.connected() else {
      Issue.record("no connection")
      return ClientID(number: 0)
    }
    return id
  }

  /// The bytes of these frames come in one read.
  mutating func send(_ id: ClientID, _ frames: [UInt8]...) { server.received(id, frames.flatMap { $0 }, now: now) }

  /// Everything that waits for this client, as payloads.
  mutating func read(_ id: ClientID) -> [[UInt8]] {
    let bytes = Array(server.pendingOutput(of: id))
    server.wrote(id, bytes.count, now: now)
    return payloads(bytes)
  }

  mutating func actions() -> [Action] { server.takeActions() }

  mutating func pass(_ time: UInt64) {
    now += time
    server.tick(now)
  }

  /// What these frames are answered with; they cause no action.
  mutating func answer(_ id: ClientID, _ frames: [UInt8]...) -> [[UInt8]] {
    server.received(id, frames.flatMap { $0 }, now: now)
    let actions = actions()
    if !actions.isEmpty { Issue.record("\(actions)") }
    return read(id)
  }

  /// A stream that is open to the peer, its beginning some time ago.
  mutating func open(_ id: ClientID, room: Int = 0) -> StreamID {
    send(id, dial())
    guard case .dial(let stream, _, _)? = actions().last else {
      Issue.record("no dial")
      return StreamID(0)
    }
    server.opened(stream, now: now)
    if room > 0 { server.canTake(stream, room: room, now: now) }
    _ = read(id)
    pass(100 * millisecond)
    return stream
  }
}

func frame(_ number: UInt8, _ body: [UInt8] = []) -> [UInt8] {
  var frame: [UInt8] = []
  frame.appendBig(UInt32(1 + body.count))
  return frame + [number] + body
}

/// Cuts bytes of whole frames into payloads.
func payloads(_ bytes: [UInt8]) -> [[UInt8]] {
  var all: [[UInt8]] = []
  var reader = ByteReader(bytes)
  while let length = reader.u32() {
    guard let payload = reader.take(Int(length)) else {
      Issue.record("a frame is cut")
      break
    }
    all.append(Array(payload))
  }
  return all
}

func big(_ value: some FixedWidthInteger) -> [UInt8] {
  var bytes: [UInt8] = []
  bytes.appendBig(value)
  return bytes
}

func error(_ text: String) -> [UInt8] { [0x0A, 0, 1] + Array(text.utf8) }

let peer = PilotAddress(network: 0, node: 1)
let peerBytes: [UInt8] = [0, 0, 0, 0, 0, 1]

func dial(port: UInt16 = 80) -> [UInt8] { frame(0x03, peerBytes + big(port)) }
func sendFrame(_ stream: StreamID, _ data: [UInt8]) -> [UInt8] { frame(0x06, big(stream.number) + data) }
func closeFrame(_ stream: StreamID) -> [UInt8] { frame(0x08, big(stream.number)) }
func closeOK(_ stream: StreamID) -> [UInt8] { [0x09] + big(stream.number) }
func recv(_ stream: StreamID, _ data: [UInt8]) -> [UInt8] { [0x07] + big(stream.number) + data }

/// The queries among actions, in order.
func asked(_ actions: [Action]) -> [(id: RequestID, query: LocalQuery)] {
  actions.compactMap { if case .ask(let id, let query) = $0 { (id, query) } else { nil } }
}
