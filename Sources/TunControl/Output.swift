// Where results and errors go: results on stdout, errors on stderr, one JSON object each with `--json`.

import Glibc
package import JSON

package enum Output {
  /// The form for people, or `{"data":{…},"status":"ok"}`.
  package static func show(_ data: JSONValue, isJSON: Bool, _ form: (JSONValue) -> String) {
    let whole: JSONValue = ["status": "ok", "data": data]
    line(isJSON ? whole.line : form(data))
  }

  /// `error: … [CODE]` and `hint:  …`, or the JSON error. `showsCode`: the official pilotctl shows none.
  package static func fail(_ error: ControlError, isJSON: Bool, showsCode: Bool = true) {
    if isJSON {
      standardError(error.json.line)
    } else {
      standardError(text(of: error, showsCode: showsCode))
    }
  }

  package static func text(of error: ControlError, showsCode: Bool = true) -> String {
    "error: \(error.message)" + (showsCode ? " [\(error.code)]" : "") + (error.hint.map { "\nhint:  \($0)" } ?? "")
  }

  /// One line on stdout, at once: readers of a pipe see each reply as it comes.
  package static func line(_ text: String) { write(text + "\n", to: STDOUT_FILENO) }

  package static func standardError(_ text: String) { write(text + "\n", to: STDERR_FILENO) }

  package static func write(_ text: String, to descriptor: Int32) {
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
      if count < 0, errno == EINTR { continue }
      // A reader that left, or a full disk: nobody is there to be told.
      guard count > 0 else { return }
      rest = rest.dropFirst(count)
    }
  }
}

package enum ProcessEnvironment {
  /// The environment of this process.
  package static var all: [String: String] {
    var result: [String: String] = [:]
    var entry = environ
    while let text = entry.pointee {
      let pair = String(cString: text).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      if pair.count == 2 { result[String(pair[0])] = String(pair[1]) }
      entry += 1
    }
    return result
  }
}
