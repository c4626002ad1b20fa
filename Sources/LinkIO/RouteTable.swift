// What routes this network namespace has, as /proc tells. Used by LinkConfigurator.

import Shim
import Wire

/// `/proc/thread-self/net/ipv6_route`: one route a line, prefix and length in hex first, the device's name last.
enum RouteTable {
  /// Whether `device` carries a route to exactly this prefix.
  static func hasRoute(_ prefix: IPv6Address, _ length: UInt32, _ device: String) -> Bool {
    lists(text(), prefix, length, device)
  }

  /// The same question to a given text.
  static func lists(_ text: String, _ prefix: IPv6Address, _ length: UInt32, _ device: String) -> Bool {
    let start = hex(UInt64(prefix.high), 16) + hex(prefix.low, 16) + " " + hex(UInt64(length), 2) + " "
    return text.split(separator: "\n").contains { line in
      line.hasPrefix(start) && line.split(separator: " ").last.map(String.init) == device
    }
  }

  private static func hex(_ value: UInt64, _ digits: Int) -> String {
    let text = String(value, radix: 16)
    return String(repeating: "0", count: max(0, digits - text.count)) + text
  }

  private static func text() -> String {
    var bytes = [UInt8](repeating: 0, count: 1 << 20)
    let count = bytes.withUnsafeMutableBytes {
      pt_file_read("/proc/thread-self/net/ipv6_route", $0.baseAddress, $0.count)
    }
    return count > 0 ? String(decoding: bytes.prefix(Int(count)), as: UTF8.self) : ""
  }
}
