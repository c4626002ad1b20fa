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

  /// nil: not now.
  func headStart(_ detour: RegistryDetour?, now: ContinuousClock.Instant) -> Duration? {
    guard let detour else { return nil }
    if isPreferred || detour.isOnly { return .zero }
    if let restUntil, now < restUntil { return nil }
    return detour.headStart
  }

  mutating func connected(byDetour: Bool) { self = Self(isPreferred: byDetour) }

  /// Both ways failed.
  mutating func failed(now: ContinuousClock.Instant) {
    isPreferred = false
    restUntil = now + rest
    rest = min(rest * 2, Self.longestRest)
  }

  init() {}
  private init(isPreferred: Bool) { self.isPreferred = isPreferred }
}
