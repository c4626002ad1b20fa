// The one seam to AES-256-GCM. Control makes a context when a session is installed; the worker thread seals and
// opens with it and releases it when the session is retired.

public import Shim
public import Wire

/// A handle to the expanded key of one session, in locked memory (about 1 KB). Copying the value copies the handle:
/// exactly one owner calls `release()`, and nobody seals or opens after that.
///
/// The key serves both directions (wire/tunnel §3.3). Sealing and opening only read the context.
@frozen
public struct AEADContext: @unchecked Sendable {
  /// `PT_AEAD_CONTEXT_SIZE` bytes, 64-byte aligned; what `seal` and `open` take.
  public let raw: UnsafeMutableRawPointer

  /// Bytes of the tag behind the text.
  @inlinable
  public static var tagSize: Int { 16 }

  static let arena = LockedArena(slotSize: (Int(PT_AEAD_CONTEXT_SIZE) + 63) & ~63, slotsPerChunk: 16)

  /// Expands 32 key bytes. Nil when there is no memory. The caller wipes the key.
  init?(keyBytes: UnsafeRawPointer) {
    guard let slot = Self.arena.take() else { return nil }
    guard pt_aead_init(slot, keyBytes.assumingMemoryBound(to: UInt8.self)) == 0 else {
      Self.arena.give(slot)
      return nil
    }
    raw = slot
  }

  /// From a key that stands in plain memory: known keys of tests and benchmarks. Sessions come from `SessionKeys`.
  public init?(key: Bytes32) {
    guard let context = withUnsafeBytes(of: key.words, { AEADContext(keyBytes: $0.baseAddress!) }) else { return nil }
    self = context
  }

  /// The handle again, from the pointer that the worker keeps in a session's row.
  package init(raw: UnsafeMutableRawPointer) { self.raw = raw }

  /// Wipes the key and gives the memory back.
  public func release() {
    pt_aead_wipe(raw)
    Self.arena.give(raw)
  }

  /// Whether keys are locked in memory, with the reason when they are not.
  package static var memoryLock: MemoryLock {
    let secrets = LockedSecret.arena.lock
    return secrets.isLocked ? arena.lock : secrets
  }

  /// Contexts that are installed now.
  package static var inUse: Int { arena.used }

  /// Encrypts `length` bytes at `text` in place and writes the 16-byte tag behind them.
  ///
  /// - nonce: 12 bytes, never used before under this key.
  /// - Returns false only for lengths that AES-GCM cannot take; the text is then undefined.
  @inlinable
  public static func seal(
    _ context: UnsafeRawPointer, nonce: UnsafeRawPointer, associated: UnsafeRawPointer, associatedLength: Int,
    text: UnsafeMutableRawPointer, length: Int
  ) -> Bool {
    pt_aead_seal(
      context, nonce.assumingMemoryBound(to: UInt8.self), associated.assumingMemoryBound(to: UInt8.self),
      associatedLength, text.assumingMemoryBound(to: UInt8.self), length) == 0
  }

  /// Decrypts `length` bytes at `text` in place; the tag stands behind them. False: not authentic, text undefined.
  @inlinable
  public static func open(
    _ context: UnsafeRawPointer, nonce: UnsafeRawPointer, associated: UnsafeRawPointer, associatedLength: Int,
    text: UnsafeMutableRawPointer, length: Int
  ) -> Bool {
    pt_aead_open(
      context, nonce.assumingMemoryBound(to: UInt8.self), associated.assumingMemoryBound(to: UInt8.self),
      associatedLength, text.assumingMemoryBound(to: UInt8.self), length) == 0
  }
}
