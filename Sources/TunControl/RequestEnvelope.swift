// Signed requests between agents (wire/ipc §7.7): the node says with its key who asks, when, whom and what. Pure.

import Directory
import Session
import Shim
import Wire

/// `pilot-req-v1|NNNNHHHHHHHH|unixtime|nonce|sha256hex|audience`
struct RequestEnvelope: Equatable {
  static let version = "pilot-req-v1"
  /// How far the clocks of two nodes may be apart when nothing else is asked for, seconds.
  static let skew: Int64 = 300

  var sender: PilotAddress
  /// Unix seconds.
  var time: Int64
  /// 16 hexadecimal digits.
  var nonce: String
  /// 64 hexadecimal digits.
  var bodyHash: String
  var audience: String

  var text: String {
    let network = Self.digits(UInt64(sender.network), 4)
    return [Self.version, network + Self.digits(UInt64(sender.node), 8), "\(time)", nonce, bodyHash, audience]
      .joined(separator: "|")
  }

  init?(sender: PilotAddress, time: Int64, nonce: String, bodyHash: String, audience: String) {
    guard Self.isHexadecimal(nonce, 16), Self.isHexadecimal(bodyHash, 64), Self.isAudience(audience) else { return nil }
    self.sender = sender
    self.time = time
    self.nonce = nonce
    self.bodyHash = bodyHash
    self.audience = audience
  }

  /// Reads exactly the text that `text` gives; anything else is no envelope.
  init?(_ text: String) {
    let fields = text.split(separator: "|", omittingEmptySubsequences: false).map(String.init)
    guard text.utf8.count <= 512, fields.count == 6, fields[0] == Self.version, Self.isHexadecimal(fields[1], 12),
      let network = UInt16(fields[1].prefix(4), radix: 16), let node = UInt32(fields[1].dropFirst(4), radix: 16),
      let time = Int64(fields[2])
    else { return nil }
    self.init(
      sender: PilotAddress(network: network, node: node), time: time, nonce: fields[3], bodyHash: fields[4],
      audience: fields[5])
    guard self.text == text else { return nil }
  }

  static func isAudience(_ text: String) -> Bool {
    (1...64).contains(text.utf8.count)
      && text.utf8.allSatisfy {
        switch $0 {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."),
          UInt8(ascii: "-"):
          true
        default: false
        }
      }
  }

  /// Lower case, that many digits.
  static func isHexadecimal(_ text: String, _ count: Int) -> Bool {
    text.utf8.count == count
      && text.utf8.allSatisfy {
        switch $0 {
        case UInt8(ascii: "a")...UInt8(ascii: "f"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
        default: false
        }
      }
  }

  static func digits(_ value: UInt64, _ count: Int) -> String {
    let text = String(value, radix: 16)
    return String(repeating: "0", count: max(0, count - text.count)) + text
  }

  /// SHA-256 in hexadecimal.
  static func hash(_ bytes: [UInt8]) -> String {
    var digest = [UInt8](repeating: 0, count: 32)
    pt_sha256(bytes, bytes.count, &digest)
    return digest.map { digits(UInt64($0), 2) }.joined()
  }

  /// Why the envelope is not to be believed; nil: it is the sender's and of this time.
  func fault(signature: String, key: Bytes32, now: Int64, skew: Int64) -> String? {
    let (apart, isFar) = now.subtractingReportingOverflow(time)
    guard !isFar, apart.magnitude <= UInt64(max(0, skew)) else { return "the envelope is of another time" }
    guard let bytes = Base64.decode(signature), let signature = Bytes64(bytes),
      Ed25519.verify(signature, of: Array(text.utf8), by: key)
    else { return "the signature is not the sender's" }
    return nil
  }
}
