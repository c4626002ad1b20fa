// Cuts an input as a stream may deliver it: for the fuzz entries whose parsers take bytes as they come.

enum Pieces {
  /// Of 1 to `most` bytes; where it is cut depends on the bytes alone.
  static func of(_ bytes: [UInt8], most: Int) -> [ArraySlice<UInt8>] {
    var pieces: [ArraySlice<UInt8>] = []
    var rest = bytes[...]
    var state = bytes.reduce(UInt32(bytes.count)) { $0 &* 16_777_619 ^ UInt32($1) }
    while !rest.isEmpty {
      state = state &* 1_664_525 &+ 1_013_904_223
      let count = 1 + Int(state >> 24) % most
      pieces.append(rest.prefix(count))
      rest = rest.dropFirst(count)
    }
    return pieces
  }
}
