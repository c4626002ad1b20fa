// One entry point per parser of PortMapping, as Fuzz/WireEntries.swift has them for Wire. PortMappingTests replays the
// corpus and seeded mutations of it.

import PortMapping
import Wire

typealias RoomEntry = PortMappingEntry

/// A parser, by the name of its corpus folder.
enum PortMappingEntry: String, CaseIterable {
  case portmapping

  /// Of each seed, in the room's tests.
  static let mutations = 60

  private static let nonce = PCPNonce(high: 2, low: 1)
  private static let network = MappingNetwork(
    server: Endpoint(address: IPv6Address(mappedIPv4: 0xC0A8_0101), port: MappingNetwork.port),
    local: IPv6Address(mappedIPv4: 0xC0A8_010A))
  private static let networkOfIPv6 = MappingNetwork(
    server: Endpoint(address: IPv6Address(high: 0xFE80_0000_0000_0000, low: 1), port: MappingNetwork.port),
    local: IPv6Address(high: 0x2001_0DB8_0000_0002, low: 0x10), scope: 2)

  /// Gives the bytes to the parsers, and to a machine in each of its states. nil: it held what it promises; else the
  /// promise that was broken.
  func violation(_ bytes: [UInt8]) -> String? {
    if let response = PCPMessage.Response(bytes) {
      guard bytes.count >= PCPMessage.headerSize, NATPMPMessage.Response(bytes) == nil else {
        return "bytes are read as both protocols"
      }
      guard response.mapping == nil || bytes.count >= PCPMessage.mapSize else { return "a short MAP is taken" }
    }
    // Asking by PCP, by NAT-PMP for the address, then for the mapping, by UPnP; for a pinhole by PCP.
    for steps in [0, 4, 8] {
      if let violation = violation(bytes, PortMapper(internalPort: 4000) { _ in Self.nonce }, Self.network, steps) {
        return violation
      }
    }
    let pinholes = PortMapper(internalPort: 4000, family: .ipv6) { _ in Self.nonce }
    return violation(bytes, pinholes, Self.networkOfIPv6, 0)
  }

  private func violation(
    _ bytes: [UInt8], _ machine: PortMapper, _ network: MappingNetwork, _ steps: Int
  ) -> String? {
    var mapper = machine
    var now: UInt64 = 1
    _ = mapper.handle(.network(network), now: now, entropy: 2)
    for _ in 0..<steps {
      now = max(now, mapper.nextDeadline ?? now)
      _ = mapper.handle(.tick, now: now, entropy: 3)
    }
    let actions = mapper.handle(.received(from: network.server, bytes), now: now, entropy: 4)
    guard actions.count <= 2 else { return "one datagram causes \(actions.count) actions" }
    if let external = mapper.mapping?.external {
      let isReached =
        if let address = external.address.mappedIPv4 {
          network.local.mappedIPv4 != nil && address >> 24 != 127 && address >> 28 < 14
        } else { network.local.mappedIPv4 == nil && external.address.high >> 61 == 1 }
      guard external.port != 0, isReached else { return "the machine believes in \(external)" }
    }
    guard let deadline = mapper.nextDeadline, deadline >= now else { return "nothing is ever tried again" }
    return nil
  }
}
