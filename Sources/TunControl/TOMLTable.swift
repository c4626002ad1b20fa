// A TOML text as a flat table. Used by ConfigurationFile.

import TOMLReader

enum TOMLValue: Equatable {
  case text(String)
  case flag(Bool)
  case number(Int64)
  case list([TOMLValue])
  /// What no setting takes: a table, a date, a number with a fraction, a list within a list.
  case other
}

/// Where a text is no TOML (line and column from 1), and why.
struct TOMLProblem: Error, Equatable {
  var line: Int
  var column: Int
  var cause: String
}

struct TOMLTable: Equatable {
  private(set) var values: [String: TOMLValue] = [:]

  init(_ text: String) throws(TOMLProblem) {
    var problem = pt_toml_problem()
    var text = text
    let result = withUnsafeMutablePointer(to: &values) { values in
      text.withUTF8 { bytes in
        bytes.withMemoryRebound(to: CChar.self) { characters in
          pt_toml_read(
            characters.baseAddress, characters.count, values,
            { context, value in
              guard let context, let value = value?.pointee else { return }
              // SAFETY: the context is the pointer to `values` above, which outlives the call.
              TOMLTable.take(value, into: &context.assumingMemoryBound(to: [String: TOMLValue].self).pointee)
            }, &problem)
        }
      }
    }
    guard result == 0 else {
      let cause = withUnsafeBytes(of: problem.text) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      throw TOMLProblem(line: Int(problem.line), column: Int(problem.column), cause: cause)
    }
  }

  private static func take(_ value: pt_toml_value, into values: inout [String: TOMLValue]) {
    let key = text(value.key, value.key_length)
    let item: TOMLValue =
      switch Int(value.kind) {
      case PT_TOML_TEXT: .text(text(value.text, value.text_length))
      case PT_TOML_FLAG: .flag(value.number != 0)
      case PT_TOML_NUMBER: .number(value.number)
      case PT_TOML_LIST: .list([])
      default: .other
      }
    // Taken out while it grows, so that it is not copied for each element.
    guard value.is_element != 0, case .list(var items)? = values.removeValue(forKey: key) else {
      values[key] = item
      return
    }
    items.append(item)
    values[key] = .list(items)
  }

  private static func text(_ start: UnsafePointer<CChar>?, _ length: Int) -> String {
    String(decoding: UnsafeRawBufferPointer(start: start, count: length), as: UTF8.self)
  }
}
