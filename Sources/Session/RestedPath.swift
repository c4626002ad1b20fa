// Which frames leave twice after a rest: the worker asks for each packet (every PeerRow has one), the simulator's peers, too.

/// A direct path that was quiet for a while may be dead without anybody's knowledge: NATs forget. So that the first packet
/// does not find that out by being lost, the first frames go directly and, the same frames, through the relay; the
/// replay window of the receiver drops what comes second. The first sign of life on the path ends it. Times are
/// monotonic nanoseconds.
///
/// All-zero bytes are a fresh one: nothing leaves twice.
@frozen
public struct RestedPath: Sendable {
  /// When the first packet after the rest left.
  @usableFromInline var since: UInt64 = 0
  /// Frames that may still leave twice.
  public private(set) var left: UInt8 = 0

  @inlinable
  public init() {}

  /// A path that nothing came by for this long has rested.
  public static let rest: UInt64 = 20_000_000_000
  /// By then the path has answered, or was left.
  @usableFromInline static let lasts: UInt64 = 2_000_000_000
  /// A first flight of TCP (RFC 6928), three times over.
  public static let most: UInt8 = 32

  /// The first packet after a second without any is about to leave. `lastOnPath`: the last authenticated frame that came
  /// by the path; 0: none yet, then the handshake has just found it.
  public mutating func resume(now: UInt64, lastOnPath: UInt64) {
    guard lastOnPath != 0, now > lastOnPath &+ Self.rest else { return }
    since = now
    left = Self.most
  }

  /// Whether the frame at hand leaves through the relay as well.
  public mutating func takesFrame(now: UInt64, lastOnPath: UInt64) -> Bool {
    guard left > 0, lastOnPath < since, now < since &+ Self.lasts else {
      left = 0
      return false
    }
    left &-= 1
    return true
  }
}
