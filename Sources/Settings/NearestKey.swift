// Which known word a mistyped one was meant to be. Used for keys of configuration files. Pure.

package enum NearestKey {
  /// The word with the smallest edit distance, when that is small for its length; the first of equals.
  package static func of(_ text: String, among known: [String]) -> String? {
    let typed = Array(text.utf8)
    guard typed.count <= 64 else { return nil }
    let limit = typed.count < 4 ? 1 : 2
    let scored = known.map { ($0, distance(typed, Array($0.utf8))) }.filter { $0.1 <= limit }
    if let near = scored.min(by: { $0.1 < $1.1 }) { return near.0 }
    // Half of a long name, `token` for `admin-token-file`: when only one has it.
    guard typed.count >= 4 else { return nil }
    let containing = known.filter { $0.contains(text) || (text.contains($0) && $0.utf8.count >= 4) }
    return containing.count == 1 ? containing[0] : nil
  }

  /// Optimal string alignment: insertions, deletions, substitutions and swapped neighbours count one each.
  static func distance(_ a: [UInt8], _ b: [UInt8]) -> Int {
    var before: [Int] = []
    var above = Array(0...b.count)
    for i in a.indices {
      var row = [i + 1]
      for j in b.indices {
        var best = min(above[j + 1] + 1, row[j] + 1, above[j] + (a[i] == b[j] ? 0 : 1))
        if i > 0, j > 0, a[i] == b[j - 1], a[i - 1] == b[j] { best = min(best, before[j - 1] + 1) }
        row.append(best)
      }
      before = above
      above = row
    }
    return above[b.count]
  }
}
