// What travels on the virtual network: the protocol's own frames as bytes, beacon messages, and for large meshes frames
// that say what they are without cryptography.

package import Wire

package enum VirtualPayload: Sendable {
  /// PILA, PILK, PILS as on the wire.
  case frame([UInt8])
  case plain(PlainFrame)
  /// PILP.
  case punch
  /// Discover, punch request and their answers.
  case beacon(BeaconMessage)
  /// Codes 05 and 06 of the beacon.
  indirect case relay(source: UInt32, destination: UInt32, VirtualPayload)
  indirect case relayed(source: UInt32, VirtualPayload)

  /// Bytes of UDP payload.
  package var size: Int {
    switch self {
    case .frame(let bytes): bytes.count
    case .plain(let frame): frame.size
    case .punch: PunchFrame.bytes.count
    case .beacon(let message): message.encoded().count
    case .relay(_, _, let inner): 9 + inner.size
    case .relayed(_, let inner): 5 + inner.size
    }
  }

  var name: String {
    switch self {
    case .frame(let bytes): Self.name(bytes)
    case .plain(let frame): frame.name
    case .punch: "PILP"
    case .beacon(.discover): "discover"
    case .beacon(.provenDiscover): "discover with proof"
    case .beacon(.discoverChallenge(let endpoint, _)): "prove that you are \(endpoint)"
    case .beacon(.discoverReply(let endpoint)): "you are \(endpoint)"
    case .beacon(.punchRequest(_, let target, _)): "punch \(target)"
    case .beacon(.punchCommand(let endpoint)): "punch \(endpoint)"
    case .beacon(let message): "beacon \(message.code)"
    case .relay(_, let destination, let inner): "\(inner.name) for \(destination)"
    case .relayed(let source, let inner): "\(inner.name) of \(source)"
    }
  }

  private static func name(_ bytes: [UInt8]) -> String {
    switch FrameKind(bytes) {
    case .pila: "PILA \(KeyExchangeFrame(bytes)?.x25519.description.prefix(6) ?? "?")"
    case .pilk: "PILK"
    case .pils: "PILS \(FrameName(bytes).map { "\($0.counter)" } ?? "?")"
    default: "\(bytes.count) bytes"
    }
  }
}

/// A frame of a session without cryptography (PlainSession). Epochs stand for keys: who starts anew has another one.
package struct PlainFrame: Sendable {
  package enum Kind: Sendable {
    /// PILA that wants an answer, and the answer.
    case ask, answer
    case sealed
  }

  package var kind: Kind
  package var sender: UInt32
  package var receiver: UInt32
  package var senderEpoch: UInt32
  package var receiverEpoch: UInt32
  package var counter: UInt64 = 0
  package var inner: [UInt8] = []
  /// Bytes that are not there but count.
  package var padding = 0

  var size: Int { kind == .sealed ? SealedFrame.overhead + inner.count + padding : 216 }

  var name: String {
    switch kind {
    case .ask: "ask \(senderEpoch)"
    case .answer: "answer \(senderEpoch)"
    case .sealed: "sealed \(counter) \(InnerKind(inner))"
    }
  }
}

/// What the nodes of the simulator put into sealed frames: their first bytes.
enum InnerKind: String {
  case confirm, probe, probeAnswer, candidates, data, other

  static let confirmBytes: [UInt8] = [0, 0]

  /// A probe, or its answer: `0, code, id u32, size u16`; the size is that of the whole, most of it padding.
  static func probeBytes(_ id: UInt32, size: Int, isAnswer: Bool = false) -> [UInt8] {
    var bytes: [UInt8] = [0, isAnswer ? 0x82 : 0x81]
    bytes.appendBig(id)
    bytes.appendBig(UInt16(size))
    return bytes
  }

  static func probe(_ inner: [UInt8]) -> (id: UInt32, size: Int)? {
    var reader = ByteReader(inner.dropFirst(2))
    guard let id = reader.u32(), let size = reader.u16() else { return nil }
    return (id, Int(size))
  }

  init(_ inner: [UInt8]) {
    guard inner.count >= 2 else {
      self = .other
      return
    }
    switch (inner[0], inner[1]) {
    case (0x60, _): self = .data
    case (0, 0): self = .confirm
    case (0, 0x81): self = .probe
    case (0, 0x82): self = .probeAnswer
    case (0, TunnelControl.candidatesKind): self = .candidates
    default: self = .other
    }
  }
}

/// Names one sealed frame: who sent it under which nonce.
package struct FrameName: Hashable, Sendable {
  package var sender: UInt32
  package var prefix: UInt32
  package var counter: UInt64

  package init?(_ bytes: [UInt8]) {
    var reader = ByteReader(bytes)
    guard reader.u32() == SealedFrame.magic, let sender = reader.u32(), let prefix = reader.u32(),
      let counter = reader.u64()
    else { return nil }
    self.sender = sender
    self.prefix = prefix
    self.counter = counter
  }
}

/// A datagram on its way. `from` and `to` are the nodes that speak, for reports only: nothing is routed by them.
struct VirtualDatagram {
  var payload: VirtualPayload
  var source: Endpoint
  var destination: Endpoint
  var from: UInt32
  var to: UInt32
  /// With headers.
  var size: Int
  /// Where an error of the way is told.
  var sender: VirtualHost
}

/// Why a datagram did not arrive.
package enum VirtualFate: String, Sendable {
  case lost
  case blackhole
  case noRoute = "no route"
  case noHairpin = "the NAT does not hairpin"
  case noMapping = "the NAT has no mapping"
  case filtered = "filtered by the NAT"
  case noPort = "the NAT has no port left"
  case tooBig = "too big"
  case udpBlocked = "UDP is blocked"
  case linkDown = "link down"
  case closedPort = "nobody listens"
  case deaf = "the node is asleep or stopped"
  case beaconDown = "the beacon is down"
  case beaconUnknown = "the beacon does not know the target"
  case beaconRefused = "the beacon knows the sender elsewhere"
}
