// `pilot-tun ping`: one line per packet as it comes back, or one JSON object at the end.

import ArgumentParser
import Directory
import JSON
import TunControl

struct Ping: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measure the way to a peer through the tunnel.",
    discussion: "Exit status 0 when something came back (with --until-direct: directly), 1 when not.")
  @Argument(help: "Hostname, address or node id.") var peer: String
  @Option(help: "Packets to send (default 4, with --until-direct 60).") var count: Int?
  @Option(help: "Seconds between packets.") var interval = 1.0
  @Flag(help: "Stop as soon as a reply took the direct path.") var untilDirect = false
  @OptionGroup var common: CommonOptions

  func validate() throws {
    guard count.map({ (1...100_000).contains($0) }) ?? true else {
      throw ValidationError("--count must be between 1 and 100000")
    }
    guard interval >= 0.01, interval <= 3600 else {
      throw ValidationError("--interval must be between 0.01 and 3600 seconds")
    }
  }

  func run() throws {
    let request = ControlRequest(
      .ping,
      [
        "peer": .text(peer), "count": JSONValue(count ?? (untilDirect ? 60 : 4)),
        "interval_ms": JSONValue(Int64(interval * 1000)), "until_direct": JSONValue(untilDirect),
      ])
    let data = try common.client().call(request, timeout: Int(interval) + 30) { part in
      if !common.json { Output.line(StatusForms.ping(part)) }
    }
    let isGood = data.int("received") > 0 && (!untilDirect || data.flag("direct"))
    if isGood {
      if common.json { Output.show(data, isJSON: true) { _ in "" } }
      return
    }
    // People have seen the lines; programs get the whole as an error.
    guard common.json else { throw ExitCode(1) }
    let isReached = data.int("received") > 0
    let last = data.items("results").last?.string("reason") ?? "nothing came back"
    Output.standardError(
      ControlError(
        isReached ? "not_direct" : "no_reply",
        isReached ? "no reply took the direct path" : "no reply from \(data.string("address")): \(last)",
        hint: "pilot-tun explain \(peer)"
      ).json.adding(["data": data]).line)
    throw ExitCode(1)
  }
}
