// How the registry cuts frames out of a TCP stream, without a network.

import NIOCore
import SeededRandom
import Testing

@testable import Rendezvous

@Suite struct FrameReaderTests {
  @Test("frames come out whole however the stream is cut")
  func framing() {
    var random = SeededGenerator(seed: 5)
    for _ in 0..<200 {
      let bodies = (0..<5).map { _ in
        (0..<Int.random(in: 1..<300, using: &random)).map { UInt8(truncatingIfNeeded: $0) }
      }
      var stream = bodies.flatMap { RegistrySocket.frame($0) }[...]
      var reader = FrameReader(limit: 300)
      var seen: [[UInt8]] = []
      while !stream.isEmpty {
        let count = Int.random(in: 1...min(stream.count, 97), using: &random)
        var piece = ByteBuffer(bytes: stream.prefix(count))
        stream = stream.dropFirst(count)
        reader.append(&piece)
        while case .frame(let frame) = reader.next(reserve: { _ in true }) {
          seen.append(Array(frame.readableBytesView))
        }
      }
      #expect(seen == bodies)
      #expect(!reader.isUnfinished)
    }
  }

  @Test("a frame above the limit is refused as soon as its length is known")
  func tooLong() {
    var reader = FrameReader(limit: 1 << 20)
    var head = ByteBuffer(bytes: [0x00, 0x10, 0x00, 0x01])
    reader.append(&head)
    #expect(reader.next(reserve: { _ in true }) == .malformed)
  }
}
