// The echo of port 7 (wire/tunnel §6): every byte back; a message `TRCE` with an 8-byte time comes back with our time in
// nanoseconds behind it. The official `pilotctl ping`, `traceroute` and `bench` speak to it.

package enum Echo {
  private static let trace = Array("TRCE".utf8)
  /// An echo stream without bytes for this long is closed, as official daemons do.
  package static let idleLasts: UInt64 = 120_000_000_000

  /// Reads as much as can be written: who does not take the answers is not read from, and so stops.
  ///
  /// - `wall`: nanoseconds since 1970.
  package static func work(_ streams: inout StreamTable, _ id: StreamID, now: UInt64, wall: UInt64) {
    streams.look(id)
    // Eight bytes of room for the time of a trace.
    while streams.readable(id) > 0, streams.writable(id) > 8 {
      let bytes = streams.read(id, streams.writable(id) - 8, now: now)
      _ = streams.write(id, bytes, now: now)
      if bytes.count == 12, bytes.starts(with: trace) {
        _ = streams.write(id, withUnsafeBytes(of: wall.bigEndian) { Array($0) }, now: now)
      }
    }
    if streams.hasRemoteEnded(id) { _ = streams.read(id, .max, now: now) }
  }
}
