// The gateway between sockets and streams, as the node sees it: commands in, events out. It lives on a thread of its
// own (GatewayLoop), beside the worker, and blocks only in epoll.
//
//   program --TCP--> TUN --worker--> gateway's socket --bytes--> StreamTable --segments--> worker --sealed--> peer

package import Engine
internal import Shim
internal import Streams
internal import Synchronization
internal import Wire

package final class Gateway: Sendable {
  package let events: AsyncStream<GatewayEvent>
  private let report: AsyncStream<GatewayEvent>.Continuation
  private let commands = Mailbox<GatewayCommand>(limit: 65_536)
  private let engine: Engine
  private let tally = GatewayTally()
  private let isOver = Mutex(false)

  package init(engine: Engine) {
    self.engine = engine
    (events, report) = AsyncStream.makeStream(bufferingPolicy: .bufferingOldest(4096))
  }

  /// Serves until `stop`. Blocks: call it on a thread of its own.
  package func run(_ hooks: GatewayHooks) throws(GatewayError) {
    defer { report.finish() }
    let loop = try GatewayLoop(engine: engine, commands: commands, report: report, tally: tally, hooks: hooks)
    loop.run()
    isOver.withLock { $0 = true }
    for command in commands.takeAll() { Self.fail(command) }
  }

  /// Commands are obeyed in order, those that come before `run` first. After the end whoever waits for one is told.
  package func submit(_ command: GatewayCommand) {
    let isTooLate = isOver.withLock { isOver in
      if !isOver { commands.post(command, always: true) }
      return isOver
    }
    if isTooLate { Self.fail(command) }
  }

  private static func fail(_ command: GatewayCommand) {
    if case .message(_, _, _, let done) = command { done(false) }
  }

  /// Refusals since the start, by name.
  package var counts: [String: UInt64] { tally.counts }
  /// Streams that are there now.
  package var streamCount: Int { tally.streamCount }
}

/// Numbers that other threads read.
final class GatewayTally: Sendable {
  private let state = Mutex<(counts: [String: UInt64], streams: Int)>(([:], 0))

  var counts: [String: UInt64] { state.withLock { $0.counts } }
  var streamCount: Int { state.withLock { $0.streams } }

  func count(_ name: String, _ number: Int = 1) {
    state.withLock { $0.counts[name, default: 0] += UInt64(number) }
  }

  func setStreams(_ number: Int) { state.withLock { $0.streams = number } }
}
