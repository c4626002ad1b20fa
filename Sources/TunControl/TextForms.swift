// Small pieces of the outputs for people: durations, sizes, tables, styling. Used by the forms of both programs.

package enum TextForms {
  /// `57s`, `3m12s`, `2h5m`, `4d3h`.
  package static func duration(seconds: Int64) -> String {
    let value = max(0, seconds)
    switch value {
    case ..<60: return "\(value)s"
    case ..<3600: return "\(value / 60)m\(value % 60)s"
    case ..<86_400: return "\(value / 3600)h\(value % 3600 / 60)m"
    default: return "\(value / 86_400)d\(value % 86_400 / 3600)h"
    }
  }

  /// `512 B`, `1.2 KB`, `3.4 GB`; powers of 1000.
  package static func bytes(_ count: Int64) -> String {
    guard count >= 1000 else { return "\(count) B" }
    var value = Double(count)
    var unit = ""
    for next in ["KB", "MB", "GB", "TB"] where value >= 1000 || unit.isEmpty {
      value /= 1000
      unit = next
    }
    return "\(decimal(value, 1)) \(unit)"
  }

  /// Milliseconds for people: `1.2 ms`, `0.18 ms`, `140 ms`.
  package static func milliseconds(_ value: Double) -> String {
    "\(decimal(value, value < 1 ? 2 : value < 100 ? 1 : 0)) ms"
  }

  package static func decimal(_ value: Double, _ digits: Int) -> String {
    var scale = 1.0
    for _ in 0..<digits { scale *= 10 }
    guard value.isFinite, let scaled = Int64(exactly: (abs(value) * scale).rounded()) else { return "?" }
    let sign = value < 0 && scaled > 0 ? "-" : ""
    guard digits > 0 else { return "\(sign)\(scaled)" }
    let fraction = String(scaled % Int64(scale))
    return sign + "\(scaled / Int64(scale))." + String(repeating: "0", count: digits - fraction.count) + fraction
  }

  /// Columns padded to their widest cell, two blanks between; the last one is not padded.
  package static func table(_ rows: [[String]], indent: String = "") -> String {
    let columns = rows.map(\.count).max() ?? 0
    let widths = (0..<columns).map { column in rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0 }
    return rows.map { row in
      let cells = row.enumerated().map { index, cell in
        index == row.count - 1 ? cell : cell + String(repeating: " ", count: widths[index] - cell.count)
      }
      return indent + cells.joined(separator: "  ")
    }.joined(separator: "\n")
  }

  /// Text from elsewhere (names, reasons) without control characters: it must not move the cursor or forge lines.
  package static func plain(_ text: String) -> String {
    String(String.UnicodeScalarView(text.unicodeScalars.map { $0.properties.generalCategory == .control ? " " : $0 }))
  }
}
