// What a verb works with: the parsed line, the environment, the files under ~/.pilot, the way to the node.

import Directory
import Glibc
import JSON
import TunControl

struct Context {
  let arguments: PilotctlArguments
  let environment: [String: String]
  /// `~/.pilot`, or `.pilot` under PILOT_HOME.
  let home: String
  /// `config.json` there; an empty object when there is none.
  let settings: JSONValue

  var pidFile: String { home + "/pilot.pid" }
  /// Verb (or verb and sub-verb) taken off.
  var operands: [String] { Array(arguments.words.dropFirst()) }

  init(_ arguments: PilotctlArguments) throws(ControlError) {
    self.arguments = arguments
    let environment = ProcessEnvironment.all
    self.environment = environment
    home = (environment["PILOT_HOME"] ?? environment["HOME"] ?? "/root") + "/.pilot"
    guard let bytes = try? SmallFile.read(home + "/config.json") else {
      settings = [:]
      return
    }
    guard let value = try? JSONValue(parsing: bytes), value.object != nil else {
      throw ControlError(
        "invalid_argument", "\(home)/config.json is not a JSON object", hint: "correct it or remove it")
    }
    settings = value
  }

  /// `--socket`, PILOT_SOCKET, the configuration, the node's own default.
  var socket: String {
    if let path = arguments.flags["socket"] ?? environment["PILOT_SOCKET"] ?? settings["socket"]?.text { return path }
    return (try? ControlSocketLocation.resolve(flag: nil, environment: environment))
      ?? NodeConfiguration().controlSocket
  }

  /// Flag, then configuration, then environment, as `daemon start` reads them (wire/cli §3).
  func setting(_ name: String, variable: String? = nil) -> String? {
    arguments.flags[name] ?? settings[name]?.text ?? variable.flatMap { environment[$0] }
  }

  func call(
    _ verb: ControlVerb, _ request: JSONValue = [:], timeout: Int = 15, onPart: (JSONValue) -> Void = { _ in }
  ) throws(ControlError) -> JSONValue {
    do {
      return try ControlClient(path: socket).call(ControlRequest(verb, request), timeout: timeout, onPart: onPart)
    } catch  where error.code == "not_running" {
      throw ControlError(
        "not_running", "daemon is not running (no answer on \(socket))", hint: "run: pilotctl daemon start")
    }
  }

  /// The one operand that a verb needs.
  func peer(_ usage: String) throws(ControlError) -> String {
    guard let peer = operands.first else {
      throw ControlError("invalid_argument", "usage: pilotctl \(usage)", hint: "pilotctl --help")
    }
    return peer
  }

  /// Address of a peer argument; a hostname is announced on stderr in text mode.
  func resolve(_ peer: String) throws(ControlError) -> JSONValue {
    switch try PeerReference(peer) {
    case .address(let address): return AddressForms.describe(address)
    case .hostname(let name):
      let answer = try call(.resolve, ["name": .text(name)])
      if !arguments.isJSON { Output.standardError("resolved \"\(name)\" → \(answer.string("address"))") }
      return answer
    }
  }

  func show(_ data: JSONValue, _ text: String) -> Int32 {
    Output.line(arguments.isJSON ? PilotctlForms.success(data) : text)
    return 0
  }
}
