// What members may do in a network: limits that all know, and documents that the members evaluate themselves
// (wire/registry §6.3, §6.4).

import JSON
import Wire

extension RegistryService {
  private static let portLimit = 100
  private static let descriptionLimit = 256
  private static let memberLimit: Int64 = 1_000_000
  /// Every member fetches them, some every few seconds.
  private static let documentLimit = 64 << 10

  /// Anyone may ask: a daemon asks on a connection that has proven nothing yet, and would enforce no ports if refused.
  func networkPolicy(_ request: Request) {
    let id = request.body.network("network_id")
    perform(request.completion) { state throws(RequestError) in
      let policy = id == 0 ? NetworkPolicyRecord() : try state.network(id).policy
      return request.ok(Self.members(of: policy, id))
    }
  }

  private static func members(of policy: NetworkPolicyRecord, _ id: UInt16) -> [(String, JSONValue)] {
    [
      ("network_id", .whole(id)), ("max_members", .whole(policy.maxMembers)),
      ("allowed_ports", .list(policy.allowedPorts.map { .whole($0) })), ("description", .text(policy.text)),
    ]
  }

  /// Members of the request that are missing keep what they set before.
  func setNetworkPolicy(_ request: Request) {
    let body = request.body
    let id = body.network("network_id")
    administer(request, id) { state, network throws(RequestError) in
      var network = network
      if body["max_members"] != nil {
        guard let limit = body.integer("max_members"), (0...Self.memberLimit).contains(limit) else {
          throw RequestError("invalid max_members: 0 to \(Self.memberLimit)")
        }
        network.policy.maxMembers = UInt32(limit)
      }
      if let value = body["allowed_ports"] { network.policy.allowedPorts = try Self.ports(value) }
      if let value = body["description"] {
        guard case .text(let text) = value, text.count <= Self.descriptionLimit,
          text.utf8.count <= 4 * Self.descriptionLimit
        else { throw RequestError("invalid description: at most \(Self.descriptionLimit) characters") }
        network.policy.text = text
      }
      state.update(network)
      return request.ok(Self.members(of: network.policy, id))
    }
  }

  private static func ports(_ value: JSONValue) throws(RequestError) -> [UInt16] {
    let invalid = RequestError("invalid allowed_ports: at most \(portLimit) of 1 to 65535")
    if case .null = value { return [] }
    guard case .list(let values) = value, values.count <= portLimit else { throw invalid }
    var ports: [UInt16] = []
    for value in values {
      guard let port = JSONValue.integer(value).flatMap({ UInt16(exactly: $0) }), port != 0 else { throw invalid }
      if !ports.contains(port) { ports.append(port) }
    }
    return ports
  }

  // MARK: Documents

  func expressionPolicy(_ request: Request) {
    let id = request.body.network("network_id")
    perform(request.completion) { state throws(RequestError) in
      let text = id == 0 ? "" : try state.network(id).expression
      return request.ok([("network_id", .whole(id))] + (Self.document(text).map { [("expr_policy", $0)] } ?? []))
    }
  }

  /// The registry checks the frame of the document only: members evaluate it. None or an empty one clears.
  func setExpressionPolicy(_ request: Request) {
    let id = request.body.network("network_id")
    administer(request, id) { state, network throws(RequestError) in
      let document = try Self.document(request.body["expr_policy"], named: "expr_policy")
      if let document {
        guard document.integer("version") == 1, case .list? = document["rules"] else {
          throw RequestError("invalid expr_policy: version 1 with rules is required")
        }
      }
      var network = network
      network.expression = document?.written ?? ""
      state.update(network)
      var reply: [(String, JSONValue)] = [("network_id", .whole(id))]
      if document == nil { reply.append(("cleared", .bool(true))) }
      return request.ok(reply)
    }
  }

  /// Clients send documents as JSON text inside a string and read them as objects. Nil for none.
  static func document(_ value: JSONValue?, named name: String) throws(RequestError) -> JSONValue? {
    let invalid = RequestError("invalid \(name): a JSON object is required")
    switch value {
    case nil, .null?, .text("")?: return nil
    case .text(let text)?:
      guard text.utf8.count <= documentLimit else { throw RequestError("\(name) too long") }
      guard let object = document(text), case .object = object else { throw invalid }
      return object
    case .object?:
      guard let value, value.written.utf8.count <= documentLimit else { throw RequestError("\(name) too long") }
      return value
    default: throw invalid
    }
  }

  /// A document as it was stored.
  static func document(_ text: String) -> JSONValue? {
    text.isEmpty ? nil : try? JSONValue(parsing: Array(text.utf8), deepest: 32)
  }
}
