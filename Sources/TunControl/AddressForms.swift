// Pilot address ⇄ IPv6 for people (`pilot-tun address`), and the first step of finding out what a PEER argument means.

package import JSON
package import Wire

/// What a user wrote for a peer.
package enum PeerReference: Equatable, Sendable {
  case address(PilotAddress)
  case hostname(String)

  /// A Pilot address, an IPv6 overlay address, a bare node id (network 0), or a hostname with or without `.pilot`.
  package init(_ text: String) throws(ControlError) {
    let trimmed = String(trimming: text)
    if let address = PilotAddress(trimmed) {
      self = .address(address)
    } else if let address = IPv6Address(trimmed), address.mappedIPv4 == nil {
      guard let pilot = OverlayMapping.pilotAddress(from: address), pilot.network != OverlayMapping.localNetwork else {
        throw ControlError(
          "invalid_address", "\(address) is not the overlay address of a node",
          hint: "overlay addresses look like fd50:494c:4f54::1:1852", isUsage: true)
      }
      self = .address(pilot)
    } else if let node = UInt32(trimmed) {
      self = .address(PilotAddress(network: 0, node: node))
    } else {
      let lower = trimmed.lowercased()
      let name = lower.hasSuffix(".pilot") ? String(lower.dropLast(6)) : lower
      guard SettingReader.isHostname(name) else {
        throw ControlError(
          "invalid_argument", "`\(TextForms.plain(String(trimmed.prefix(80))))` is neither an address nor a hostname",
          hint: "give a hostname, a Pilot address (0:0000.0001.1852), an IPv6 overlay address or a node id",
          isUsage: true)
      }
      self = .hostname(name)
    }
    if case .address(let address) = self, address.node == 0 || address.node == PilotAddress.broadcastNode {
      throw ControlError(
        "invalid_address", "\(address) names no single node",
        hint: "name one node; a broadcast goes out by `pilotctl broadcast`", isUsage: true)
    }
  }
}

package enum AddressForms {
  /// The conversion that `pilot-tun address` prints.
  package static func convert(_ text: String) throws(ControlError) -> JSONValue {
    guard case .address(let address) = try PeerReference(text) else {
      throw ControlError(
        "invalid_address", "`\(TextForms.plain(text))` is neither a Pilot nor an IPv6 overlay address",
        hint: "names need a running node: pilot-tun resolve NAME", isUsage: true)
    }
    return describe(address)
  }

  /// `address`, `ipv6`, `network`, `node_id`: the members every output uses for a node.
  package static func describe(_ address: PilotAddress) -> JSONValue {
    [
      "address": .text(address.description), "ipv6": .text(OverlayMapping.address(for: address).description),
      "network": JSONValue(address.network), "node_id": JSONValue(address.node),
    ]
  }

  package static func text(_ data: JSONValue) -> String { "\(data.string("address"))  \(data.string("ipv6"))" }
}
