// Messages between nodes and beacons, on the tunnel's UDP socket (wire/tunnel §4.1). Rendezvous answers them; control
// and the engine send and read them.

/// One beacon message. Byte 0 is the code; all integers big-endian.
///
///     01 node [key 32]                      discover                  node → beacon
///     01 node key 32 challenge(64) sig 64   discover with proof       node → beacon      ours, §4.8
///     02 length (4|16) address port         discover reply            beacon → node
///     02 length address port challenge(64)  the same, asking for proof  beacon → node    ours, §4.8
///     03 requester target [grant 72]        punch request             node → beacon
///     04 length (4|16) address port         punch command             beacon → node
///     05 source destination frame           relay                     node → beacon
///     06 source frame                       relay deliver             beacon → node
///     07 beacon count(16) node…             gossip                    beacon ↔ beacon
///     09 source destination frame           relay deliver, both ids   beacon → gateway clients
///     0a kind                               notify                    beacon → node
///     0b transaction(64) port padding       check                     node → beacon      ours, §4.6
///     0c transaction(64) length address port other-port padding       check reply        ours, §4.6
///
/// Bytes after the last field are ignored, an optional field that is not whole counts as absent. A relay without a
/// frame, an address length other than 4 or 16, and any other code are refused.
public enum BeaconMessage: Equatable, Sendable {
  case discover(node: UInt32, key: Bytes32?)
  /// A discover whose sender shows that it has the key: `signature` over `proofText`.
  case provenDiscover(node: UInt32, key: Bytes32, challenge: UInt64, signature: Bytes64)
  case discoverReply(Endpoint)
  /// A discover reply of a beacon that takes the node at its word only with a proof.
  case discoverChallenge(Endpoint, challenge: UInt64)
  case punchRequest(requester: UInt32, target: UInt32, grant: PunchGrant?)
  case punchCommand(Endpoint)
  case relay(source: UInt32, destination: UInt32, frame: [UInt8])
  case relayDeliver(source: UInt32, frame: [UInt8])
  case gossip(beacon: UInt32, nodes: [UInt32])
  case relayDeliverWithDestination(source: UInt32, destination: UInt32, frame: [UInt8])
  case notify(kind: UInt8)
  /// "Answer with as many bytes, to my address and this port (0: where I sent from)."
  case check(transaction: UInt64, answerPort: UInt16, size: Int)
  /// `otherPort`: another port of the beacon that answers checks, 0: none.
  case checkReply(transaction: UInt64, seen: Endpoint, otherPort: UInt16, size: Int)

  /// The notify kind that says "poll the registry for handshakes".
  public static let notifyHandshakes: UInt8 = 1
  /// Most nodes one gossip message can name: the count is 16 bits.
  public static let gossipLimit = 0xFFFF
  /// No check is shorter: its reply, with an IPv6 endpoint, fits into as many bytes.
  public static let checkSize = 30

  public var code: UInt8 {
    switch self {
    case .discover, .provenDiscover: 1
    case .discoverReply, .discoverChallenge: 2
    case .punchRequest: 3
    case .punchCommand: 4
    case .relay: 5
    case .relayDeliver: 6
    case .gossip: 7
    case .relayDeliverWithDestination: 9
    case .notify: 10
    case .check: 11
    case .checkReply: 12
    }
  }
}

/// A target's permission to be punched (wire/tunnel §4.1): only some beacons ask for it.
public struct PunchGrant: Equatable, Sendable {
  /// Unix seconds.
  public var expiry: Int64
  /// The target's Ed25519 signature over `signedText`.
  public var signature: Bytes64

  public init(expiry: Int64, signature: Bytes64) {
    self.expiry = expiry
    self.signature = signature
  }

  /// `punch-grant:<requester>:<target>:<expiry>`, numbers in decimal.
  public static func signedText(requester: UInt32, target: UInt32, expiry: Int64) -> [UInt8] {
    Array("punch-grant:\(requester):\(target):\(expiry)".utf8)
  }
}

extension BeaconMessage {
  public init?(_ bytes: some Collection<UInt8>) {
    let bytes = Array(bytes)
    var reader = ByteReader(bytes)
    guard let code = reader.byte() else { return nil }
    let message: BeaconMessage?
    switch code {
    case 1: message = Self.discover(&reader)
    case 2:
      message = Self.endpoint(&reader).map { seen in
        reader.u64().map { .discoverChallenge(seen, challenge: $0) } ?? .discoverReply(seen)
      }
    case 3: message = Self.punchRequest(&reader)
    case 4: message = Self.endpoint(&reader).map { .punchCommand($0) }
    case 5, 9: message = Self.relay(&reader, code: code)
    case 6:
      guard let source = reader.u32(), reader.remaining > 0 else { return nil }
      message = .relayDeliver(source: source, frame: Array(reader.rest()))
    case 7: message = Self.gossip(&reader)
    case 10: message = reader.byte().map { .notify(kind: $0) }
    case 11, 12: message = Self.check(&reader, code: code, size: bytes.count)
    default: message = nil
    }
    guard let message else { return nil }
    self = message
  }

  private static func discover(_ reader: inout ByteReader) -> BeaconMessage? {
    guard let node = reader.u32() else { return nil }
    guard let key = reader.bytes32() else { return .discover(node: node, key: nil) }
    guard let challenge = reader.u64(), let signature = reader.bytes64() else { return .discover(node: node, key: key) }
    return .provenDiscover(node: node, key: key, challenge: challenge, signature: signature)
  }

  /// What the signature of a proof covers: `pilot-beacon:<node>:<challenge>`, numbers in decimal.
  public static func proofText(node: UInt32, challenge: UInt64) -> [UInt8] {
    Array("pilot-beacon:\(node):\(challenge)".utf8)
  }

  private static func endpoint(_ reader: inout ByteReader) -> Endpoint? {
    switch reader.byte() {
    case 4:
      guard let address = reader.u32(), let port = reader.u16() else { return nil }
      return Endpoint(address: IPv6Address(mappedIPv4: address), port: port)
    case 16:
      guard let high = reader.u64(), let low = reader.u64(), let port = reader.u16() else { return nil }
      return Endpoint(address: IPv6Address(high: high, low: low), port: port)
    default: return nil
    }
  }

  private static func punchRequest(_ reader: inout ByteReader) -> BeaconMessage? {
    guard let requester = reader.u32(), let target = reader.u32() else { return nil }
    var grant: PunchGrant?
    if let expiry = reader.u64(), let signature = reader.bytes64() {
      grant = PunchGrant(expiry: Int64(bitPattern: expiry), signature: signature)
    }
    return .punchRequest(requester: requester, target: target, grant: grant)
  }

  private static func relay(_ reader: inout ByteReader, code: UInt8) -> BeaconMessage? {
    guard let source = reader.u32(), let destination = reader.u32(), reader.remaining > 0 else { return nil }
    let frame = Array(reader.rest())
    return code == 5
      ? .relay(source: source, destination: destination, frame: frame)
      : .relayDeliverWithDestination(source: source, destination: destination, frame: frame)
  }

  private static func gossip(_ reader: inout ByteReader) -> BeaconMessage? {
    guard let beacon = reader.u32(), let count = reader.u16(), reader.remaining >= 4 * Int(count) else { return nil }
    var nodes: [UInt32] = []
    nodes.reserveCapacity(Int(count))
    for _ in 0..<count {
      guard let node = reader.u32() else { return nil }
      nodes.append(node)
    }
    return .gossip(beacon: beacon, nodes: nodes)
  }

  private static func check(_ reader: inout ByteReader, code: UInt8, size: Int) -> BeaconMessage? {
    guard size >= checkSize, let transaction = reader.u64() else { return nil }
    if code == 11 { return reader.u16().map { .check(transaction: transaction, answerPort: $0, size: size) } }
    guard let seen = endpoint(&reader), let other = reader.u16() else { return nil }
    return .checkReply(transaction: transaction, seen: seen, otherPort: other, size: size)
  }

  /// The datagram. IPv4 endpoints travel as 4 bytes. Gossip names the first `gossipLimit` nodes only.
  public func encoded() -> [UInt8] {
    var bytes = [code]
    switch self {
    case .discover(let node, let key):
      bytes.appendBig(node)
      if let key { bytes += key.bytes }
    case .provenDiscover(let node, let key, let challenge, let signature):
      bytes.appendBig(node)
      bytes += key.bytes
      bytes.appendBig(challenge)
      bytes += signature.bytes
    case .discoverReply(let endpoint), .punchCommand(let endpoint): Self.append(endpoint, to: &bytes)
    case .discoverChallenge(let endpoint, let challenge):
      Self.append(endpoint, to: &bytes)
      bytes.appendBig(challenge)
    case .punchRequest(let requester, let target, let grant):
      bytes.appendBig(requester)
      bytes.appendBig(target)
      if let grant {
        bytes.appendBig(grant.expiry)
        bytes += grant.signature.bytes
      }
    case .relay(let source, let destination, let frame),
      .relayDeliverWithDestination(let source, let destination, let frame):
      bytes.appendBig(source)
      bytes.appendBig(destination)
      bytes += frame
    case .relayDeliver(let source, let frame):
      bytes.appendBig(source)
      bytes += frame
    case .gossip(let beacon, let nodes):
      let named = nodes.prefix(Self.gossipLimit)
      bytes.appendBig(beacon)
      bytes.appendBig(UInt16(named.count))
      for node in named { bytes.appendBig(node) }
    case .notify(let kind): bytes.append(kind)
    case .check(let transaction, let answerPort, let size):
      bytes.appendBig(transaction)
      bytes.appendBig(answerPort)
      Self.pad(&bytes, to: size)
    case .checkReply(let transaction, let seen, let otherPort, let size):
      bytes.appendBig(transaction)
      Self.append(seen, to: &bytes)
      bytes.appendBig(otherPort)
      Self.pad(&bytes, to: size)
    }
    return bytes
  }

  private static func append(_ endpoint: Endpoint, to bytes: inout [UInt8]) {
    if let v4 = endpoint.address.mappedIPv4 {
      bytes.append(4)
      bytes.appendBig(v4)
    } else {
      bytes.append(16)
      bytes += endpoint.address.bytes
    }
    bytes.appendBig(endpoint.port)
  }

  private static func pad(_ bytes: inout [UInt8], to size: Int) {
    bytes += [UInt8](repeating: 0, count: max(0, max(size, checkSize) - bytes.count))
  }
}
