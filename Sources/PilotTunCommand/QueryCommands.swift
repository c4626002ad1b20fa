// Verbs that ask a running node, and the two that need none (`address`, `version`).

import ArgumentParser
import Directory
import JSON
import TunControl

struct Down: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Stop the running node.")
  @OptionGroup var common: CommonOptions

  func run() throws {
    let client = try common.client()
    let data = try client.call(ControlRequest(.down))
    try client.waitUntilGone()
    Output.show(data, isJSON: common.json) { "stopped (pid \($0.int("pid")))" }
  }
}

struct Status: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Show the node, its peers and what it drops.")
  @OptionGroup var common: CommonOptions

  func run() throws { try common.show(ControlRequest(.status), StatusForms.status) }
}

struct Peers: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "List the peers and how they are reached.")
  @OptionGroup var common: CommonOptions

  func run() throws { try common.show(ControlRequest(.peers), StatusForms.peers) }
}

struct Explain: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Say step by step why a peer is reachable or not.")
  @Argument(help: "Hostname, address or node id.") var peer: String
  @OptionGroup var common: CommonOptions

  func run() throws {
    try common.show(ControlRequest(.explain, ["peer": .text(peer)]), StatusForms.explain)
  }
}

struct Resolve: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Find the address of a name.")
  @Argument(help: "Hostname, with or without .pilot.") var name: String
  @OptionGroup var common: CommonOptions

  func run() throws {
    try common.show(ControlRequest(.resolve, ["name": .text(name)])) { data in
      "\(data.string("hostname"))  \(data.string("address"))  \(data.string("ipv6"))"
        + (data.flag("from_cache") ? "  (remembered; the rendezvous does not answer)" : "")
    }
  }
}

struct Address: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Convert between Pilot and IPv6 addresses; needs no running node.")
  @Argument(help: "Pilot address, IPv6 overlay address or node id.") var text: String
  @OptionGroup var common: CommonOptions

  func run() throws {
    Output.show(try AddressForms.convert(text), isJSON: common.json, AddressForms.text)
  }
}

struct Version: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Show the version of this program.")
  @OptionGroup var common: CommonOptions

  func run() {
    Output.show(["version": .text(PilotTunVersion.text)], isJSON: common.json) { $0.string("version") }
  }
}
