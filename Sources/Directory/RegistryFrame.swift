// The frames of the registry's TCP protocol (wire/registry §1.1). Used by RegistryConnection.

package import JSON
package import NIOCore

/// One frame: how many bytes follow, then a JSON object in UTF-8.
///
///     0              4             4+n
///     | length n     | JSON object  |
///
/// - `n`: 32 bits, big-endian, 1 … 1 MiB; it does not count itself.
package enum RegistryFrame {
  /// Largest body in either direction. Official registries send less than 64 KiB but for member lists.
  package static let longest = 1 << 20

  package enum Fault: Error, Equatable {
    /// The length is 0 or above `longest`.
    case length(Int)
    /// The body is not JSON.
    case malformed(offset: Int)
    /// JSON, but no object.
    case notAnObject
  }

  package static func encode(_ value: JSONValue, into buffer: inout ByteBuffer) throws(Fault) {
    let body = value.encoded
    guard (1...longest).contains(body.count) else { throw .length(body.count) }
    buffer.writeInteger(UInt32(body.count))
    buffer.writeBytes(body)
  }

  /// Takes the next whole frame out of `buffer`; nil when more bytes are needed. After a fault the stream is lost.
  package static func decode(from buffer: inout ByteBuffer) throws(Fault) -> JSONValue? {
    guard let length = buffer.getInteger(at: buffer.readerIndex, as: UInt32.self) else { return nil }
    guard (1...UInt32(longest)).contains(length) else { throw .length(Int(length)) }
    guard let bytes = buffer.getBytes(at: buffer.readerIndex + 4, length: Int(length)) else { return nil }
    buffer.moveReaderIndex(forwardBy: 4 + Int(length))
    let value: JSONValue
    do {
      value = try JSONValue(parsing: bytes)
    } catch {
      throw .malformed(offset: error.offset)
    }
    guard case .object = value else { throw .notAnObject }
    return value
  }
}
