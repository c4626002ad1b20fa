// The registry's database: schema, migrations, reading everything at the start, applying changes. Used by
// RegistryService and its StoreWriter.

import Foundation
import GRDB
import Glibc
import Wire

/// SQLite in WAL mode with `synchronous=FULL`: a commit that returned survives a killed process and a power cut.
package final class RegistryStore: Sendable {
  private let database: DatabasePool
  private let journal: IdentifierJournal

  /// Opens or makes the database in `directory`, which exists.
  package init(directory: String) throws(RendezvousError) {
    let path = directory + "/rendezvous.sqlite"
    journal = try IdentifierJournal(path: directory + "/identifiers.txt")
    // Made before SQLite does, as the secrets of token networks are in it; the files beside it follow its mode.
    let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    if descriptor >= 0 { Glibc.close(descriptor) }
    do {
      var configuration = Configuration()
      configuration.label = "rendezvous"
      configuration.maximumReaderCount = 1
      configuration.busyMode = .timeout(5)
      database = try DatabasePool(path: path, configuration: configuration)
      // After opening: a pool chooses NORMAL for its writer, which a power cut can undo.
      try database.writeWithoutTransaction { try $0.execute(sql: "PRAGMA synchronous = FULL") }
      let migrator = RegistrySchema.migrator
      guard try !database.read(migrator.hasBeenSuperseded) else {
        throw RendezvousError(
          .stateTooNew, "\(path) was written by a newer release",
          hint: "run that release, or give this one another state directory")
      }
      try migrator.migrate(database)
    } catch let error as RendezvousError {
      throw error
    } catch {
      throw RendezvousError(
        .stateUnusable, "cannot open \(path): \(error)",
        hint: "check the owner of the directory and the free space; a damaged file can be moved away: "
          + "node ids follow from keys and come back")
    }
  }

  package func close() {
    // The pool closes its reader last, which may not merge the log: done here, while everything is open.
    try? database.writeWithoutTransaction { _ = try $0.checkpoint(.truncate) }
    try? database.close()
  }

  /// Keys whose ids do not follow from the key alone, see `IdentifierJournal`.
  var exceptions: [Bytes32: UInt32] { journal.entries }

  /// Commits all of `changes` or none. The journal goes first: an entry without its node does no harm.
  package func apply(_ changes: [StoreChange]) throws {
    for change in changes {
      if case .exceptionalKey(let key, let id) = change { try journal.append(key, id: id) }
    }
    try journal.synchronize()
    try database.write { database in
      for change in changes { try RegistrySchema.apply(change, to: database) }
    }
  }

  /// SQLite's number for the writer's setting: 2 is FULL.
  package var synchronousSetting: Int? {
    get throws { try database.writeWithoutTransaction { try Int.fetchOne($0, sql: "PRAGMA synchronous") } }
  }

  package func load() throws -> StoredState {
    try database.read { database in try RegistrySchema.load(database) }
  }
}
