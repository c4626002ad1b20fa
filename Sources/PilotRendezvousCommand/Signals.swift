// SIGTERM, SIGINT and SIGHUP as events. Used by serve and beacon.

import Dispatch
import Glibc

/// Takes the signals from the moment it is made. The second that asks to stop ends the process at once, should stopping
/// hang.
struct Signals {
  /// The numbers as they come.
  let numbers: AsyncStream<Int32>
  private let sources: [any DispatchSourceSignal]

  init() {
    let (stream, continuation) = AsyncStream.makeStream(of: Int32.self)
    numbers = stream
    sources = [SIGTERM, SIGINT, SIGHUP].map { number in
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler {
        continuation.yield(number)
        if number != SIGHUP { signal(number, SIG_DFL) }
      }
      source.resume()
      return source
    }
  }
}
