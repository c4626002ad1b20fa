// The beacon on UDP: tells nodes their public endpoint, introduces them to each other, relays between those that
// cannot talk directly (wire/tunnel §4, wire/registry §2.9). BeaconSockets binds it; clients without UDP come by
// CompatConnection.

import Logging
import NIOCore
import Session
import TLSTransport
import Wire

/// One datagram in, at most two out. Nothing is believed: an id counts only at the endpoint that its host bound to it.
final class Beacon: ChannelInboundHandler, Sendable {
  typealias InboundIn = AddressedEnvelope<ByteBuffer>
  typealias OutboundOut = AddressedEnvelope<ByteBuffer>

  private let authority: any BeaconAuthority
  private let challenges = BeaconChallenges()
  private let logger: Logger
  private let table: BeaconTable
  private let counters: Counters
  private let isIPv6: Bool
  /// Whether this is the second port, which answers nothing but checks.
  private let isForChecks: Bool
  /// The second port, or on it the beacon's own; 0: none.
  private let otherPort: UInt16
  private let discovers: RateLimiter<IPv6Address>
  private let hosts: RateLimiter<IPv6Address>
  private let punches: RateLimiter<UInt32>
  private let relays: RateLimiter<UInt32>

  init(
    _ authority: any BeaconAuthority, table: BeaconTable, limits: RendezvousLimits, counters: Counters, logger: Logger,
    isIPv6: Bool, isForChecks: Bool, otherPort: UInt16
  ) {
    self.authority = authority
    self.logger = logger
    self.isIPv6 = isIPv6
    self.isForChecks = isForChecks
    self.otherPort = otherPort
    self.table = table
    self.counters = counters
    discovers = RateLimiter(perSecond: limits.discoversPerSecond)
    hosts = RateLimiter(perSecond: limits.datagramsPerSecond)
    punches = RateLimiter(perSecond: limits.punchesPerSecond)
    relays = RateLimiter(perSecond: limits.relayedPerSecond)
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    let envelope = unwrapInboundIn(data)
    guard let source = Endpoint(envelope.remoteAddress), source.port != 0 else { return }
    let now = authority.now
    guard hosts.allows(source.address.limitKey, now: now) else { return counters.add(.datagramsLimited) }
    var datagram = envelope.data
    if isForChecks {
      guard case .check(let transaction, let port, let size) = BeaconMessage(datagram.readableBytesView) else {
        return counters.add(.datagramsMalformed)
      }
      return check(transaction, answerPort: port, size: size, from: source, now: now, context)
    }
    if datagram.getInteger(at: datagram.readerIndex, as: UInt8.self) == 0x05 {
      return relay(&datagram, from: source, now: now, context)
    }
    switch BeaconMessage(datagram.readableBytesView) {
    case .discover(let node, let key): discover(node, key, from: source, now: now, context)
    case .provenDiscover(let node, let key, let challenge, let signature):
      prove(node, key, challenge, signature, from: source, now: now, context)
    case .punchRequest(let requester, let target, _):
      punch(requester, target, from: source, now: now, context)
    case .check(let transaction, let port, let size):
      check(transaction, answerPort: port, size: size, from: source, now: now, context)
    default: counters.add(.datagramsMalformed)
    }
  }

  func channelReadComplete(context: ChannelHandlerContext) { context.flush() }

  /// An error of one datagram (a port unreachable, say) is no reason to stop.
  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    logger.debug("beacon socket", metadata: ["error": "\(error)"])
  }

  // MARK: Messages

  private func discover(
    _ node: UInt32, _ key: Bytes32?, from source: Endpoint, now: Int64, _ context: ChannelHandlerContext
  ) {
    guard discovers.allows(source.address.limitKey, now: now) else { return counters.add(.datagramsLimited) }
    counters.add(.discovers)
    if node != 0 {
      let mayBind = authority.mayBind(node, key, at: source)
      let isBound =
        mayBind == true ? table.bind(node, to: source, now: now) : table.confirms(node, at: source, now: now)
      if !isBound, let key, authority.owns(node, key) {
        // From elsewhere, or from another port so soon: its word takes a proof.
        let challenge = challenges.make(node, source, now: now)
        return send(.discoverChallenge(source, challenge: challenge), to: source, context)
      }
      if isBound, mayBind == true || key.map({ authority.owns(node, $0) }) ?? false {
        authority.compat.setPreferred(node, false)
      }
      if isBound, mayBind == nil, let key { authority.noteSeen(node, key) }
      if !isBound || mayBind == false { counters.add(mayBind == nil ? .discoversUnbound : .discoversSpoofed) }
    }
    send(.discoverReply(source), to: source, context)
  }

  /// A discover with the proof that was asked for: it came from where the challenge went to, signed by the node's key.
  private func prove(
    _ node: UInt32, _ key: Bytes32, _ challenge: UInt64, _ signature: Bytes64, from source: Endpoint, now: Int64,
    _ context: ChannelHandlerContext
  ) {
    guard discovers.allows(source.address.limitKey, now: now) else { return counters.add(.datagramsLimited) }
    counters.add(.discovers)
    if challenges.holds(challenge, for: node, source, now: now), authority.owns(node, key),
      Ed25519.verify(signature, of: BeaconMessage.proofText(node: node, challenge: challenge), by: key)
    {
      authority.noteOwner(of: node, key)
      table.allowRebinding(node)
      if table.bind(node, to: source, now: now) { authority.compat.setPreferred(node, false) }
    } else {
      counters.add(.discoversSpoofed)
    }
    send(.discoverReply(source), to: source, context)
  }

  /// Answers with exactly as many bytes, and only to the host that asked: nobody can make us send more than he does,
  /// nor to others.
  private func check(
    _ transaction: UInt64, answerPort: UInt16, size: Int, from source: Endpoint, now: Int64,
    _ context: ChannelHandlerContext
  ) {
    guard discovers.allows(source.address.limitKey, now: now) else { return counters.add(.datagramsLimited) }
    counters.add(.checks)
    let target = Endpoint(address: source.address, port: answerPort == 0 ? source.port : answerPort)
    send(
      .checkReply(transaction: transaction, seen: source, otherPort: otherPort, size: size), to: target, context)
  }

  /// Tells both ends where the other is, under the rules of resolve.
  private func punch(
    _ requester: UInt32, _ target: UInt32, from source: Endpoint, now: Int64, _ context: ChannelHandlerContext
  ) {
    guard isAt(requester, source, now: now), requester != target, authority.compat.outlet(of: target) == nil,
      let other = endpoint(of: target, now: now), authority.mayPunch(requester, target)
    else { return counters.add(.punchesRefused) }
    guard punches.allows(requester, now: now) else { return counters.add(.datagramsLimited) }
    counters.add(.punches)
    // A node on this machine is seen at a loopback address, which means nothing to another machine.
    let (isLocal, isOtherLocal) = (source.address.isLoopback, other.address.isLoopback)
    if isLocal || !isOtherLocal { send(.punchCommand(other), to: source, context) }
    if isOtherLocal || !isLocal { send(.punchCommand(source), to: other, context) }
  }

  private func relay(
    _ datagram: inout ByteBuffer, from sender: Endpoint, now: Int64, _ context: ChannelHandlerContext
  ) {
    switch forward(&datagram, now: now, isSender: { isAt($0, sender, now: now) }) {
    case .nothing, .answer, .stranger: break
    case .client(let client): if !client.send(datagram, isCounted: true) { counters.add(.compatNotWritten) }
    case .endpoint(let address):
      guard context.channel.isWritable else { return counters.add(.relayNotWritten) }
      let promise = counted(datagram, on: context.eventLoop)
      context.write(wrapOutboundOut(AddressedEnvelope(remoteAddress: address, data: datagram)), promise: promise)
    }
  }

  /// The promise of a write of what is relayed, which counts what comes of it.
  func counted(_ datagram: ByteBuffer, on eventLoop: any EventLoop) -> EventLoopPromise<Void> {
    let promise = eventLoop.makePromise(of: Void.self)
    let size = datagram.readableBytes
    promise.futureResult.whenComplete { [counters] result in
      guard case .success = result else { return counters.add(.relayNotWritten) }
      counters.addRelayed(1, bytes: size - Self.deliverHead)
    }
    return promise
  }

  /// Of what is relayed not the payload: `06 source`.
  static let deliverHead = 5

  /// What becomes of a datagram.
  enum Outcome {
    case nothing
    /// For who sent it.
    case answer(BeaconMessage)
    /// It goes on, as it is by now, to a node on UDP or to one on a WebSocket.
    case endpoint(SocketAddress)
    case client(WebSocketOutlet)
    /// The key that was proven on this connection is not the node's any more.
    case stranger
  }

  /// `05 source destination frame` becomes `06 source frame`, the four bytes of the destination cut out in place.
  private func forward(_ datagram: inout ByteBuffer, now: Int64, isSender: (UInt32) -> Bool) -> Outcome {
    func refused(_ counter: Counter) -> Outcome {
      counters.add(counter)
      return .nothing
    }
    let start = datagram.readerIndex
    guard datagram.readableBytes > 9, let source = datagram.getInteger(at: start + 1, as: UInt32.self),
      let destination = datagram.getInteger(at: start + 5, as: UInt32.self)
    else { return refused(.datagramsMalformed) }
    guard isSender(source) else { return refused(.relaySpoofed) }
    guard relays.allows(source, now: now) else { return refused(.datagramsLimited) }
    let outcome: Outcome
    if let client = authority.compat.outlet(of: destination) {
      outcome = .client(client)
    } else if let target = endpoint(of: destination, now: now), let address = socketAddress(target) {
      outcome = .endpoint(address)
    } else {
      return refused(.relayUnknownTarget)
    }
    datagram.moveReaderIndex(forwardBy: 4)
    datagram.setInteger(UInt8(0x06), at: start + 4)
    datagram.setInteger(source, at: start + 5)
    return outcome
  }

  /// The same for a node on a WebSocket, which has proven who it is. Called on any event loop.
  func receive(
    _ datagram: inout ByteBuffer, of node: UInt32, _ key: Bytes32, from source: Endpoint, now: Int64
  ) -> Outcome {
    func refused(_ counter: Counter) -> Outcome {
      counters.add(counter)
      return .nothing
    }
    guard hosts.allows(source.address.limitKey, now: now) else { return refused(.datagramsLimited) }
    if datagram.getInteger(at: datagram.readerIndex, as: UInt8.self) == 0x05 {
      return forward(&datagram, now: now, isSender: { $0 == node })
    }
    switch BeaconMessage(datagram.readableBytesView) {
    case .discover(let claimed, _):
      guard discovers.allows(source.address.limitKey, now: now) else { return refused(.datagramsLimited) }
      counters.add(.discovers)
      guard claimed == node else { return refused(.discoversSpoofed) }
      guard authority.stillOwns(node, key) else { return .stranger }
      authority.compat.setPreferred(node, true)
      return .answer(.discoverReply(source))
    // Who has no UDP cannot punch.
    case .punchRequest: return refused(.punchesRefused)
    default: return refused(.datagramsMalformed)
    }
  }

  /// "Poll your handshake inbox", to a node that the beacon knows. Called on the channel's event loop.
  func notify(_ node: UInt32, _ channel: any Channel) {
    let message = BeaconMessage.notify(kind: BeaconMessage.notifyHandshakes)
    if let client = authority.compat.outlet(of: node) {
      counters.add(.notifications)
      client.send(ByteBuffer(bytes: message.encoded()))
      return
    }
    guard let endpoint = endpoint(of: node, now: authority.now), let address = socketAddress(endpoint) else {
      return
    }
    counters.add(.notifications)
    let envelope = AddressedEnvelope(remoteAddress: address, data: ByteBuffer(bytes: message.encoded()))
    channel.writeAndFlush(envelope, promise: nil)
  }

  private func send(_ message: BeaconMessage, to endpoint: Endpoint, _ context: ChannelHandlerContext) {
    guard let address = socketAddress(endpoint) else { return }
    let data = context.channel.allocator.buffer(bytes: message.encoded())
    context.write(wrapOutboundOut(AddressedEnvelope(remoteAddress: address, data: data)), promise: nil)
  }

  /// Whether `node` is at `source`. A node that the beacon does not know, for it has just started, need not wait for
  /// its next discover: whatever it sends from where it may discover binds it.
  private func isAt(_ node: UInt32, _ source: Endpoint, now: Int64) -> Bool {
    if table.confirms(node, at: source, now: now) { return true }
    return table.endpoint(of: node, now: now) == nil && authority.mayBind(node, nil, at: source) == true
      && table.bind(node, to: source, now: now)
  }

  /// Where `node` was seen, or where it registered as long as this beacon is too young to have seen everyone.
  private func endpoint(of node: UInt32, now: Int64) -> Endpoint? {
    table.endpoint(of: node, now: now) ?? authority.registeredEndpoint(of: node, now: now)
  }

  private func socketAddress(_ endpoint: Endpoint) -> SocketAddress? { endpoint.socketAddress(isIPv6: isIPv6) }
}

/// Who may be where, for a beacon: the registry beside it, or proofs alone (OpenAuthority).
protocol BeaconAuthority: Sendable {
  /// Milliseconds that never jump back.
  var now: Int64 { get }
  /// Nodes that come by a WebSocket.
  var compat: CompatClients { get }
  /// Whether a node is at `source` for its asking; nil: the authority knows no such node.
  func mayBind(_ node: UInt32, _ key: Bytes32?, at source: Endpoint) -> Bool?
  /// Whether the node's key is this one, so that a proof with it may bind the node anywhere.
  func owns(_ node: UInt32, _ key: Bytes32) -> Bool
  /// Whether a key that proved itself before is still the node's, be it that the node was not heard of for a while.
  func stillOwns(_ node: UInt32, _ key: Bytes32) -> Bool
  /// The key proved itself.
  func noteOwner(of node: UInt32, _ key: Bytes32)
  /// The node with the key is where it was. Nothing is proven by that.
  func noteSeen(_ node: UInt32, _ key: Bytes32)
  func mayPunch(_ requester: UInt32, _ target: UInt32) -> Bool
  func registeredEndpoint(of node: UInt32, now: Int64) -> Endpoint?
}

extension RegistryService: BeaconAuthority {
  /// Its records say it.
  func noteSeen(_ node: UInt32, _ key: Bytes32) {}

  func owns(_ node: UInt32, _ key: Bytes32) -> Bool {
    let now = now
    let record = try? read { state throws(RequestError) in try state.live(node, now: now) }
    return record?.key == key
  }

  func stillOwns(_ node: UInt32, _ key: Bytes32) -> Bool {
    let record = try? read { state throws(RequestError) in state.nodes[node] }
    return record?.isRegistered == true && record?.key == key
  }

  func noteOwner(of node: UInt32, _ key: Bytes32) {}

  /// Whether a discover from `source` may bind `node`: it comes from the host that registered it, or from the host
  /// others send to, with the node's key if it names one. Nil for a node that is not registered.
  func mayBind(_ node: UInt32, _ key: Bytes32?, at source: Endpoint) -> Bool? {
    let now = now
    guard let record = try? read({ state throws(RequestError) in try state.live(node, now: now) }) else { return nil }
    if let key, key != record.key { return false }
    return source.address == record.host || source.address == record.endpoint.address
  }

  /// The endpoint of the last registration, in the two minutes in which every node sends its next discover.
  func registeredEndpoint(of node: UInt32, now: Int64) -> Endpoint? {
    guard now - startedAt < 120_000,
      let record = try? read({ state throws(RequestError) in try state.live(node, now: now) }),
      record.endpoint.port != 0
    else { return nil }
    return record.endpoint
  }

  func mayPunch(_ requester: UInt32, _ target: UInt32) -> Bool {
    let now = now
    let answer = try? read { state throws(RequestError) in
      state.mayReach(requester, try state.live(target, now: now))
    }
    return answer ?? false
  }
}
