// Which peers had a session, in a file in memory that the service manager keeps over a restart: the next run makes
// sessions with them at once, before either side misses a packet. Made by NodeProgram, written and read by Node.

import Shim
import Wire

/// Node ids, those in use most lately first.
///
///     "PTP1" | node (4 bytes, big-endian) ...
///
/// SAFETY: `Sendable` as one thread at a time uses the descriptor: NodeProgram at start, Node from then on.
struct RecentPeers: Sendable {
  /// A handshake costs both sides two signatures; more peers than these come back by their first packet.
  static let most = 256
  private static let magic: [UInt8] = Array("PTP1".utf8)

  /// Open as long as the process.
  let descriptor: Int32

  /// A file of an earlier run, or nil when it is none.
  init?(adopting descriptor: Int32) {
    guard Self.read(descriptor) != nil else { return nil }
    self.descriptor = descriptor
  }

  /// An empty one; nil when the kernel gives none, which costs nothing but time after a restart.
  init?() {
    let descriptor = pt_memory_file("pilot-tun-peers")
    guard descriptor >= 0 else { return nil }
    self.descriptor = descriptor
    write([])
  }

  func read() -> [UInt32] { Self.read(descriptor) ?? [] }

  /// What cannot be written is missed by the next run only.
  func write(_ nodes: [UInt32]) {
    let bytes = Self.encoded(nodes)
    _ = pt_memory_file_write(descriptor, bytes, bytes.count)
  }

  private static func read(_ descriptor: Int32) -> [UInt32]? {
    var bytes = [UInt8](repeating: 0, count: magic.count + 4 * most + 1)
    let count = pt_memory_file_read(descriptor, &bytes, bytes.count)
    return count < 0 ? nil : decoded(bytes.prefix(Int(count)))
  }

  static func encoded(_ nodes: [UInt32]) -> [UInt8] {
    var bytes = magic
    for node in nodes.prefix(most) { bytes += (0..<4).map { UInt8(truncatingIfNeeded: node >> (24 - 8 * $0)) } }
    return bytes
  }

  /// nil for anything that was not written by `encoded`.
  static func decoded(_ bytes: ArraySlice<UInt8>) -> [UInt32]? {
    guard bytes.starts(with: magic) else { return nil }
    let rest = bytes.dropFirst(magic.count)
    guard rest.count % 4 == 0, rest.count <= 4 * most else { return nil }
    var nodes: [UInt32] = []
    for start in stride(from: rest.startIndex, to: rest.endIndex, by: 4) {
      let node = rest[start..<start + 4].reduce(0) { $0 << 8 | UInt32($1) }
      guard node != 0, node != PilotAddress.broadcastNode, !nodes.contains(node) else { return nil }
      nodes.append(node)
    }
    return nodes
  }
}
