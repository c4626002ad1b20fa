// The tunnel's outer frames: telling them apart, and the two key exchange frames (wire/tunnel §3.1, §3.2). The engine
// sorts datagrams with `FrameKind`; Session and control read and write the frames.

/// What a datagram is, from its first bytes alone (wire/tunnel §3.1). Nothing after the magic has been looked at.
@frozen
public enum FrameKind: Equatable, Sendable {
  /// First byte below 0x10: a beacon message of this code.
  case beacon(code: UInt8)
  /// Authenticated key exchange.
  case pila
  /// Bare key exchange; read as a request for our key, never as key material.
  case pilk
  /// Sealed frame.
  case pils
  /// Plaintext packet; never accepted.
  case pilt
  /// NAT punch, no content.
  case pilp
  /// Empty, shorter than a magic, or a magic of nobody we know.
  case unknown

  @inlinable
  public init(_ base: UnsafeRawPointer, count: Int) {
    guard count > 0 else {
      self = .unknown
      return
    }
    let first = base.loadByte(0)
    guard first >= 0x10 else {
      self = .beacon(code: first)
      return
    }
    guard count >= 4 else {
      self = .unknown
      return
    }
    switch base.loadBig32(0) {
    case SealedFrame.magic: self = .pils
    case KeyExchangeFrame.magic: self = .pila
    case KeyRequestFrame.magic: self = .pilk
    case 0x5049_4C54: self = .pilt
    case 0x5049_4C50: self = .pilp
    default: self = .unknown
    }
  }

  public init(_ bytes: some Collection<UInt8>) {
    let head = Array(bytes.prefix(4))
    self = head.withUnsafeBytes { head in
      guard let base = head.baseAddress else { return .unknown }
      return FrameKind(base, count: head.count)
    }
  }
}

/// The NAT punch frame: four bytes, no content; a receiver learns nothing from it.
public enum PunchFrame {
  public static let bytes: [UInt8] = [0x50, 0x49, 0x4C, 0x50]
}

/// Authenticated key exchange (wire/tunnel §3.2).
///
///     0        4        8                40                72               136
///     | "PILA" | node   | X25519 pub     | Ed25519 pub     | signature       | extension…
///
/// - The signature is Ed25519 over `signedText`; it covers neither receiver nor time nor the extension.
/// - Longer frames are accepted, the excess is `extensionBytes`: official daemons ignore it. 135 bytes are refused.
/// - Reading checks magic and length only. Keys and signature are Session's to judge.
public struct KeyExchangeFrame: Equatable, Sendable {
  /// "PILA".
  @inlinable public static var magic: UInt32 { 0x5049_4C41 }
  /// The size without an extension.
  @inlinable public static var minimumSize: Int { 136 }

  public var node: UInt32
  public var x25519: Bytes32
  public var ed25519: Bytes32
  public var signature: Bytes64
  public var extensionBytes: [UInt8]

  public init(node: UInt32, x25519: Bytes32, ed25519: Bytes32, signature: Bytes64, extensionBytes: [UInt8] = []) {
    self.node = node
    self.x25519 = x25519
    self.ed25519 = ed25519
    self.signature = signature
    self.extensionBytes = extensionBytes
  }

  public init?(_ bytes: some Collection<UInt8>) {
    var reader = ByteReader(Array(bytes))
    guard reader.u32() == Self.magic, let node = reader.u32(), let x25519 = reader.bytes32(),
      let ed25519 = reader.bytes32(), let signature = reader.bytes64()
    else { return nil }
    self.init(
      node: node, x25519: x25519, ed25519: ed25519, signature: signature, extensionBytes: Array(reader.rest()))
  }

  public func encoded() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(Self.minimumSize + extensionBytes.count)
    bytes.appendBig(Self.magic)
    bytes.appendBig(node)
    bytes += x25519.bytes
    bytes += ed25519.bytes
    bytes += signature.bytes
    bytes += extensionBytes
    return bytes
  }

  /// What the signature of this frame covers: `"auth" || node || X25519 public key`, 40 bytes.
  public static func signedText(node: UInt32, x25519: Bytes32) -> [UInt8] {
    var text = Array("auth".utf8)
    text.appendBig(node)
    return text + x25519.bytes
  }

  public var signedText: [UInt8] { Self.signedText(node: node, x25519: x25519) }
}

/// Bare key exchange (wire/tunnel §3.2, §3.6). We send it to ask for the peer's PILA and read it as such a request.
///
///     0        4        8              40
///     | "PILK" | node   | X25519 pub   |
///
/// Longer frames are accepted, the excess is ignored; 39 bytes are refused.
public struct KeyRequestFrame: Equatable, Sendable {
  /// "PILK".
  @inlinable public static var magic: UInt32 { 0x5049_4C4B }
  @inlinable public static var size: Int { 40 }

  public var node: UInt32
  public var x25519: Bytes32

  public init(node: UInt32, x25519: Bytes32) {
    self.node = node
    self.x25519 = x25519
  }

  public init?(_ bytes: some Collection<UInt8>) {
    var reader = ByteReader(Array(bytes.prefix(Self.size)))
    guard reader.u32() == Self.magic, let node = reader.u32(), let x25519 = reader.bytes32() else { return nil }
    self.init(node: node, x25519: x25519)
  }

  public func encoded() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(Self.size)
    bytes.appendBig(Self.magic)
    bytes.appendBig(node)
    return bytes + x25519.bytes
  }
}
