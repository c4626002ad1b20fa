// Tries ports of a symmetric NAT whose other end opened many (PortOpener): punches to each, in no order, each port once.
// Pure; Node sends what it says from the worker's socket.

package import Wire

package struct PortSpray: Sendable {
  /// Ports tried at most.
  package static let most = 1024
  /// As many at once, and nanoseconds to the next: 800 a second.
  package static let burst = 16
  package static let gap: UInt64 = 20_000_000

  private let address: IPv6Address
  private let first: UInt32
  private let count: UInt32
  private let step: UInt32
  private var at: UInt32
  package private(set) var tried = 0

  /// `ports` that may be open; at least one.
  package init(address: IPv6Address, ports: ClosedRange<UInt16>, entropy: UInt64) {
    self.address = address
    first = UInt32(ports.lowerBound)
    count = UInt32(ports.upperBound) - first + 1
    at = UInt32(truncatingIfNeeded: entropy >> 32) % count
    // Coprime to the number of ports: it comes to each of them before it comes back to the first.
    var step = max(UInt32(truncatingIfNeeded: entropy) % count, 1)
    while Self.divisor(step, count) != 1 { step = step % count + 1 }
    self.step = step
  }

  /// The next endpoints to send to; empty when enough was tried.
  package mutating func next() -> [Endpoint] {
    let left = min(Self.most, Int(count)) - tried
    return (0..<max(0, min(left, Self.burst))).map { _ in
      defer {
        at = (at + step) % count
        tried += 1
      }
      return Endpoint(address: address, port: UInt16(first + at))
    }
  }

  private static func divisor(_ a: UInt32, _ b: UInt32) -> UInt32 { b == 0 ? a : divisor(b, a % b) }
}
