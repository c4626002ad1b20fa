// Tells the service manager that the server is ready or stopping: sd_notify(3), a datagram to the socket that
// NOTIFY_SOCKET names. Used by serve.

import Glibc

enum ServiceManager {
  /// Does nothing without a service manager that wants to know.
  static func tell(_ message: String) {
    guard let variable = getenv("NOTIFY_SOCKET") else { return }
    var name = Array(String(cString: variable).utf8)
    var address = sockaddr_un()
    // A path, or `@name` for the abstract namespace.
    guard let first = name.first, first == UInt8(ascii: "/") || first == UInt8(ascii: "@"),
      name.count < MemoryLayout.size(ofValue: address.sun_path)
    else { return }
    let isAbstract = first == UInt8(ascii: "@")
    if isAbstract { name[0] = 0 }
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: name) }
    let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { return }
    defer { close(descriptor) }
    let length = socklen_t(MemoryLayout<sa_family_t>.size + name.count + (isAbstract ? 0 : 1))
    let bytes = Array(message.utf8)
    _ = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        sendto(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL), $0, length)
      }
    }
  }
}
