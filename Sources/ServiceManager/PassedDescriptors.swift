// Descriptors that the service manager kept from the last run and passes to this one (sd_listen_fds(3), the
// descriptor store). Read once at start by NodeProgram, before anything else opens files.

internal import Shim

/// What was passed, by name. Whoever takes one owns it and checks what it is. What nobody takes stays as it is: the
/// variables may be mistaken, and the number another one's.
package struct PassedDescriptors: Sendable {
  /// The first one; the others follow (SD_LISTEN_FDS_START).
  static let first: Int32 = 3
  /// More than any store of ours holds.
  static let most = 64

  private var descriptors: [(name: String, descriptor: Int32)]

  /// Reads LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES. Only what is meant for this process counts, and of that only what
  /// is open.
  package init(environment: [String: String], process: Int32) {
    descriptors = Self.named(environment, process: process).filter { pt_fd_take($0.descriptor) == 0 }
  }

  /// The pairs that the variables tell. One without a name is called `unknown`, as systemd does.
  static func named(_ environment: [String: String], process: Int32) -> [(name: String, descriptor: Int32)] {
    guard let owner = environment["LISTEN_PID"], Int32(owner) == process,
      let count = environment["LISTEN_FDS"].flatMap({ Int($0) }), (1...most).contains(count)
    else { return [] }
    let names = (environment["LISTEN_FDNAMES"] ?? "").split(separator: ":", omittingEmptySubsequences: false)
    return (0..<count).map { place in
      (place < names.count && !names[place].isEmpty ? String(names[place]) : "unknown", first + Int32(place))
    }
  }

  /// The descriptor of this name, which is the caller's from now on; nil when there is none. Several come in
  /// their order.
  package mutating func take(_ name: String) -> Int32? {
    guard let place = descriptors.firstIndex(where: { $0.name == name }) else { return nil }
    return descriptors.remove(at: place).descriptor
  }

  /// Names of what was not taken.
  package var left: [String] { descriptors.map(\.name) }
}
