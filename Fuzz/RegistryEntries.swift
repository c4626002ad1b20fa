// How the two ends of the directory protocol cut frames out of a TCP stream. CorpusTests replays the corpus and seeded
// mutations of it.

import Directory
import JSON
import NIOCore

@testable import Rendezvous

/// A reader of frames, by the name of its corpus folder.
enum RegistryEntry: String, CaseIterable {
  /// What a node reads of a registry.
  case replyframes
  /// What the rendezvous reads of its clients.
  case requestframes

  /// Runs the reader. nil: it held what it promises; else the promise that was broken.
  func violation(_ bytes: [UInt8]) -> String? {
    switch self {
    case .replyframes: Self.replies(bytes)
    case .requestframes: Self.requests(bytes)
    }
  }

  /// Frames as a slow model cuts them, and how the stream goes on.
  private enum End { case incomplete, malformed }

  private static func model(_ bytes: [UInt8], limit: Int) -> (frames: [[UInt8]], end: End) {
    var frames: [[UInt8]] = []
    var rest = bytes[...]
    while rest.count >= 4 {
      let length = rest.prefix(4).reduce(0) { $0 << 8 | Int($1) }
      guard length > 0, length <= limit else { return (frames, .malformed) }
      guard rest.count >= 4 + length else { break }
      frames.append(Array(rest.dropFirst(4).prefix(length)))
      rest = rest.dropFirst(4 + length)
    }
    return (frames, .incomplete)
  }

  // MARK: - The node's end

  private static func replies(_ bytes: [UInt8]) -> String? {
    let (frames, end) = model(bytes, limit: RegistryFrame.longest)
    for pieces in [[bytes[...]], Pieces.of(bytes, most: 41)] {
      var buffer = ByteBuffer()
      var read = 0
      var fault: RegistryFrame.Fault?
      arriving: for piece in pieces {
        buffer.writeBytes(piece)
        while true {
          let before = buffer.readableBytes
          do {
            guard let value = try RegistryFrame.decode(from: &buffer) else {
              guard buffer.readableBytes == before else { return "bytes are taken of a frame that is not whole" }
              break
            }
            guard read < frames.count, before - buffer.readableBytes == 4 + frames[read].count else {
              return "a frame that is not one"
            }
            read += 1
            var again = ByteBuffer()
            try RegistryFrame.encode(value, into: &again)
            guard let copy = try RegistryFrame.decode(from: &again), again.readableBytes == 0 else {
              return "what was written is not read"
            }
            guard copy.encoded == value.encoded else { return "writing is not stable" }
          } catch {
            fault = error
            break arriving
          }
        }
      }
      switch fault {
      case nil:
        guard read == frames.count, end == .incomplete else { return "a frame is not read" }
      case .length(let length):
        guard read == frames.count, end == .malformed, !(1...RegistryFrame.longest).contains(length) else {
          return "a right length is refused"
        }
      case .malformed(let offset):
        guard read < frames.count, (0...frames[read].count).contains(offset) else {
          return "a fault beyond its frame"
        }
      case .notAnObject:
        // An object begins with a brace behind white space, and nothing else does.
        guard read < frames.count, frames[read].first(where: { ![9, 10, 13, 32].contains($0) }) != 0x7B else {
          return "an object is refused as none"
        }
      }
    }
    return nil
  }

  // MARK: - The rendezvous' end

  private static func requests(_ bytes: [UInt8]) -> String? {
    let limit = 4 * FrameReader.freeLength
    let (frames, end) = model(bytes, limit: limit)
    for pieces in [[bytes[...]], Pieces.of(bytes, most: 41)] {
      for isCrowded in [false, true] {
        if let fault = read(pieces, frames, end, limit: limit, isCrowded: isCrowded) { return fault }
      }
    }
    return nil
  }

  private static func read(
    _ pieces: [ArraySlice<UInt8>], _ frames: [[UInt8]], _ end: End, limit: Int, isCrowded: Bool
  ) -> String? {
    var reader = FrameReader(limit: limit)
    var read = 0
    var asked: [Int] = []
    func reserve(_ length: Int) -> Bool {
      asked.append(length)
      return !isCrowded
    }
    for piece in pieces {
      var buffer = ByteBuffer(bytes: piece)
      reader.append(&buffer)
      guard buffer.readableBytes == 0 else { return "bytes are left behind" }
      arriving: while true {
        switch reader.next(reserve: reserve) {
        case .frame(let frame):
          guard read < frames.count, Array(frame.readableBytesView) == frames[read] else {
            return "a frame that is not one"
          }
          let length = frames[read].count
          let reserved = reader.takeReserved()
          guard reserved == 0 || reserved == length, reader.takeReserved() == 0 else {
            return "more room given back than taken"
          }
          guard asked == (reserved == 0 ? [] : [length]) else { return "room asked for and forgotten" }
          asked = []
          read += 1
        case .incomplete:
          let isLong = asked.contains { $0 <= FrameReader.freeLength || $0 > limit }
          guard asked.count <= 1, !isLong else { return "room asked for twice, or for a short frame" }
          guard reader.reserved == asked.first ?? 0 else { return "room is not noted" }
          break arriving
        case .malformed:
          return read == frames.count && end == .malformed ? nil : "a right length is refused"
        case .crowded:
          guard isCrowded, asked.count == 1, reader.reserved == 0 else { return "refused with room left" }
          return nil
        }
      }
    }
    guard read == frames.count, end == .incomplete else { return "a frame is not read" }
    let left = pieces.reduce(0) { $0 + $1.count } - frames.reduce(0) { $0 + 4 + $1.count }
    return reader.isUnfinished == (left > 0) ? nil : "a frame under way is not noted"
  }
}
