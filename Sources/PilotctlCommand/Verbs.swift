// info, health, peers, find, ping.

import Directory
import Glibc
import JSON
import TunControl

enum Verbs {
  static func info(_ context: Context) throws(ControlError) -> Int32 {
    let info = PilotctlForms.info(try context.call(.status))
    return context.show(info, PilotctlForms.infoText(info))
  }

  static func health(_ context: Context) throws(ControlError) -> Int32 {
    let status = try context.call(.status)
    return context.show(PilotctlForms.health(status), PilotctlForms.healthText(status))
  }

  static func peers(_ context: Context) throws(ControlError) -> Int32 {
    var answer = try context.call(.peers)
    if let search = context.arguments.flags["search"] {
      let rows = answer.items("peers").filter { "\($0.int("node_id"))".contains(search) }
      answer = answer.adding(["peers": .list(rows)])
    }
    if let limit = try context.arguments.integer("limit", in: 0...1_000_000) {
      answer = answer.adding(["peers": .list(Array(answer.items("peers").prefix(limit)))])
    }
    let data = PilotctlForms.peers(answer)
    return context.show(data, PilotctlForms.peersText(data, showsAll: context.arguments.has("all")))
  }

  static func find(_ context: Context) throws(ControlError) -> Int32 {
    let name = try context.peer("find HOSTNAME")
    let data = PilotctlForms.find(try context.call(.resolve, ["name": .text(name)]))
    return context.show(data, PilotctlForms.findText(data))
  }
}

enum PingVerb {
  /// Unlike the official tool, status 1 also when the overall time ran out before anything came back.
  static func run(_ context: Context) throws(ControlError) -> Int32 {
    let arguments = context.arguments
    let target = try context.resolve(context.peer("ping PEER [--count N] [--timeout DUR]")).string("address")
    let count = try arguments.integer("count", in: 1...100_000) ?? 4
    let timeout = try arguments.duration("timeout") ?? 5
    if !arguments.isJSON { Output.line("PING \(target)") }
    let request: JSONValue = [
      "peer": .text(target), "count": JSONValue(count), "interval_ms": 1000,
      "deadline_ms": JSONValue(Int64(min(timeout, 86_400) * 1000)),
    ]
    let answer: JSONValue
    do {
      answer = try context.call(.ping, request, timeout: 30) { part in
        if !arguments.isJSON { Output.line(PilotctlForms.ping(part)) }
      }
    } catch  where error.code == "trust_required" {
      throw ControlError(error.code, error.message, hint: "run: pilotctl handshake \(target)")
    }
    let timedOut = answer.flag("timeout")
    let data = PilotctlForms.pings(answer, target: target, timedOut: timedOut)
    if arguments.isJSON {
      Output.line(PilotctlForms.success(data))
    } else if timedOut {
      Output.line("timeout")
    }
    let isReached = answer.int("received") > 0
    if !isReached, !arguments.isJSON {
      Output.standardError("hint:  pilot-tun explain \(target) says what is missing")
    }
    return isReached ? 0 : 1
  }
}
