// The other end of trust messages in tests: a peer that signs what it likes and notes what it is told.

import Glibc
import Session
import Synchronization
import Testing
import Wire

@testable import Directory

/// A peer of one node. What the node sends it goes to `heard`.
final class TrustPeer: Sendable {
  let node: UInt32
  let identity = Identity.generate()
  let heard = Watch<TrustMessage>()
  private let isReachable = Mutex(true)
  /// So that no two messages are of the same second.
  private let clock = Mutex(Int64(time(nil)) - 60)

  init(_ node: UInt32) { self.node = node }

  /// Whether the node's messages arrive.
  func setReachable(_ new: Bool) { isReachable.withLock { $0 = new } }

  /// Becomes the only one whom the node's messages reach.
  func connect(to directory: Directory) async {
    await directory.setTrustMessenger { [self] node, bytes in
      guard node == self.node, isReachable.withLock({ $0 }) else { return false }
      guard let message = try? TrustMessage(parsing: bytes) else {
        Issue.record("the node sends what cannot be read")
        return false
      }
      heard.add(message)
      return true
    }
  }

  func message(
    _ kind: TrustMessage.Kind, to directory: Directory, at time: Int64? = nil, justification: String = "",
    reason: String = ""
  ) async -> [UInt8] {
    let receiver = await directory.node ?? 0
    let timestamp = clock.withLock { clock in
      clock += 1
      return time ?? clock
    }
    return TrustMessage(
      kind: kind, node: node, publicKey: identity.publicKey, justification: justification,
      signature: identity.sign(TrustMessage.signedText(from: node, to: receiver)), reason: reason,
      timestamp: timestamp
    ).encoded
  }

  /// Says it to the node; its refusal.
  @discardableResult
  func say(
    _ kind: TrustMessage.Kind, to directory: Directory, at time: Int64? = nil, justification: String = "",
    reason: String = ""
  ) async -> TrustRefusal? {
    let bytes = await message(kind, to: directory, at: time, justification: justification, reason: reason)
    return await directory.receiveTrustMessage(bytes, from: TrustSender(node: node, key: identity.publicKey))
  }

  func count(_ kind: TrustMessage.Kind) -> Int { heard.all.filter { $0.kind == kind }.count }

  @discardableResult
  func hears(_ kind: TrustMessage.Kind, number: Int = 1) async -> TrustMessage? {
    let seen = Mutex(0)
    return await heard.first { message in
      message.kind == kind
        && seen.withLock { seen in
          seen += 1
          return seen == number
        }
    }
  }
}
