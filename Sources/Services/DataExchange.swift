// One stream of port 1001 as a pure machine (wire/tunnel §8.1): bytes of a peer in; what is to be kept, and the answers,
// out. The gateway drives it; the node's inbox keeps what comes.

import JSON
import Wire

/// What a peer sent and somebody has to keep.
package enum ExchangeRequest: Equatable, Sendable {
  /// Text, binary or JSON.
  case message(ExchangeType, [UInt8], MessageTag)
  case file(name: String, content: [UInt8], MessageTag)
  case fileStream(FileStreamRequest)
}

/// What became of it.
package enum ExchangeResult: Equatable, Sendable {
  /// `isRepeated`: a message of this id was kept before; this one is not kept again.
  case kept(isRepeated: Bool)
  case failed(String)
  case fileStream(FileStreamAnswer)
  /// Nothing is to be said.
  case noted
}

package struct DataExchange: Sendable {
  /// Bytes of one frame beyond which its owner looks whether there is room for it.
  package static let freeFrame = 64 << 10
  /// A stream without bytes for this long is closed, as official daemons do.
  package static let idleLasts: UInt64 = 120_000_000_000

  package enum Step: Equatable, Sendable {
    /// `received`.
    case wait
    /// To be answered with `answered`.
    case keep(ExchangeRequest)
    case send([UInt8])
    /// The peer does not speak the protocol.
    case close
  }

  /// How the frame under way is answered.
  private struct Reply: Sendable {
    /// nil: by frames of its own (type 7).
    var label: String?
    var count = 0
    var transfer: TransferID?
    /// The sender's time and ours, in nanoseconds, when it asked for times.
    var trace: (sent: UInt64, received: UInt64)?
  }

  private var bytes: [UInt8] = []
  private var reply: Reply?
  private var isBroken = false

  package init() {}

  /// Declared length of the frame under way, 0 before its header came.
  package var frameBytes: Int {
    reply == nil ? ExchangeFrame.header(bytes[...])?.length ?? 0 : 0
  }

  /// Whether a request waits for its answer: nothing is read meanwhile.
  package var isWaitingForAnswer: Bool { reply != nil }

  package mutating func received(_ more: some Collection<UInt8>) { bytes += more }

  /// - wall: nanoseconds since 1970.
  package mutating func next(wall: UInt64) -> Step {
    guard !isBroken else { return .close }
    guard reply == nil, let (type, length) = ExchangeFrame.header(bytes[...]) else { return .wait }
    guard length <= ExchangeFrame.longest else { return broken() }
    let size = ExchangeFrame.headerSize + length
    guard bytes.count >= size else { return .wait }
    let payload = Array(bytes[ExchangeFrame.headerSize..<size])
    bytes = Array(bytes[size...])
    return take(type, payload[...], MessageTag(), nil, wall)
  }

  private mutating func broken() -> Step {
    isBroken = true
    bytes = []
    return .close
  }

  private mutating func take(
    _ type: UInt32, _ payload: ArraySlice<UInt8>, _ tag: MessageTag, _ trace: (sent: UInt64, received: UInt64)?,
    _ wall: UInt64, isTagged: Bool = false
  ) -> Step {
    var reader = ByteReader(payload)
    switch ExchangeType(rawValue: type) {
    case .text?, .binary?, .json?:
      guard let kind = ExchangeType(rawValue: type) else { return broken() }
      reply = Reply(label: kind.label, count: payload.count, trace: trace)
      return .keep(.message(kind, Array(payload), tag))
    case .file?:
      guard let length = reader.u16(), let name = reader.take(Int(length)).flatMap({ FileName.checked($0) }) else {
        return broken()
      }
      let content = reader.rest()
      reply = Reply(label: ExchangeType.file.label, count: content.count, trace: trace)
      return .keep(.file(name: name, content: Array(content), tag))
    case .trace? where trace == nil:
      guard let inner = reader.u32(), let sent = reader.u64() else { return broken() }
      return take(inner, reader.rest(), tag, (sent, wall), wall, isTagged: isTagged)
    case .fileStream? where !isTagged && trace == nil:
      guard let request = FileStreamRequest(payload) else { return broken() }
      reply = Reply(transfer: request.transfer)
      return .keep(.fileStream(request))
    case .tagged?:
      guard !isTagged, let length = reader.u16(), let tag = reader.take(Int(length)).flatMap({ MessageTag($0) }),
        let inner = reader.u32()
      else { return broken() }
      return take(inner, reader.rest(), tag, trace, wall, isTagged: true)
    default:
      let text = "ERR UNKNOWN(\(type)) save failed: unsupported frame type \(type)"
      return .send(ExchangeFrame.make(.text, text.utf8))
    }
  }

  /// The answer to what was to be kept, as it goes to the peer; empty when nothing does.
  package mutating func answered(_ result: ExchangeResult, wall: UInt64) -> [UInt8] {
    guard let reply else { return [] }
    self.reply = nil
    switch result {
    case .noted: return []
    case .fileStream(let answer): return reply.transfer.map { answer.frame($0) } ?? []
    case .failed(let reason):
      if let transfer = reply.transfer { return FileStreamAnswer.refused(reason).frame(transfer) }
      return ExchangeFrame.make(.text, "ERR \(reply.label ?? "") save failed: \(reason)".utf8)
    case .kept(let isRepeated):
      let text = "ACK \(reply.label ?? "") \(reply.count) bytes" + (isRepeated ? " (duplicate)" : "")
      guard let trace = reply.trace else { return ExchangeFrame.make(.text, text.utf8) }
      let times = JSONValue.object([
        "sent_at_ns": .integer(Int64(clamping: trace.sent)),
        "received_at_ns": .integer(Int64(clamping: trace.received)),
        "inbox_written_at_ns": .integer(Int64(clamping: wall)), "ack_sent_at_ns": .integer(Int64(clamping: wall)),
        "inner_ack": .text(text),
      ])
      return ExchangeFrame.make(.json, times.encoded)
    }
  }
}

extension FileStreamRequest {
  package var transfer: TransferID {
    switch self {
    case .begin(let id, _), .chunk(let id, _, _), .done(let id), .abort(let id), .malformed(let id, _): id
    }
  }
}
