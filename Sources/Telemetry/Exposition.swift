// Metrics as Prometheus reads them: the text format 0.0.4 and OpenMetrics 1.0. Pure; used by the node's and the
// rendezvous' pages and by the generator of docs/metrics.md.

package enum MetricKind: String, Sendable {
  case counter
  case gauge
}

/// What is known of a metric without its values: the fixed part, golden in a test.
package struct MetricDeclaration: Sendable, Equatable {
  /// Without `_total`, which counters get.
  package var name: String
  package var kind: MetricKind
  /// The names of its labels, in order.
  package var labels: [String]
  package var help: String

  package init(_ name: String, _ kind: MetricKind, _ labels: [String] = [], help: String) {
    self.name = name
    self.kind = kind
    self.labels = labels
    self.help = help
  }

  /// The name of its samples.
  package var sampleName: String { kind == .counter ? name + "_total" : name }
}

/// A metric with its values.
package struct MetricFamily: Sendable {
  package var declaration: MetricDeclaration
  /// Values of the labels, and the value.
  package var samples: [(labels: [String], value: Double)]

  package init(_ declaration: MetricDeclaration, _ samples: [(labels: [String], value: Double)]) {
    self.declaration = declaration
    self.samples = samples
  }
}

package enum Exposition {
  package enum Format: Sendable {
    case text
    case openMetrics

    /// OpenMetrics when the reader accepts it, the older text otherwise.
    package init(accept: String) { self = accept.contains("application/openmetrics-text") ? .openMetrics : .text }

    package var contentType: String {
      switch self {
      case .text: "text/plain; version=0.0.4; charset=utf-8"
      case .openMetrics: "application/openmetrics-text; version=1.0.0; charset=utf-8"
      }
    }
  }

  package static func text(_ families: [MetricFamily], _ format: Format) -> String {
    var text = ""
    for family in families {
      let declaration = family.declaration
      let name = format == .openMetrics ? declaration.name : declaration.sampleName
      text += "# HELP \(name) \(escaped(declaration.help, quotes: format == .openMetrics))\n"
      text += "# TYPE \(name) \(declaration.kind.rawValue)\n"
      for sample in family.samples {
        text += declaration.sampleName
        // INVARIANT of callers: as many values as names.
        let pairs = zip(declaration.labels, sample.labels).map { "\($0)=\"\(escaped($1, quotes: true))\"" }
        if !pairs.isEmpty { text += "{\(pairs.joined(separator: ","))}" }
        text += " \(number(sample.value))\n"
      }
    }
    if format == .openMetrics { text += "# EOF\n" }
    return text
  }

  private static func escaped(_ text: String, quotes: Bool) -> String {
    var result = ""
    for character in text {
      switch character {
      case "\\": result += "\\\\"
      case "\n", "\r\n": result += "\\n"
      case "\"" where quotes: result += "\\\""
      default: result.append(character)
      }
    }
    return result
  }

  static func number(_ value: Double) -> String {
    if value.isNaN { return "NaN" }
    if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
    return Int64(exactly: value).map { String($0) } ?? String(value)
  }

  /// The Markdown table of a manual, one row for each metric.
  package static func table(_ declarations: [MetricDeclaration]) -> String {
    var lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for one in declarations {
      let labels = one.labels.map { "`\($0)`" }.joined(separator: ", ")
      lines.append("| `\(one.sampleName)` | \(one.kind.rawValue) | \(labels) | \(one.help) |")
    }
    return lines.joined(separator: "\n") + "\n"
  }
}
