// Tells the service manager how the node is doing, by the sd_notify protocol (sd_notify(3)): a datagram to the socket
// that NOTIFY_SOCKET names. Without one every call does nothing. Used by Node and by `pilot-rendezvous`.

import Glibc

package struct ServiceNotifier: Sendable {
  private let path: String?

  package init(environment: [String: String]) {
    let path = environment["NOTIFY_SOCKET"] ?? ""
    // An absolute path, or `@name` for the abstract namespace; vsock is not for us.
    self.path = path.hasPrefix("/") || path.hasPrefix("@") ? path : nil
  }

  package func ready(_ status: String) { send("READY=1\nSTATUS=\(Self.flat(status))") }
  package func status(_ status: String) { send("STATUS=\(Self.flat(status))") }
  package func stopping() { send("STOPPING=1\nSTATUS=stopping") }
  /// For `Type=notify-reload`: between these two the manager waits.
  package func reloading() { send("RELOADING=1\nMONOTONIC_USEC=\(Clock.now() / 1000)") }

  private static func flat(_ text: String) -> String { String(text.map { $0.isNewline ? " " : $0 }) }

  private func send(_ message: String) {
    guard let path else { return }
    var address = sockaddr_un()
    var name = Array(path.utf8)
    if name[0] == UInt8(ascii: "@") { name[0] = 0 }
    guard name.count < MemoryLayout.size(ofValue: address.sun_path) else { return }
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: name) }
    let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { return }
    defer { close(descriptor) }
    let length = socklen_t(MemoryLayout<sa_family_t>.size + name.count + (name[0] == 0 ? 0 : 1))
    let bytes = Array(message.utf8)
    _ = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        sendto(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT), $0, length)
      }
    }
  }
}

/// The monotonic clock of the pure machines and of the worker's statistics.
package enum Clock {
  /// Nanoseconds of CLOCK_MONOTONIC.
  package static func now() -> UInt64 { read(CLOCK_MONOTONIC) }

  /// Nanoseconds since 1970.
  package static func wall() -> UInt64 { read(CLOCK_REALTIME) }

  /// Nanoseconds that the machine slept since it booted: how far the boot-time clock is ahead of the monotonic one.
  package static func sleep() -> UInt64 {
    // In this order, and the later one is never behind.
    let awake = read(CLOCK_MONOTONIC)
    return read(CLOCK_BOOTTIME) - awake
  }

  private static func read(_ clock: clockid_t) -> UInt64 {
    var now = timespec()
    clock_gettime(clock, &now)
    return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
  }
}
