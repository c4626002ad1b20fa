// A peer made by hand: an identity, a key pair and one UDP socket in a namespace. It registers like anyone and then
// sends whatever a test wants a node to see: replays, forgeries, other people's addresses. Used by HostileTests.

import Foundation
import Glibc
import Shim
import Wire

final class Stranger {
  let publicKey: [UInt8]
  private let privateKey: [UInt8]
  /// What it says in its frames; the id of its registration unless a test lies.
  private(set) var node: UInt32 = 0
  private let x25519Private: [UInt8]
  let x25519Public: [UInt8]
  private let socket: Int32
  private let namespace: Namespace
  private let listenAddress: String
  /// All zero before the handshake: frames that nobody can open.
  private var key = [UInt8](repeating: 0, count: 32)
  private let noncePrefix: [UInt8]
  private var target = sockaddr_in()

  init(in namespace: Namespace, underlay: String, port: UInt16 = 4000) throws {
    self.namespace = namespace
    listenAddress = "\(underlay):\(port)"
    var seed = [UInt8](repeating: 0, count: 32)
    var x25519 = seed
    var prefix = [UInt8](repeating: 0, count: 4)
    guard pt_random(&seed, 32) == 0, pt_random(&x25519, 32) == 0, pt_random(&prefix, 4) == 0 else {
      throw LabError("getrandom failed")
    }
    var ed25519Public = seed
    var ed25519Private = [UInt8](repeating: 0, count: 64)
    pt_ed25519_from_seed(seed, &ed25519Public, &ed25519Private)
    var public25519 = seed
    pt_x25519_public(x25519, &public25519)
    publicKey = ed25519Public
    privateKey = ed25519Private
    x25519Private = x25519
    x25519Public = public25519
    noncePrefix = prefix
    socket = try namespace.inside {
      let descriptor = Glibc.socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
      var local = Self.address("0.0.0.0", port)
      let bound = Self.withSockaddr(&local) { bind(descriptor, $0, $1) }
      guard descriptor >= 0, bound == 0 else { throw LabError("cannot bind: errno \(errno)") }
      return descriptor
    }
  }

  deinit { close(socket) }

  // MARK: registry

  /// Registers as a public node and takes the id it is given.
  func register() throws {
    let key = Data(publicKey).base64EncodedString()
    let reply = try ask([
      "type": "register", "listen_addr": listenAddress, "public_key": key, "owner": "", "version": "1.18.0",
      "signature": sign("register:\(listenAddress):\(key)"),
    ])
    node = UInt32(reply["node_id"].number)
    guard node != 0 else { throw LabError("not registered: \(reply)") }
    _ = try ask([
      "type": "set_visibility", "node_id": Int(node), "public": true, "signature": sign("set_visibility:\(node)"),
    ])
  }

  /// Says it is someone else from now on.
  func claim(_ other: UInt32) { node = other }

  private func sign(_ text: String) -> String { Data(signature(Array(text.utf8))).base64EncodedString() }

  private func signature(_ message: [UInt8]) -> [UInt8] {
    var result = [UInt8](repeating: 0, count: 64)
    _ = pt_ed25519_sign(privateKey, message, message.count, &result)
    return result
  }

  private func ask(_ request: [String: Any]) throws -> JSON {
    let body = [UInt8](try JSONSerialization.data(withJSONObject: request))
    let connection = try namespace.inside {
      Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    }
    defer { close(connection) }
    var registry = Self.address(Fleet.rendezvousAddress, 9000)
    guard Self.withSockaddr(&registry, { connect(connection, $0, $1) }) == 0 else {
      throw LabError("cannot reach the registry: errno \(errno)")
    }
    Self.setTimeout(connection, seconds: 5)
    let frame = Self.big(UInt32(body.count)) + body
    guard Glibc.send(connection, frame, frame.count, 0) == frame.count else { throw LabError("send: errno \(errno)") }
    func take(_ count: Int) throws -> [UInt8] {
      var bytes = [UInt8](repeating: 0, count: count)
      guard recv(connection, &bytes, count, Int32(MSG_WAITALL)) == count else {
        throw LabError("the registry closed or kept silent")
      }
      return bytes
    }
    let length = try take(4).reduce(0) { $0 << 8 | Int($1) }
    return try JSON(parsing: String(decoding: take(length), as: UTF8.self))
  }

  // MARK: frames

  /// Where frames go from now on.
  func aim(at host: String, _ port: UInt16 = 4000) { target = Self.address(host, port) }

  func send(_ frame: [UInt8]) {
    _ = Self.withSockaddr(&target) { sendto(socket, frame, frame.count, 0, $0, $1) }
  }

  /// The next frame that comes and begins with the magic, or nil after the time.
  func receive(magic: String, within seconds: Double = 3) -> [UInt8]? {
    let deadline = ContinuousClock.now + .seconds(seconds)
    while ContinuousClock.now < deadline {
      Self.setTimeout(socket, seconds: 0.1)
      var buffer = [UInt8](repeating: 0, count: 4096)
      let count = recv(socket, &buffer, buffer.count, 0)
      if count > 0, buffer.starts(with: magic.utf8) { return Array(buffer[..<count]) }
    }
    return nil
  }

  /// Every datagram of this kind that comes in that time.
  func receiveAll(magic: String, within seconds: Double) -> [[UInt8]] {
    let deadline = ContinuousClock.now + .seconds(seconds)
    var all: [[UInt8]] = []
    while ContinuousClock.now < deadline {
      if let one = receive(magic: magic, within: 0.1) { all.append(one) }
    }
    return all
  }

  /// PILA: magic, node, X25519 key, Ed25519 key, signature.
  func keyExchange() -> [UInt8] {
    let text = Array("auth".utf8) + Self.big(node) + x25519Public
    return Array("PILA".utf8) + Self.big(node) + x25519Public + publicKey + signature(text)
  }

  /// PILA with the announcement of a pilot-tun node behind it, made for `receiver`.
  func announcedKeyExchange(to receiver: UInt32) -> [UInt8] {
    let fields: [UInt8] = Array("PTX1".utf8) + [1, 3, 0, 108] + Self.big(receiver) + [UInt8](repeating: 0, count: 32)
    let text = Array("pilot-tun announcement 1".utf8) + Self.big(node) + x25519Public + fields
    return keyExchange() + fields + signature(text)
  }

  /// Sends it once and derives the key from the answer. False when none comes.
  func announcedHandshake(with receiver: UInt32) throws -> Bool {
    send(announcedKeyExchange(to: receiver))
    guard let answer = receive(magic: "PILA", within: 3), answer.count >= 136 else { return false }
    try derive(peer: Array(answer[8..<40]))
    return true
  }

  /// PILK: the exchange that proves nothing.
  func keyRequest() -> [UInt8] { Array("PILK".utf8) + Self.big(node) + x25519Public }

  /// Sends PILA and derives the key from the node's answer.
  func handshake() throws {
    for _ in 0..<5 {
      send(keyExchange())
      if let answer = receive(magic: "PILA", within: 2), answer.count >= 136 {
        return try derive(peer: Array(answer[8..<40]))
      }
    }
    throw LabError("no answer to PILA")
  }

  private func derive(peer: [UInt8]) throws {
    var shared = [UInt8](repeating: 0, count: 32)
    key = shared
    let label = Array("pilot-tunnel-v1".utf8)
    guard pt_x25519(x25519Private, peer, &shared) == 0,
      pt_hkdf_sha256(shared, 32, nil, 0, label, label.count, &key, 32) == 0
    else { throw LabError("no shared key") }
  }

  /// PILS with the given counter.
  func sealed(_ inner: [UInt8], counter: UInt64) -> [UInt8] {
    let context = UnsafeMutableRawPointer.allocate(byteCount: Int(PT_AEAD_CONTEXT_SIZE), alignment: 64)
    defer { context.deallocate() }
    _ = pt_aead_init(context, key)
    defer { pt_aead_wipe(context) }
    let nonce = noncePrefix + Self.big(counter)
    var text = inner + [UInt8](repeating: 0, count: 16)
    let sender = Self.big(node)
    _ = text.withUnsafeMutableBufferPointer {
      pt_aead_seal(context, nonce, sender, sender.count, $0.baseAddress, inner.count)
    }
    return Array("PILS".utf8) + sender + nonce + text
  }

  /// A frame as the relay delivers it, in the name of `node`.
  static func relayed(_ frame: [UInt8], from node: UInt32) -> [UInt8] { [6] + big(node) + frame }

  /// PILT around the same content: what an official daemon without encryption sends.
  func plaintext(_ inner: [UInt8]) -> [UInt8] { Array("PILT".utf8) + inner }

  // MARK: inner packets

  /// A Pilot packet of this peer, or in another's name.
  func packet(
    _ flags: PilotFlags, _ kind: PilotProtocol, to destination: UInt32, from source: UInt32? = nil,
    ports: (source: UInt16, destination: UInt16), _ text: String = ""
  ) -> [UInt8] {
    PilotPacket(
      flags: flags, protocolNumber: kind, source: PilotAddress(network: 0, node: source ?? node),
      destination: PilotAddress(network: 0, node: destination), sourcePort: ports.source,
      destinationPort: ports.destination, window: 512, payload: Array(text.utf8)
    ).encoded()
  }

  /// An IPv6 packet with a UDP datagram, checksum included.
  static func datagram(from source: IPv6Address, to destination: IPv6Address, port: UInt16, _ text: String) -> [UInt8] {
    let payload = Array(text.utf8)
    let length = UInt16(8 + payload.count)
    var udp = big(UInt16(40000)) + big(port) + big(length) + [0, 0] + payload
    var sum = UInt32(length) + 17
    for bytes in [source.bytes, destination.bytes, udp] {
      for (index, byte) in bytes.enumerated() { sum += UInt32(byte) << (index % 2 == 0 ? 8 : 0) }
    }
    while sum > 0xFFFF { sum = (sum & 0xFFFF) + sum >> 16 }
    udp.replaceSubrange(6..<8, with: big(UInt16(truncatingIfNeeded: ~sum)))
    return [0x60, 0, 0, 0] + big(length) + [17, 64] + source.bytes + destination.bytes + udp
  }

  // MARK: bytes and sockets

  private static func big<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
    withUnsafeBytes(of: value.bigEndian) { Array($0) }
  }

  private static func address(_ host: String, _ port: UInt16) -> sockaddr_in {
    var result = sockaddr_in()
    result.sin_family = sa_family_t(AF_INET)
    result.sin_port = port.bigEndian
    inet_pton(AF_INET, host, &result.sin_addr)
    return result
  }

  private static func withSockaddr<Result>(
    _ address: inout sockaddr_in, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
  ) -> Result {
    withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
    }
  }

  private static func setTimeout(_ descriptor: Int32, seconds: Double) {
    var time = timeval(tv_sec: Int(seconds), tv_usec: Int(seconds.truncatingRemainder(dividingBy: 1) * 1e6))
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
  }
}
