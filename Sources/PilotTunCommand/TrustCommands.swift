// `pilot-tun trust …`: who may send packets here.

import ArgumentParser
import Directory
import JSON
import TunControl

struct Trust: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Who may send packets to this node.",
    discussion: "Two nodes trust each other when one asked and the other approved, or when both asked.",
    subcommands: [
      List.self, Request.self, Pending.self, Approve.self, Reject.self, Revoke.self, AcceptKey.self,
    ])

  struct List: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "List trusted peers and open requests.")
    @OptionGroup var common: CommonOptions
    func run() throws { try common.show(ControlRequest(.trustList), StatusForms.trust) }
  }

  struct Pending: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "List requests that wait for an answer.")
    @OptionGroup var common: CommonOptions
    func run() throws { try common.show(ControlRequest(.trustPending), StatusForms.trust) }
  }

  struct Request: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Ask a peer for trust.")
    @Argument(help: "Hostname, address or node id.") var peer: String
    @Argument(help: "Shown to the peer's operator.") var reason: String?
    @OptionGroup var common: CommonOptions
    func run() throws {
      try common.show(
        ControlRequest(.trustRequest, ["peer": .text(peer), "reason": .text(reason ?? "")])
      ) { data in
        data.string("state") == "trusted"
          ? "\(data.string("address")) is trusted"
          : "asked \(data.string("address")); its operator approves with: pilot-tun trust approve \(data.string("own_address"))"
      }
    }
  }

  struct Approve: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Accept a peer's request.")
    @Argument(help: "Hostname, address or node id.") var peer: String
    @OptionGroup var common: CommonOptions
    func run() throws {
      try common.show(ControlRequest(.trustApprove, ["peer": .text(peer)])) { "\($0.string("address")) is trusted" }
    }
  }

  struct Reject: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Refuse a peer's request.")
    @Argument(help: "Hostname, address or node id.") var peer: String
    @Argument(help: "Told to the peer.") var reason: String?
    @OptionGroup var common: CommonOptions
    func run() throws {
      try common.show(
        ControlRequest(.trustReject, ["peer": .text(peer), "reason": .text(reason ?? "")])
      ) { "\($0.string("address")) is refused" }
    }
  }

  struct Revoke: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Withdraw trust; the peer's packets stop at once.")
    @Argument(help: "Hostname, address or node id.") var peer: String
    @OptionGroup var common: CommonOptions
    func run() throws {
      try common.show(ControlRequest(.trustRevoke, ["peer": .text(peer)])) {
        "\($0.string("address")) is no longer trusted"
      }
    }
  }

  struct AcceptKey: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "accept-key", abstract: "Accept that a peer has a new identity key.",
      discussion: "Do this only when its operator confirms that the node was set up anew.")
    @Argument(help: "Hostname, address or node id.") var peer: String
    @OptionGroup var common: CommonOptions
    func run() throws {
      try common.show(ControlRequest(.trustAcceptKey, ["peer": .text(peer)])) {
        "the next key that \($0.string("address")) proves will be pinned"
      }
    }
  }
}
