// Files that come in pieces and can be resumed: frames of type 7 (wire/tunnel §8.2), `kind u8 || id 16 || rest`.

import Wire

/// A transfer as its sender names it; only the sender's own stream can.
package struct TransferID: Hashable, Sendable {
  package let bytes: [UInt8]
}

package enum FileStreamRequest: Equatable, Sendable {
  case begin(TransferID, FileOffer)
  case chunk(TransferID, offset: UInt64, [UInt8])
  case done(TransferID)
  case abort(TransferID)
  /// Begins a transfer and cannot be read; to be refused.
  case malformed(TransferID, String)

  /// Nil when not even whose it is can be read.
  init?(_ payload: ArraySlice<UInt8>) {
    var reader = ByteReader(payload)
    guard let kind = reader.byte(), let id = reader.take(16).map({ TransferID(bytes: Array($0)) }) else { return nil }
    switch kind {
    case 1: self = FileOffer(&reader).map { .begin(id, $0) } ?? .malformed(id, "malformed file offer")
    case 2:
      guard let offset = reader.u64() else { return nil }
      self = .chunk(id, offset: offset, Array(reader.rest()))
    case 4: self = .done(id)
    case 7: self = .abort(id)
    default: return nil
    }
  }
}

package struct FileOffer: Equatable, Sendable {
  package var size: UInt64
  /// SHA-256 of the whole file.
  package var digest: [UInt8]
  package var name: String

  package init(size: UInt64, digest: [UInt8], name: String) {
    self.size = size
    self.digest = digest
    self.name = name
  }

  fileprivate init?(_ reader: inout ByteReader) {
    guard let size = reader.u64(), let digest = reader.take(32), reader.u32() != nil, let length = reader.u16(),
      let name = reader.take(Int(length)).flatMap({ FileName.checked($0) })
    else { return nil }
    self.init(size: size, digest: Array(digest), name: name)
  }
}

package enum FileStreamAnswer: Equatable, Sendable {
  /// Bytes up to here are kept: in answer to an offer, and to a chunk.
  case begins(at: UInt64)
  case has(upTo: UInt64)
  case complete
  case refused(String)
  /// There is no such transfer, or it cannot go on.
  case aborted(String)

  func frame(_ id: TransferID) -> [UInt8] {
    var payload: [UInt8] = []
    switch self {
    case .begins(let offset):
      payload = [5] + id.bytes
      payload.appendBig(offset)
    case .has(let offset):
      payload = [3] + id.bytes
      payload.appendBig(offset)
    case .complete: payload = [6] + id.bytes + [0]
    case .refused(let reason): payload = [6] + id.bytes + [1] + Array(reason.utf8.prefix(500))
    case .aborted(let reason): payload = [7] + id.bytes + Array(reason.utf8.prefix(500))
    }
    return ExchangeFrame.make(.fileStream, payload)
  }
}
