// The registry's database: schema, migrations, reading everything at the start, applying changes. Used by
// RegistryService and its StoreWriter.

import Glibc
import Synchronization
import Wire

/// SQLite in WAL mode with `synchronous=FULL`: a commit that returned survives a killed process and a power cut.
package final class RegistryStore: Sendable {
  private let database: Mutex<Database>
  private let journal: IdentifierJournal

  /// Opens or makes the database in `directory`, which exists.
  package init(directory: String) throws(RendezvousError) {
    let path = directory + "/rendezvous.sqlite"
    journal = try IdentifierJournal(path: directory + "/identifiers.txt")
    // Made before SQLite does, as the secrets of token networks are in it; the files beside it follow its mode.
    let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    if descriptor >= 0 { Glibc.close(descriptor) }
    let database: Database
    let isTooNew: Bool
    do throws(DatabaseError) {
      database = try Database(path: path)
      isTooNew = try !RegistrySchema.migrate(database)
    } catch {
      throw RendezvousError(
        .stateUnusable, "cannot open \(path): \(error)",
        hint: "check the owner of the directory and the free space; a damaged file can be moved away: "
          + "node ids follow from keys and come back")
    }
    guard !isTooNew else {
      throw RendezvousError(
        .stateTooNew, "\(path) was written by a newer release",
        hint: "run that release, or give this one another state directory")
    }
    self.database = Mutex(database)
  }

  package func close() {
    database.withLock { database in
      // Merges the log, so that one file is left.
      try? database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
      database.close()
    }
  }

  /// Keys whose ids do not follow from the key alone, see `IdentifierJournal`.
  var exceptions: [Bytes32: UInt32] { journal.entries }

  /// Commits all of `changes` or none. The journal goes first: an entry without its node does no harm.
  package func apply(_ changes: [StoreChange]) throws {
    for change in changes {
      if case .exceptionalKey(let key, let id) = change { try journal.append(key, id: id) }
    }
    try journal.synchronize()
    try database.withLock { database in
      try database.transaction { () throws(DatabaseError) in
        for change in changes { try RegistrySchema.apply(change, to: database) }
      }
    }
  }

  /// SQLite's number for the writer's setting: 2 is FULL.
  package var synchronousSetting: Int? {
    get throws {
      try database.withLock { database in
        try database.rows("PRAGMA synchronous") { row throws(UnreadableColumn) -> Int in try row[0] }.first
      }
    }
  }

  package func load() throws -> StoredState {
    try database.withLock { database in try RegistrySchema.load(database) }
  }
}
