// One connection to an SQLite database: statements, transactions, rows. Used by RegistryStore and RegistrySchema.

import SQLite
import Wire

/// What SQLite said, with its result code (https://www.sqlite.org/rescode.html).
struct DatabaseError: Error, CustomStringConvertible {
  var code: Int32
  var message: String

  var description: String { "SQLite error \(code): \(message)" }
}

/// Statements are prepared once and kept. Not for several threads at a time.
final class Database {
  /// How long a lock of another process is waited for.
  private static let busyTimeoutInMilliseconds: Int32 = 5000

  /// Nil when closed.
  private var connection: OpaquePointer?
  private var statements: [String: OpaquePointer] = [:]

  /// Opens the file, or makes it, in WAL mode with `synchronous=FULL`.
  init(path: String) throws(DatabaseError) {
    let flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX
    try check(sqlite3_open_v2(path, &connection, flags, nil))
    sqlite3_busy_timeout(connection, Self.busyTimeoutInMilliseconds)
    // Gives the mode that holds, which is another where the file system cannot do it.
    guard try rows("PRAGMA journal_mode = WAL", { row throws(UnreadableColumn) -> String in try row[0] }) == ["wal"]
    else {
      throw DatabaseError(code: SQLITE_ERROR, message: "the file system does not allow WAL mode")
    }
    try execute("PRAGMA synchronous = FULL")
  }

  deinit { close() }

  func close() {
    for statement in statements.values { sqlite3_finalize(statement) }
    statements = [:]
    sqlite3_close_v2(connection)
    connection = nil
  }

  /// Statements without arguments, one after the other.
  func execute(_ sql: String) throws(DatabaseError) {
    guard connection != nil else { throw Self.closed }
    try check(sqlite3_exec(connection, sql, nil, nil, nil))
  }

  func run(_ sql: String, _ arguments: [any DatabaseValue]) throws(DatabaseError) {
    let statement = try prepared(sql)
    defer { Self.finish(statement) }
    for (index, argument) in arguments.enumerated() {
      try check(argument.bind(to: statement, at: Int32(index + 1)))
    }
    let result = sqlite3_step(statement)
    if result != SQLITE_DONE, result != SQLITE_ROW { try check(result) }
  }

  /// What `read` makes of the rows, without those that it cannot read or makes nothing of.
  func rows<Result>(
    _ sql: String, _ read: (DatabaseRow) throws(UnreadableColumn) -> Result?
  ) throws(DatabaseError) -> [Result] {
    let statement = try prepared(sql)
    defer { Self.finish(statement) }
    let row = DatabaseRow(statement)
    var results: [Result] = []
    while true {
      switch sqlite3_step(statement) {
      case SQLITE_ROW: if let result = try? read(row) { results.append(result) }
      case SQLITE_DONE: return results
      case let result: try check(result)
      }
    }
  }

  /// All that `body` does, or nothing.
  func transaction(_ body: () throws(DatabaseError) -> Void) throws(DatabaseError) {
    try execute("BEGIN IMMEDIATE")
    do {
      try body()
      try execute("COMMIT")
    } catch {
      // SQLite has rolled back by itself after some errors.
      if sqlite3_get_autocommit(connection) == 0 { try? execute("ROLLBACK") }
      throw error
    }
  }

  private static let closed = DatabaseError(code: SQLITE_MISUSE, message: "the database is closed")

  private func prepared(_ sql: String) throws(DatabaseError) -> OpaquePointer {
    if let statement = statements[sql] { return statement }
    guard connection != nil else { throw Self.closed }
    var statement: OpaquePointer?
    try check(sqlite3_prepare_v3(connection, sql, -1, UInt32(SQLITE_PREPARE_PERSISTENT), &statement, nil))
    guard let statement else { throw DatabaseError(code: SQLITE_MISUSE, message: "no statement") }
    statements[sql] = statement
    return statement
  }

  private static func finish(_ statement: OpaquePointer) {
    sqlite3_reset(statement)
    sqlite3_clear_bindings(statement)
  }

  private func check(_ result: Int32) throws(DatabaseError) {
    guard result != SQLITE_OK else { return }
    throw DatabaseError(code: result, message: String(cString: sqlite3_errmsg(connection)))
  }
}

/// A column that is missing, of another type, or out of range.
struct UnreadableColumn: Error {}

/// The row that a statement stands on. Not to be kept.
struct DatabaseRow {
  private let statement: OpaquePointer
  private let indices: [String: Int32]

  init(_ statement: OpaquePointer) {
    self.statement = statement
    let names = (0..<sqlite3_column_count(statement)).compactMap { index in
      sqlite3_column_name(statement, index).map { (String(cString: $0), index) }
    }
    indices = Dictionary(names) { first, _ in first }
  }

  subscript<Value: DatabaseValue>(_ name: String) -> Value {
    get throws(UnreadableColumn) {
      guard let index = indices[name] else { throw UnreadableColumn() }
      return try self[index]
    }
  }

  /// By place, from 0.
  subscript<Value: DatabaseValue>(_ index: Int32) -> Value {
    get throws(UnreadableColumn) {
      guard let value = Value(statement, at: index) else { throw UnreadableColumn() }
      return value
    }
  }
}
