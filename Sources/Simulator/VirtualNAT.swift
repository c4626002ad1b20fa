// A NAT after RFC 4787 (and a stateful firewall, which is one that translates nothing) as a pure value: datagrams and
// times in, endpoints out. VirtualRouter holds one per address family.

package import SeededRandom
package import Wire

package struct VirtualNAT: Sendable {
  /// On what of the remote endpoint a mapping, or a filter, depends (RFC 4787 §4.1, §5).
  package enum Dependence: String, Sendable, CaseIterable {
    case endpointIndependent = "EI"
    case addressDependent = "AD"
    case addressAndPortDependent = "APD"

    /// The part of a remote endpoint that counts.
    func part(of remote: Endpoint) -> Endpoint {
      switch self {
      case .endpointIndependent: VirtualNAT.nowhere
      case .addressDependent: Endpoint(address: remote.address, port: 0)
      case .addressAndPortDependent: remote
      }
    }
  }

  package enum PortAllocation: String, Sendable, CaseIterable { case preserving, sequential, random }

  package struct Behaviour: Sendable, CustomStringConvertible {
    package var mapping = Dependence.endpointIndependent
    package var filtering = Dependence.addressAndPortDependent
    package var allocation = PortAllocation.preserving
    /// A mapping, and a permission of the filter, ends this long after its last outbound datagram.
    package var timeout: UInt64 = 120_000_000_000
    package var isRefreshedByInbound = false
    package var hairpins = false
    /// False: a firewall with the same filters, for IPv6 say.
    package var translates = true

    package init(
      mapping: Dependence = .endpointIndependent, filtering: Dependence = .addressAndPortDependent,
      allocation: PortAllocation = .preserving, timeout: UInt64 = 120_000_000_000, isRefreshedByInbound: Bool = false,
      hairpins: Bool = false, translates: Bool = true
    ) {
      self.mapping = mapping
      self.filtering = filtering
      self.allocation = allocation
      self.timeout = timeout
      self.isRefreshedByInbound = isRefreshedByInbound
      self.hairpins = hairpins
      self.translates = translates
    }

    package var description: String {
      (translates ? "\(mapping.rawValue)-mapping/" : "firewall/")
        + "\(filtering.rawValue)-filter \(allocation)\(hairpins ? " hairpin" : "")"
    }
  }

  /// Why an inbound datagram ends here.
  package enum Refusal: String, Sendable, Error {
    case noMapping = "no mapping"
    case filtered = "filtered"
  }

  private struct Key: Hashable {
    var inner: Endpoint
    var remote: Endpoint
  }

  private struct Mapping {
    var key: Key
    var usedAt: UInt64
    /// When each part of a remote that the filter looks at was last sent to.
    var permitted: [Endpoint: UInt64]
  }

  package let behaviour: Behaviour
  package private(set) var external: IPv6Address
  private var outward: [Key: Endpoint] = [:]
  private var inward: [Endpoint: Mapping] = [:]
  private var lastPort: UInt16
  private var sweepAbove = 64
  fileprivate static let nowhere = Endpoint(address: IPv6Address(high: 0, low: 0), port: 0)

  /// `firstPort`: where sequential allocation begins.
  package init(external: IPv6Address, behaviour: Behaviour, firstPort: UInt16 = 20_000) {
    self.external = external
    self.behaviour = behaviour
    lastPort = firstPort
  }

  /// Mappings that are in the table, dead ones included.
  package var mappingCount: Int { inward.count }

  /// A datagram goes out: the endpoint it leaves with. Nil: no port is free.
  package mutating func outbound(
    from inner: Endpoint, to remote: Endpoint, now: UInt64, using generator: inout SeededGenerator
  ) -> Endpoint? {
    let key = Key(inner: inner, remote: behaviour.translates ? behaviour.mapping.part(of: remote) : Self.nowhere)
    let permission = behaviour.filtering.part(of: remote)
    // Its port may have gone to another mapping meanwhile.
    if let known = outward[key], let mapping = inward[known], mapping.key == key, isAlive(mapping, now) {
      inward[known]?.usedAt = now
      inward[known]?.permitted[permission] = now
      return known
    }
    if inward.count > sweepAbove { sweep(now) }
    var outer = inner
    if behaviour.translates {
      guard let port = freePort(like: inner.port, now, &generator) else { return nil }
      outer = Endpoint(address: external, port: port)
    }
    outward[key] = outer
    inward[outer] = Mapping(key: key, usedAt: now, permitted: [permission: now])
    return outer
  }

  /// A datagram comes in: the endpoint behind.
  package mutating func inbound(from remote: Endpoint, to outer: Endpoint, now: UInt64) -> Result<Endpoint, Refusal> {
    guard let mapping = inward[outer], isAlive(mapping, now) else { return .failure(.noMapping) }
    let part = behaviour.filtering.part(of: remote)
    guard let sentAt = mapping.permitted[part], now <= sentAt + behaviour.timeout else { return .failure(.filtered) }
    if behaviour.isRefreshedByInbound {
      inward[outer]?.usedAt = now
      inward[outer]?.permitted[part] = now
    }
    return .success(mapping.key.inner)
  }

  /// The table is lost: a restart, or an operator.
  package mutating func flush() {
    outward = [:]
    inward = [:]
  }

  /// The provider gives another address; the table goes with the old one.
  package mutating func renumber(to external: IPv6Address) {
    self.external = external
    flush()
  }

  private func isAlive(_ mapping: Mapping?, _ now: UInt64) -> Bool {
    mapping.map { now <= $0.usedAt + behaviour.timeout } ?? false
  }

  private func isFree(_ port: UInt16, _ now: UInt64) -> Bool {
    port >= 1024 && !isAlive(inward[Endpoint(address: external, port: port)], now)
  }

  private mutating func freePort(like own: UInt16, _ now: UInt64, _ generator: inout SeededGenerator) -> UInt16? {
    switch behaviour.allocation {
    case .preserving:
      for step in 0..<UInt16.max where isFree(own &+ step, now) { return own &+ step }
    case .sequential:
      for _ in 0..<UInt16.max {
        lastPort &+= 1
        if isFree(lastPort, now) { return lastPort }
      }
    case .random:
      for _ in 0..<4096 {
        let port = UInt16.random(in: 1024...UInt16.max, using: &generator)
        if isFree(port, now) { return port }
      }
    }
    return nil
  }

  private mutating func sweep(_ now: UInt64) {
    inward = inward.filter { isAlive($0.value, now) }
    outward = outward.filter { inward[$0.value]?.key == $0.key }
    sweepAbove = max(64, inward.count * 2)
  }
}

extension VirtualNAT.Behaviour {
  /// The names that RFC 3489 gave to common NATs.
  package static let fullCone = Self(filtering: .endpointIndependent)
  package static let addressRestricted = Self(filtering: .addressDependent)
  package static let portRestricted = Self()
  package static let symmetric = Self(mapping: .addressAndPortDependent, allocation: .random)
  /// Symmetric, its ports one after the other: they can be predicted.
  package static let symmetricSequential = Self(mapping: .addressAndPortDependent, allocation: .sequential)
  package static let firewall = Self(translates: false)

  /// Every pair of mapping and filtering; ports are preserved where the mapping allows it to mean anything.
  package static let all: [Self] = VirtualNAT.Dependence.allCases.flatMap { mapping in
    VirtualNAT.Dependence.allCases.map { filtering in
      Self(
        mapping: mapping, filtering: filtering,
        allocation: mapping == .endpointIndependent ? .preserving : .random)
    }
  }
}
