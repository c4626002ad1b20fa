// Waits for SIGTERM or SIGINT. Used by serve.

import Dispatch
import Foundation

/// Takes both signals from the moment it is made. The second of a kind ends the process at once, should stopping hang.
struct StopSignals {
  private let stream: AsyncStream<Int32>
  private let sources: [any DispatchSourceSignal]

  init() {
    let (stream, continuation) = AsyncStream.makeStream(of: Int32.self)
    self.stream = stream
    sources = [SIGTERM, SIGINT].map { number in
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler {
        continuation.yield(number)
        signal(number, SIG_DFL)
      }
      source.resume()
      return source
    }
  }

  /// The number of the first signal.
  func first() async -> Int32 {
    defer { withExtendedLifetime(sources) {} }
    for await number in stream { return number }
    return 0
  }
}
