// Whole small files by plain system calls: configuration, pid and socket housekeeping. Errors keep their errno text.

import Glibc

/// Why a file could not be read or written.
package struct FileFailure: Error, Equatable {
  package var number: Int32
  package var call: String
  package var isMissing: Bool { number == ENOENT }
  package var reason: String { number == 0 ? call : "\(call): \(errorText(number))" }
}

/// The system's text for an errno. strerror of glibc 2.32 and later is safe on any thread for known numbers.
package func errorText(_ number: Int32) -> String {
  strerror(number).map { String(cString: $0) } ?? "error \(number)"
}

package enum SmallFile {
  /// Reads at most `limit` bytes; a longer file is a failure.
  package static func read(_ path: String, limit: Int = 1 << 20) throws(FileFailure) -> [UInt8] {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw FileFailure(number: errno, call: "open") }
    defer { close(descriptor) }
    var content: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 16 * 1024)
    while true {
      let count = Glibc.read(descriptor, &chunk, chunk.count)
      if count < 0 {
        if errno == EINTR { continue }
        throw FileFailure(number: errno, call: "read")
      }
      if count == 0 { return content }
      content += chunk[..<count]
      guard content.count <= limit else { throw FileFailure(number: 0, call: "longer than \(limit) bytes") }
    }
  }

  /// Replaces the file in one step: a reader sees the old or the new content.
  package static func write(_ content: [UInt8], to path: String, mode: UInt32 = 0o644) throws(FileFailure) {
    let temporary = path + ".\(getpid()).new"
    let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode)
    guard descriptor >= 0 else { throw FileFailure(number: errno, call: "open") }
    var rest = content[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
      if count < 0, errno == EINTR { continue }
      guard count > 0 else {
        let number = errno
        close(descriptor)
        unlink(temporary)
        throw FileFailure(number: number, call: "write")
      }
      rest = rest.dropFirst(count)
    }
    close(descriptor)
    guard rename(temporary, path) == 0 else { throw FileFailure(number: errno, call: "rename") }
  }

  /// Makes the directory and the ones above it; existing ones are left as they are.
  package static func makeDirectories(_ path: String, mode: UInt32 = 0o755) throws(FileFailure) {
    var prefix = ""
    for part in path.split(separator: "/") {
      prefix += (prefix.isEmpty && !path.hasPrefix("/") ? "" : "/") + part
      if mkdir(prefix, mode) != 0, errno != EEXIST {
        throw FileFailure(number: errno, call: "mkdir \(prefix)")
      }
    }
  }

  package static func directory(of path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }

  package static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }
}
