// Refuses counters that were seen or are too old. The worker keeps one per session, in raw memory rows.

/// An anti-replay window after RFC 6479: a ring of 64 words, of which the newest may be half filled, so the window is
/// 63 words = 4032 counters wide (official daemons: 256, wire/tunnel §3.11).
///
/// - All-zero bytes are a fresh window. 520 bytes, no pointer, no destructor.
/// - Counter 0 is an ordinary value; a jump to 2^64-1 is accepted, after which nothing older than the window passes.
/// - Check with `accepts`, open the frame, and only then `record`: a forged frame never moves the window.
@frozen
public struct ReplayWindow: Sendable {
  /// Largest counter recorded; 0 in a fresh window.
  public var highest: UInt64
  @usableFromInline var ring: InlineArray<64, UInt64>

  /// How far below the highest counter an unused one is still accepted.
  @inlinable
  public static var width: UInt64 { 63 * 64 }

  @inlinable
  public init() {
    highest = 0
    ring = InlineArray(repeating: 0)
  }

  /// Whether the counter is new and inside the window. Changes nothing.
  @inlinable
  public func accepts(_ counter: UInt64) -> Bool {
    if counter > highest { return true }
    if highest &- counter >= Self.width { return false }
    return ring[Int(truncatingIfNeeded: counter >> 6 & 63)] & (1 &<< (counter & 63)) == 0
  }

  /// Marks an accepted counter as used. A counter that `accepts` refuses for its age is ignored.
  @inlinable
  public mutating func record(_ counter: UInt64) {
    let block = counter >> 6
    if counter > highest {
      // Clears the words the window newly enters; at most the whole ring, whatever the jump.
      let newest = highest >> 6
      var steps = min(block &- newest, 64)
      var word = block
      while steps > 0 {
        ring[Int(truncatingIfNeeded: word & 63)] = 0
        word &-= 1
        steps &-= 1
      }
      highest = counter
    } else if highest &- counter >= Self.width {
      return
    }
    ring[Int(truncatingIfNeeded: block & 63)] |= 1 &<< (counter & 63)
  }
}
