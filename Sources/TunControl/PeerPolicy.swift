// Who gets packets in and out, as pure functions (docs/design.md: private by default). Node asks them whenever trust,
// records or networks change.

package import Directory
package import Engine
package import Wire

package enum PeerPolicy {
  /// What is allowed between this node and a peer.
  package struct Verdict: Equatable, Sendable {
    package var admission: Admission
    package var refusal: Refusal
  }

  /// - isTrusted: mutual trust or a shared network other than the backbone.
  /// - isOwnPublic: this node takes packets of everybody.
  /// - isPeerPublic: so does the peer.
  /// - hasPeerCome: the peer opened a tunnel to us by itself; then it wants our answers, although it may be private.
  /// - wasTrusted: trust ended, now or in an earlier run, and did not begin again.
  package static func verdict(
    isTrusted: Bool, isOwnPublic: Bool, isPeerPublic: Bool, hasPeerCome: Bool, wasTrusted: Bool = false
  ) -> Verdict {
    let mayAnswer = isOwnPublic && hasPeerCome
    return Verdict(
      admission: isTrusted || isOwnPublic ? .all : wasTrusted ? .repliesToOpened : .repliesOnly,
      refusal: isTrusted || isPeerPublic || mayAnswer ? .none : .prohibited)
  }

  /// What keeps packets out, in either direction, with the remedy; nil when nothing does.
  package static func problem(_ verdict: Verdict, hasPeerCome: Bool, address: PilotAddress) -> String? {
    if verdict.refusal == .prohibited {
      let inbound = hasPeerCome ? "; its packets are refused, too, until `pilot-tun trust approve \(address)`" : ""
      return
        "private and without mutual trust: packets to it are refused; ask with `pilot-tun trust request \(address)`"
        + inbound
    }
    guard verdict.admission != .all, hasPeerCome else { return nil }
    return "this node is private and does not trust it: its packets are refused (drop not-trusted), answers to "
      + "programs here come in; let it in with `pilot-tun trust approve \(address)`"
  }

  /// The word for `status`.
  package static func word(_ trust: TrustState) -> String {
    switch trust {
    case .trusted: "trusted"
    case .sharedNetwork(let network): "network \(network)"
    case .pending: "asks for trust"
    case .requested: "requested"
    case .none: "none"
    }
  }
}
