// What travels on the control socket: one JSON object per line in both directions. Used by ControlServer,
// ControlClient and, through them, by `pilot-tun` and `pilotctl`.
//
//     → {"verb":"ping","arguments":{"peer":"specialist-fx","count":2}}
//     ← {"status":"ok","more":true,"data":{…}}        any number of these, for verbs that stream
//     ← {"status":"ok","data":{…}}                    or {"status":"error","code":…,"message":…,"hint":…}

package import JSON

package enum ControlVerb: String, CaseIterable, Sendable {
  case status
  case peers
  case version
  /// The settings and where they came from, without secrets.
  case config
  case metrics
  /// The last lines of the log.
  case logLines = "log-lines"
  /// The level, or another one from now on.
  case logLevel = "log-level"
  case explain
  case resolve
  case ping
  case down
  case reload
  case waitOnline = "wait-online"
  case trustList = "trust-list"
  case trustRequest = "trust-request"
  case trustPending = "trust-pending"
  case trustApprove = "trust-approve"
  case trustReject = "trust-reject"
  case trustRevoke = "trust-revoke"
  case trustAcceptKey = "trust-accept-key"

  /// Tells nothing that the machine's other users could not see, and changes nothing.
  package var isOpenToAll: Bool { self == .status || self == .version }
}

package struct ControlRequest: Equatable, Sendable {
  package var verb: ControlVerb
  package var arguments: JSONValue

  /// No request is longer; neither side reads further.
  package static let lengthLimit = 64 * 1024

  package init(_ verb: ControlVerb, _ arguments: JSONValue = [:]) {
    self.verb = verb
    self.arguments = arguments
  }

  package init(parsing line: [UInt8]) throws(ControlError) {
    let value: JSONValue
    do {
      value = try JSONValue(parsing: line)
    } catch {
      throw ControlError(
        "invalid_request", "the request is not JSON: fault at byte \(error.offset)",
        hint: #"one object on one line: {"verb":"status"}"#)
    }
    guard let name = value["verb"]?.text else {
      throw ControlError("invalid_request", "the request names no verb", hint: #"{"verb":"status"}"#)
    }
    guard let verb = ControlVerb(rawValue: name) else {
      throw ControlError(
        "unknown_verb", "this node does not know the verb `\(name.prefix(40))`",
        hint: "the tool and the node may be of different versions; restart the node with the new one")
    }
    let arguments = value["arguments"] ?? [:]
    guard arguments.object != nil else {
      throw ControlError(
        "invalid_request", "`arguments` must be an object",
        hint: #"{"verb":"explain","arguments":{"peer":"NAME"}}"#)
    }
    self.init(verb, arguments)
  }

  package var encoded: [UInt8] {
    JSONValue.object(["verb": .text(verb.rawValue), "arguments": arguments]).encoded + [UInt8(ascii: "\n")]
  }
}

/// One line from the node.
package enum ControlReply: Equatable, Sendable {
  /// More lines follow.
  case part(JSONValue)
  case done(JSONValue)
  case failed(ControlError)

  package var encoded: [UInt8] {
    let value: JSONValue
    switch self {
    case .part(let data): value = ["status": "ok", "more": true, "data": data]
    case .done(let data): value = ["status": "ok", "data": data]
    case .failed(let error): value = error.json
    }
    return value.encoded + [UInt8(ascii: "\n")]
  }

  package init(parsing line: [UInt8]) throws(ControlError) {
    guard let value = try? JSONValue(parsing: line), let status = value["status"]?.text else {
      throw ControlError(
        "invalid_reply", "the node's answer is not understood",
        hint: "the tool and the node may be of different versions")
    }
    if status == "ok" {
      let data = value["data"] ?? [:]
      self = value.flag("more") ? .part(data) : .done(data)
    } else {
      self = .failed(
        ControlError(
          value["code"]?.text ?? "internal", value["message"]?.text ?? "the node failed without a message",
          hint: value["hint"]?.text))
    }
  }
}

extension ControlError {
  /// The form of failures on the socket and of `--json` on stderr.
  package var json: JSONValue {
    var members: [String: JSONValue] = ["status": "error", "code": .text(code), "message": .text(message)]
    if let hint { members["hint"] = .text(hint) }
    if let setting = subject?.setting { members["setting"] = .text(setting.rawValue) }
    if let place = subject?.place {
      members["file"] = .text(place.file)
      members["line"] = JSONValue(place.line)
      members["column"] = JSONValue(place.column)
    }
    return .object(members)
  }
}
