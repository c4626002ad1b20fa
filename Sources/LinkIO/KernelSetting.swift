// Reading and writing /proc/sys. Used by LinkConfigurator.

import Shim

/// One value under /proc/sys, as the calling thread's network namespace has it.
struct KernelSetting {
  let path: String

  /// A per-interface IPv6 setting; `interface` was checked when the device was opened.
  static func ipv6(_ name: String, of interface: String) -> KernelSetting {
    KernelSetting(path: "/proc/sys/net/ipv6/conf/\(interface)/\(name)")
  }

  /// The value without its line end, or the negative error number.
  func read() -> (text: String, error: Int32) {
    var bytes = [UInt8](repeating: 0, count: 128)
    let count = bytes.withUnsafeMutableBytes { pt_file_read(path, $0.baseAddress, $0.count) }
    guard count >= 0 else { return ("", Int32(truncatingIfNeeded: count)) }
    return (String(decoding: bytes.prefix(Int(count)).prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self), 0)
  }

  /// 0 or the negative error number.
  func write(_ text: String) -> Int32 {
    let bytes = Array(text.utf8)
    return bytes.withUnsafeBytes { pt_file_write(path, $0.baseAddress, $0.count) }
  }
}
