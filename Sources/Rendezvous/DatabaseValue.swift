// What the registry's tables hold, as SQLite takes and gives it. Used by Database.

import SQLite
import Wire

protocol DatabaseValue {
  /// Gives SQLite's result code.
  func bind(to statement: OpaquePointer, at index: Int32) -> Int32
  /// Nil for a column of another type or out of range.
  init?(_ statement: OpaquePointer, at index: Int32)
}

/// SQLite copies what is bound: the C macro SQLITE_TRANSIENT, which Swift cannot import.
nonisolated(unsafe) private let transient = unsafeBitCast(-1, to: sqlite3_destructor_type.self)

extension DatabaseValue where Self: FixedWidthInteger {
  func bind(to statement: OpaquePointer, at index: Int32) -> Int32 {
    sqlite3_bind_int64(statement, index, Int64(self))
  }

  init?(_ statement: OpaquePointer, at index: Int32) {
    guard sqlite3_column_type(statement, index) == SQLITE_INTEGER else { return nil }
    self.init(exactly: sqlite3_column_int64(statement, index))
  }
}

extension Int: DatabaseValue {}
extension Int64: DatabaseValue {}
extension UInt16: DatabaseValue {}
extension UInt32: DatabaseValue {}

extension Bool: DatabaseValue {
  func bind(to statement: OpaquePointer, at index: Int32) -> Int32 { (self ? 1 : 0).bind(to: statement, at: index) }

  init?(_ statement: OpaquePointer, at index: Int32) {
    guard let number = Int64(statement, at: index) else { return nil }
    self = number != 0
  }
}

extension String: DatabaseValue {
  func bind(to statement: OpaquePointer, at index: Int32) -> Int32 {
    sqlite3_bind_text(statement, index, self, Int32(clamping: utf8.count), transient)
  }

  init?(_ statement: OpaquePointer, at index: Int32) {
    guard sqlite3_column_type(statement, index) == SQLITE_TEXT, let start = sqlite3_column_text(statement, index) else {
      return nil
    }
    let count = Int(sqlite3_column_bytes(statement, index))
    self.init(decoding: UnsafeBufferPointer(start: start, count: count), as: UTF8.self)
  }
}

extension Bytes32: DatabaseValue {
  func bind(to statement: OpaquePointer, at index: Int32) -> Int32 {
    let bytes = bytes
    return sqlite3_bind_blob(statement, index, bytes, Int32(bytes.count), transient)
  }

  init?(_ statement: OpaquePointer, at index: Int32) {
    guard sqlite3_column_type(statement, index) == SQLITE_BLOB else { return nil }
    let count = Int(sqlite3_column_bytes(statement, index))
    self.init(UnsafeRawBufferPointer(start: sqlite3_column_blob(statement, index), count: count))
  }
}

/// Nil is NULL.
extension Optional: DatabaseValue where Wrapped: DatabaseValue {
  func bind(to statement: OpaquePointer, at index: Int32) -> Int32 {
    self?.bind(to: statement, at: index) ?? sqlite3_bind_null(statement, index)
  }

  init?(_ statement: OpaquePointer, at index: Int32) {
    if sqlite3_column_type(statement, index) == SQLITE_NULL {
      self = .none
    } else if let value = Wrapped(statement, at: index) {
      self = .some(value)
    } else {
      return nil
    }
  }
}
