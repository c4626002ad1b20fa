// One entry point per parser of PortMapping, as Fuzz/WireEntries.swift has them for Wire. PortMappingTests replays the
// corpus and seeded mutations of it.

import PortMapping
import Wire

/// A parser, by the name of its corpus folder.
enum PortMappingEntry: String, CaseIterable {
  case portmapping

  private static let server = Endpoint(address: IPv6Address(mappedIPv4: 0xC0A8_0101), port: MappingNetwork.port)
  private static let local = IPv6Address(mappedIPv4: 0xC0A8_010A)

  /// Gives the bytes to the parsers, and to a machine in each of its states. nil: it held what it promises; else the
  /// promise that was broken.
  func violation(_ bytes: [UInt8]) -> String? {
    if let response = PCPMessage.Response(bytes) {
      guard bytes.count >= PCPMessage.headerSize, NATPMPMessage.Response(bytes) == nil else {
        return "bytes are read as both protocols"
      }
      guard response.mapping == nil || bytes.count >= PCPMessage.mapSize else { return "a short MAP is taken" }
    }
    // Asking by PCP, by NAT-PMP for the address, then for the mapping, by UPnP.
    for steps in [0, 4, 8] {
      var mapper = PortMapper(internalPort: 4000, entropy: 1)
      var now: UInt64 = 1
      _ = mapper.handle(.network(MappingNetwork(server: Self.server, local: Self.local)), now: now, entropy: 2)
      for _ in 0..<steps {
        now = max(now, mapper.nextDeadline ?? now)
        _ = mapper.handle(.tick, now: now, entropy: 3)
      }
      let actions = mapper.handle(.received(from: Self.server, bytes), now: now, entropy: 4)
      guard actions.count <= 2 else { return "one datagram causes \(actions.count) actions" }
      if let external = mapper.mapping?.external {
        guard external.port != 0, let address = external.address.mappedIPv4, address >> 24 != 127, address >> 28 < 14
        else { return "the machine believes in \(external)" }
      }
      guard let deadline = mapper.nextDeadline, deadline >= now else { return "nothing is ever tried again" }
    }
    return nil
  }
}
