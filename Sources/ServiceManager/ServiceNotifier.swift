// Tells the service manager how a program is doing, by the sd_notify protocol (sd_notify(3)): datagrams to the socket
// that NOTIFY_SOCKET names. Without one every call does nothing. Used by Node and by `pilot-rendezvous`.

internal import Shim

package struct ServiceNotifier: Sendable {
  private let path: String?
  /// How long the manager waits for a sign of life before it kills the program, in nanoseconds (`WatchdogSec=`); nil: it
  /// does not wait for one.
  package let watchdogLimit: UInt64?

  package init(environment: [String: String], process: Int32) {
    let path = environment["NOTIFY_SOCKET"] ?? ""
    // An absolute path, or `@name` for the abstract namespace; vsock is not for us.
    self.path = path.hasPrefix("/") || path.hasPrefix("@") ? path : nil
    watchdogLimit = self.path == nil ? nil : Self.watchdogLimit(environment, process: process)
  }

  /// WATCHDOG_USEC, unless WATCHDOG_PID names another process (sd_watchdog_enabled(3)).
  static func watchdogLimit(_ environment: [String: String], process: Int32) -> UInt64? {
    if let owner = environment["WATCHDOG_PID"], Int32(owner) != process { return nil }
    guard let text = environment["WATCHDOG_USEC"], let microseconds = UInt64(text), microseconds > 0,
      microseconds < UInt64.max / 1000
    else { return nil }
    return microseconds * 1000
  }

  /// Whether anybody listens.
  package var isManaged: Bool { path != nil }

  package func ready(_ status: String) { send("READY=1\nSTATUS=\(Self.flat(status))") }
  package func status(_ status: String) { send("STATUS=\(Self.flat(status))") }
  package func stopping(_ status: String = "stopping") { send("STOPPING=1\nSTATUS=\(Self.flat(status))") }
  /// For `Type=notify-reload`: from here to `ready` the manager waits. The time tells it that no older message is meant.
  package func reloading() { send("RELOADING=1\nMONOTONIC_USEC=\(pt_monotonic() / 1000)") }
  /// A sign of life.
  package func alive() { send("WATCHDOG=1") }

  /// The manager keeps a copy of the descriptor and gives it to the next start (`FileDescriptorStoreMax=`). One that it
  /// has already it does not take twice. It is not watched for hang-ups: the manager must not drop a TUN for one.
  package func keep(_ descriptor: Int32, as name: String) { send("FDSTORE=1\nFDPOLL=0\nFDNAME=\(name)", descriptor) }
  /// The manager forgets all descriptors of this name.
  package func forget(_ name: String) { send("FDSTOREREMOVE=1\nFDNAME=\(name)") }

  /// No text from outside may add a line, which would be a message of its own.
  static func flat(_ text: String) -> String { String(text.map { $0.isNewline ? " " : $0 }) }

  private func send(_ message: String, _ descriptor: Int32 = -1) {
    guard let path else { return }
    let bytes = Array(message.utf8)
    _ = pt_notify(path, bytes, bytes.count, descriptor)
  }
}
