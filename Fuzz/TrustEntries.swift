// The codec of trust messages (wire/tunnel §7.1). CorpusTests replays the corpus and seeded mutations of it.

import Directory
import JSON

enum TrustEntry {
  static let corpus = "trustmessage"

  /// Runs the codec. nil: it held what it promises; else the promise that was broken.
  static func violation(_ bytes: [UInt8]) -> String? {
    let value = (try? JSONValue(parsing: bytes)) ?? .null
    let message: TrustMessage
    do {
      message = try TrustMessage(parsing: bytes)
    } catch {
      guard error == .unknownKind else { return nil }
      let type = value["type"]?.text
      return type.map { TrustMessage.Kind(rawValue: $0) == nil } == true ? nil : "a known kind is called unknown"
    }
    guard bytes.count <= TrustMessage.longest else { return "longer than a segment" }
    guard value["type"]?.text == message.kind.rawValue, value["node_id"] == .integer(Int64(message.node)),
      value["timestamp"] == .integer(message.timestamp), message.node != 0, message.node != .max
    else { return "a field that is not there, or another" }
    for name in ["public_key", "justification", "signature", "reason"] {
      switch value[name] {
      case nil, .null, .text: break
      default: return "\(name) of another type"
      }
    }
    return writing(message)
  }

  /// What is written fits, and is read as what it was but for what had to be cut.
  private static func writing(_ message: TrustMessage) -> String? {
    let written = message.encoded
    guard written.count <= TrustMessage.longest else { return "what is written does not fit" }
    guard let again = try? TrustMessage(parsing: written) else { return "what was written is not read" }
    guard again.encoded == written else { return "writing is not stable" }
    var uncut = again
    (uncut.justification, uncut.reason) = (message.justification, message.reason)
    guard uncut == message else { return "writing changes a field" }
    let pairs = [(again.justification, message.justification), (again.reason, message.reason)]
    guard pairs.allSatisfy({ Array($0.1.utf8).starts(with: Array($0.0.utf8)) }) else { return "a text is changed" }
    return nil
  }
}
