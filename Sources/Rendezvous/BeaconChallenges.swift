// What a beacon asks a node to sign, without remembering whom it asked. Used by Beacon.

import Shim
import Wire

/// Challenges follow from the node, the endpoint it asked from, the half minute and a secret: nobody else can know them,
/// and what comes back from another endpoint, or later, is none.
struct BeaconChallenges: Sendable {
  private let secret: [UInt8]
  /// Milliseconds. One of this slot and one of the slot before are taken.
  private static let slot: Int64 = 30_000

  init() {
    var secret = [UInt8](repeating: 0, count: 32)
    let result = secret.withUnsafeMutableBufferPointer { pt_random($0.baseAddress!, $0.count) }
    precondition(result == 0, "the kernel gives no random bytes")
    self.secret = secret
  }

  func make(_ node: UInt32, _ source: Endpoint, now: Int64) -> UInt64 { make(node, source, slot: now / Self.slot) }

  func holds(_ challenge: UInt64, for node: UInt32, _ source: Endpoint, now: Int64) -> Bool {
    let slot = now / Self.slot
    return challenge == make(node, source, slot: slot) || challenge == make(node, source, slot: slot - 1)
  }

  /// All parts have a fixed length, the secret comes first, and a quarter of the hash leaves: as good as a MAC.
  private func make(_ node: UInt32, _ source: Endpoint, slot: Int64) -> UInt64 {
    var text = secret
    text.appendBig(node)
    text += source.address.bytes
    text.appendBig(source.port)
    text.appendBig(slot)
    return Cryptography.sha256(text).prefix(8).reduce(0) { $0 << 8 | UInt64($1) }
  }
}
