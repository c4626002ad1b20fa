// A text file beside the database with the ids that do not follow from their keys. Used by RegistryStore.

import Glibc
import Synchronization
import Wire

/// After a collision of derived ids, or a change of key, a node's id can no longer be computed from its key. Those
/// few pairs are kept here as well as in the database, so that losing the database swaps no two nodes.
///
/// One line per pair: `ID BASE64KEY`. A later line for the same id or key replaces an earlier one; a line that is
/// not whole is ignored.
final class IdentifierJournal: Sendable {
  private struct Contents {
    var idByKey: [Bytes32: UInt32] = [:]
    var keyByID: [UInt32: Bytes32] = [:]
    var needsSynchronization = false

    mutating func enter(_ key: Bytes32, _ id: UInt32) {
      if let old = keyByID[id] { idByKey[old] = nil }
      if let old = idByKey[key] { keyByID[old] = nil }
      idByKey[key] = id
      keyByID[id] = key
    }
  }

  private let contents: Mutex<Contents>
  private let descriptor: Int32

  init(path: String) throws(RendezvousError) {
    descriptor = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else {
      throw RendezvousError(
        .stateUnusable, "cannot open \(path): \(String(cString: strerror(errno)))",
        hint: "give the state directory to the user that runs this program")
    }
    var contents = Contents()
    var data: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 16 * 1024)
    while true {
      let count = read(descriptor, &chunk, chunk.count)
      if count == 0 { break }
      if count < 0, errno == EINTR { continue }
      guard count > 0 else {
        let cause = String(cString: strerror(errno))
        close(descriptor)
        throw RendezvousError(
          .stateUnusable, "cannot read \(path): \(cause)",
          hint: "its permissions, and the disk; without it ids could be given twice")
      }
      data += chunk[..<count]
    }
    for line in data.split(separator: UInt8(ascii: "\n")) {
      let parts = String(decoding: line, as: UTF8.self).split(separator: " ")
      guard parts.count == 2, let id = UInt32(parts[0]), let key = Cryptography.key(base64: String(parts[1])) else {
        continue
      }
      contents.enter(key, id)
    }
    // A torn last line must not swallow the next one.
    if let last = data.last, last != UInt8(ascii: "\n") { try? Self.append("\n", to: descriptor) }
    self.contents = Mutex(contents)
  }

  deinit { close(descriptor) }

  var entries: [Bytes32: UInt32] { contents.withLock { $0.idByKey } }

  func append(_ key: Bytes32, id: UInt32) throws {
    try contents.withLock { contents in
      guard contents.idByKey[key] != id else { return }
      try Self.append("\(id) \(Cryptography.base64(key))\n", to: descriptor)
      contents.enter(key, id)
      contents.needsSynchronization = true
    }
  }

  func synchronize() throws {
    try contents.withLock { contents in
      guard contents.needsSynchronization else { return }
      guard fsync(descriptor) == 0 else { throw JournalFailure(call: "fsync", number: errno) }
      contents.needsSynchronization = false
    }
  }

  private static func append(_ text: String, to descriptor: Int32) throws(JournalFailure) {
    let start = lseek(descriptor, 0, SEEK_END)
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
      if count < 0, errno == EINTR { continue }
      guard count > 0 else {
        let failure = JournalFailure(call: "write", number: errno)
        // Half a line would swallow the next one.
        if start >= 0 { ftruncate(descriptor, start) }
        throw failure
      }
      rest = rest.dropFirst(count)
    }
  }
}

/// The disk did not take a line: what is to be committed with it is refused.
private struct JournalFailure: Error, CustomStringConvertible {
  var call: String
  var number: Int32

  var description: String { "identifiers.txt: \(call): \(String(cString: strerror(number)))" }
}
