// Frames of the data exchange on port 1001 (wire/tunnel §8.1): `type u32 || length u32 || payload`.

import JSON
import Wire

/// The types that official senders use.
package enum ExchangeType: UInt32, Sendable {
  case text = 1
  case binary = 2
  case json = 3
  case file = 4
  case trace = 5
  case fileStream = 7
  case tagged = 10

  /// As answers and file names have it.
  package var label: String {
    switch self {
    case .text: "TEXT"
    case .binary: "BINARY"
    case .json: "JSON"
    case .file: "FILE"
    case .trace, .fileStream, .tagged: "UNKNOWN(\(rawValue))"
    }
  }
}

package enum ExchangeFrame {
  package static let headerSize = 8
  /// A longer frame ends the stream.
  package static let longest = 64 << 20

  package static func make(_ type: ExchangeType, _ payload: some Collection<UInt8>) -> [UInt8] {
    var frame: [UInt8] = []
    frame.reserveCapacity(headerSize + payload.count)
    frame.appendBig(type.rawValue)
    frame.appendBig(UInt32(payload.count))
    frame += payload
    return frame
  }

  /// Type and payload length of the frame that begins here; nil while the header is not whole.
  static func header(_ bytes: ArraySlice<UInt8>) -> (type: UInt32, length: Int)? {
    var reader = ByteReader(bytes)
    guard let type = reader.u32(), let length = reader.u32() else { return nil }
    return (type, Int(length))
  }
}

/// The header of a tagged frame. Both are optional.
package struct MessageTag: Equatable, Sendable {
  package var id: String?
  package var replyTo: String?

  package init(id: String? = nil, replyTo: String? = nil) {
    self.id = id
    self.replyTo = replyTo
  }

  /// Nil when it is none: unknown members are ignored, wrong ones are not.
  init?(_ json: ArraySlice<UInt8>) {
    guard let value = try? JSONValue(parsing: Array(json)), value.object != nil,
      let id = Self.text(value, "message_id"), let replyTo = Self.text(value, "reply_to")
    else { return nil }
    self.init(id: id.isEmpty ? nil : id, replyTo: replyTo.isEmpty ? nil : replyTo)
  }

  /// Empty when the member is not there, nil when it is malformed.
  private static func text(_ value: JSONValue, _ member: String) -> String? {
    guard let found = value[member] else { return "" }
    guard let text = found.text, text.utf8.count <= 128 else { return nil }
    let isPlain = text.utf8.allSatisfy { byte in
      UInt8(ascii: "0")...UInt8(ascii: "9") ~= byte || UInt8(ascii: "A")...UInt8(ascii: "Z") ~= byte
        || UInt8(ascii: "a")...UInt8(ascii: "z") ~= byte || "._:-".utf8.contains(byte)
    }
    return isPlain ? text : nil
  }
}

/// Names of files that a peer chose: nothing that leads out of the folder.
package enum FileName {
  package static func checked(_ bytes: ArraySlice<UInt8>) -> String? {
    guard (1...255).contains(bytes.count), bytes.allSatisfy({ $0 >= 0x20 && $0 != 0x7F }),
      let name = String(validating: bytes, as: UTF8.self), name != ".", name != "..", !name.contains("/"),
      !name.contains("\\")
    else { return nil }
    return name
  }
}
