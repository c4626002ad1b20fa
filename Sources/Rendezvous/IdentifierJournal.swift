// A text file beside the database with the ids that do not follow from their keys. Used by RegistryStore.

import Foundation
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
  private let handle: FileHandle

  init(path: String) throws(RendezvousError) {
    let descriptor = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else {
      throw RendezvousError(
        .stateUnusable, "cannot open \(path): \(String(cString: strerror(errno)))",
        hint: "give the state directory to the user that runs this program")
    }
    handle = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
    var contents = Contents()
    let data: Data
    do {
      data = try handle.readToEnd() ?? Data()
    } catch {
      throw RendezvousError(
        .stateUnusable, "cannot read \(path): \(error)",
        hint: "its permissions, and the disk; without it ids could be given twice")
    }
    for line in data.split(separator: UInt8(ascii: "\n")) {
      let parts = String(decoding: line, as: UTF8.self).split(separator: " ")
      guard parts.count == 2, let id = UInt32(parts[0]), let key = Cryptography.key(base64: String(parts[1])) else {
        continue
      }
      contents.enter(key, id)
    }
    // A torn last line must not swallow the next one.
    if let last = data.last, last != UInt8(ascii: "\n") { try? handle.write(contentsOf: Data("\n".utf8)) }
    self.contents = Mutex(contents)
  }

  var entries: [Bytes32: UInt32] { contents.withLock { $0.idByKey } }

  func append(_ key: Bytes32, id: UInt32) throws {
    try contents.withLock { contents in
      guard contents.idByKey[key] != id else { return }
      try handle.write(contentsOf: Data("\(id) \(Cryptography.base64(key))\n".utf8))
      contents.enter(key, id)
      contents.needsSynchronization = true
    }
  }

  func synchronize() throws {
    try contents.withLock { contents in
      guard contents.needsSynchronization else { return }
      try handle.synchronize()
      contents.needsSynchronization = false
    }
  }
}
