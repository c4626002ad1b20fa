// The second way to a registry, for networks that let its own port not through: TLS on TCP 443 (wire/registry §1.4).
// TunControl gives the way, RegistryClient takes it when the first one fails.

package import NIOCore

/// Dials the same registry otherwise.
package struct RegistryDetour: Sendable {
  /// Makes a connection that is ready to carry frames.
  package typealias Dial = @Sendable (any EventLoop) async throws -> any Channel

  package var dial: Dial
  /// The registry's own port is not tried.
  package var isOnly: Bool
  /// A dial of the registry's own port has this long for itself.
  package var headStart: Duration = .seconds(1)

  package init(isOnly: Bool, dial: @escaping Dial) {
    self.isOnly = isOnly
    self.dial = dial
  }
}

/// When the detour is tried: at once when it was what worked last, rarely when it never does. Pure.
struct DetourTiming {
  private static let firstRest = Duration.seconds(10)
  private static let longestRest = Duration.seconds(300)

  private var restUntil: ContinuousClock.Instant?
  private var rest = Self.firstRest
  /// The last connection went by the detour.
  private(set) var isPreferred = false

  /// Connections to the registry's own port in a row that ended without a word of it: a proxy or a firewall may answer
  /// there in its place.
  private var muteInARow = 0
  private var muteUntil: ContinuousClock.Instant?
  private static let mostMute = 2
  private static let muteLasts = Duration.seconds(600)

  /// Whether the registry's own port is left out.
  func isPlainMute(now: ContinuousClock.Instant) -> Bool { muteUntil.map { now < $0 } ?? false }

  /// A connection to the registry's own port ended before anything came.
  mutating func plainWasMute(now: ContinuousClock.Instant) {
    muteInARow += 1
    if muteInARow >= Self.mostMute { muteUntil = now + Self.muteLasts }
  }

  /// The registry said something on a connection to its own port.
  mutating func plainSpoke() { muteInARow = 0 }

  /// nil: not now.
  func headStart(_ detour: RegistryDetour?, now: ContinuousClock.Instant) -> Duration? {
    guard let detour else { return nil }
    if isPreferred || detour.isOnly || isPlainMute(now: now) { return .zero }
    if let restUntil, now < restUntil { return nil }
    return detour.headStart
  }

  mutating func connected(byDetour: Bool) {
    isPreferred = byDetour
    (restUntil, rest) = (nil, Self.firstRest)
  }

  /// Both ways failed.
  mutating func failed(now: ContinuousClock.Instant) {
    isPreferred = false
    (muteInARow, muteUntil) = (0, nil)
    restUntil = now + rest
    rest = min(rest * 2, Self.longestRest)
  }
}
