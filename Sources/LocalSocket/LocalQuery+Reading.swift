// Reads the questions of clients (wire/ipc §5, §5.1, §7): a query, or the text that the client is told.

import JSON
import Wire

extension LocalQuery {
  /// nil: the command is none of those that ask the node.
  init?(_ command: LocalCommand, _ body: ArraySlice<UInt8>) throws(LocalError) {
    var reader = ByteReader(body)
    switch command {
    case .bind, .dial, .send, .close, .sendTo, .cancel, .unbind, .sendToConfirm: return nil
    case .info: self = .info
    case .health: self = .health
    case .handshake: self = .handshake(try HandshakeQuery(&reader))
    case .resolveHostname:
      guard !body.isEmpty else { throw LocalError("resolve_hostname: missing hostname") }
      self = .resolve(name: reader.text())
    case .setHostname: self = .setHostname(reader.text())
    case .setVisibility:
      guard let value = reader.byte() else { throw LocalError("set_visibility: missing value") }
      self = .setVisibility(isPublic: value == 1)
    case .deregister: self = .deregister
    case .setTags: self = .setTags(try Self.tags(Array(body)))
    case .setWebhook: self = .setWebhook(url: reader.text())
    case .network: self = .network(try NetworkQuery(&reader))
    case .managed: self = .managed(try ManagedQuery(&reader))
    case .rotateKey: self = .rotateKey
    case .broadcast: self = try Self.broadcast(&reader)
    case .preferDirect:
      guard body.count == 4, let node = reader.u32() else {
        throw LocalError("prefer_direct: payload must be 4 bytes (node_id)")
      }
      self = .preferDirect(node: node)
    case .submitBadge: self = .submitBadge(json: Array(body))
    case .enrollRecovery: self = .enrollRecovery(json: Array(body))
    case .signEnvelope: self = .signEnvelope(json: Array(body))
    case .verifyEnvelope: self = .verifyEnvelope(json: Array(body))
    }
  }

  private static func tags(_ json: [UInt8]) throws(LocalError) -> [String] {
    let value: JSONValue
    do {
      value = try JSONValue(parsing: json)
    } catch {
      throw LocalError("set_tags: invalid JSON: at byte \(error.offset)")
    }
    // An empty list is written as null, too.
    if value == .null { return [] }
    let tags = value.list?.compactMap(\.text)
    guard let tags, tags.count == value.list?.count else {
      throw LocalError("set_tags: invalid JSON: not an array of strings")
    }
    guard tags.count <= LocalSocketLimits.tags else { throw LocalError("set_tags: maximum 3 tags allowed") }
    return tags
  }

  private static func broadcast(_ reader: inout ByteReader) throws(LocalError) -> LocalQuery {
    guard let network = reader.u16(), let port = reader.u16(), let length = reader.u16() else {
      throw LocalError("broadcast: missing header")
    }
    guard let token = reader.take(Int(length)) else { throw LocalError("broadcast: truncated token") }
    return .broadcast(network: network, port: port, token: Array(token), data: Array(reader.rest()))
  }
}

extension HandshakeQuery {
  init(_ reader: inout ByteReader) throws(LocalError) {
    guard let command = reader.byte() else { throw LocalError("handshake: missing sub-command") }
    func node(_ verb: String) throws(LocalError) -> UInt32 {
      guard let node = reader.u32() else { throw LocalError("handshake \(verb): missing node_id") }
      return node
    }
    switch command {
    case 1: self = .send(node: try node("send"), justification: reader.text())
    case 2: self = .approve(node: try node("approve"))
    case 3: self = .reject(node: try node("reject"), reason: reader.text())
    case 4: self = .pending
    case 5: self = .trusted
    case 6: self = .revoke(node: try node("revoke"))
    case 7:
      guard reader.remaining == 8, let node = reader.u32(), let milliseconds = reader.u32() else {
        throw LocalError("handshake wait: payload must be 8 bytes (node_id, timeout_ms)")
      }
      self = .wait(node: node, milliseconds: min(milliseconds, LocalSocketLimits.waitMilliseconds))
    default: throw LocalError("handshake: unknown sub-command \(hexadecimal(command))")
    }
  }
}

extension NetworkQuery {
  init(_ reader: inout ByteReader) throws(LocalError) {
    guard let command = reader.byte() else { throw LocalError("network: missing sub-command") }
    func network(_ verb: String) throws(LocalError) -> UInt16 {
      guard let network = reader.u16() else { throw LocalError("network \(verb): missing network_id") }
      return network
    }
    switch command {
    case 1: self = .list
    case 2: self = .join(network: try network("join"), token: reader.text())
    case 3: self = .leave(network: try network("leave"))
    case 4: self = .members(network: try network("members"))
    case 5:
      let network = try network("invite")
      guard let node = reader.u32() else { throw LocalError("network invite: missing node_id") }
      self = .invite(network: network, node: node)
    case 6: self = .pollInvites
    case 7:
      let network = try network("respond-invite")
      guard let answer = reader.byte() else { throw LocalError("network respond-invite: missing answer") }
      self = .respond(network: network, accepts: answer == 1)
    default: throw LocalError("network: unknown sub-command \(hexadecimal(command))")
    }
  }
}

extension ManagedQuery {
  init(_ reader: inout ByteReader) throws(LocalError) {
    guard let command = reader.byte() else { throw LocalError("managed: missing sub-command") }
    func network(_ verb: String) throws(LocalError) -> UInt16 {
      guard let network = reader.u16() else { throw LocalError("managed \(verb): missing network_id") }
      return network
    }
    switch command {
    case 2: self = .status(network: try network("status"))
    case 4: self = .cycle(network: try network("cycle"))
    case 7: self = .reconcile(network: try network("reconcile"))
    case 5:
      let isSetting = try Self.isSetting("policy", &reader)
      let network = try network("policy")
      guard isSetting else {
        self = .policy(network: network)
        return
      }
      guard let length = reader.u16(), let token = reader.take(Int(length)) else {
        throw LocalError("managed policy: truncated token")
      }
      self = .setPolicy(network: network, token: Array(token), json: Array(reader.rest()))
    case 6:
      let isSetting = try Self.isSetting("member-tags", &reader)
      let network = try network("member-tags")
      guard let node = reader.u32() else { throw LocalError("managed member-tags: missing node_id") }
      self =
        isSetting
        ? .setMemberTags(network: network, node: node, json: Array(reader.rest()))
        : .memberTags(network: network, node: node)
    default: throw LocalError("managed: unknown sub-command \(hexadecimal(command))")
    }
  }

  private static func isSetting(_ verb: String, _ reader: inout ByteReader) throws(LocalError) -> Bool {
    switch reader.byte() {
    case 0: return false
    case 1: return true
    case nil: throw LocalError("managed \(verb): missing operation")
    case let other?: throw LocalError("managed \(verb): unknown operation \(hexadecimal(other))")
    }
  }
}

extension ByteReader {
  /// Everything that is left, as text; what is not UTF-8 is replaced.
  fileprivate mutating func text() -> String { String(decoding: rest(), as: UTF8.self) }
}
