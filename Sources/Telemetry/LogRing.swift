// The last lines of the log, kept in memory for `pilot-tun bugreport`. Pure; LogOutput owns one.

package struct LogRing {
  package static let lineLimit = 2000
  package static let byteLimit = 512 * 1024

  private var lines: [String] = []
  private var first = 0
  private var bytes = 0

  package init() {}

  package mutating func append(_ line: String) {
    // No line may push out all others.
    let line = line.utf8.count > 8192 ? String(decoding: line.utf8.prefix(8192), as: UTF8.self) + "…" : line
    lines.append(line)
    bytes += line.utf8.count
    while lines.count - first > Self.lineLimit || bytes > Self.byteLimit {
      bytes -= lines[first].utf8.count
      lines[first] = ""
      first += 1
    }
    if first >= Self.lineLimit {
      lines.removeFirst(first)
      first = 0
    }
  }

  /// Oldest first.
  package var all: ArraySlice<String> { lines[first...] }
}
