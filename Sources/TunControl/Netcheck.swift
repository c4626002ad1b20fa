// Runs a NetcheckMachine on two UDP sockets. Called by `pilot-tun netcheck`, in a process of its own: it may block.

import Glibc
import Directory
import LinkIO
import PortMapping
import Shim
package import TLSTransport
import Wire

package enum Netcheck {
  /// The beacons of the configuration, or those named; a node with a rendezvous of its own has none to ask.
  package static func beacons(
    named: [String], _ layers: ConfigurationLayers
  ) throws(ControlError) -> [HostPort] {
    guard named.isEmpty else {
      var beacons: [HostPort] = []
      for text in named {
        guard let beacon = HostPort(text, defaultPort: NodeConfiguration.beaconPort) else {
          throw ControlError(
            "invalid_argument", "`\(TextForms.plain(text))` is no beacon", hint: "HOST or HOST:PORT", isUsage: true)
        }
        beacons.append(beacon)
      }
      return beacons
    }
    let beacons = try NodeConfiguration(layers.withoutSecrets).beacons
    guard !beacons.isEmpty else {
      throw ControlError(
        "no_beacon", "no beacon is configured to ask",
        hint: "pilot-tun netcheck --rendezvous HOST, or --beacon HOST:PORT once or more", isUsage: true)
    }
    return beacons
  }

  /// Where the rendezvous would be reached by TLS: as configured, else the first beacon's host.
  package static func tls(named: [String], _ layers: ConfigurationLayers) throws(ControlError) -> TLSSettings? {
    var layers = layers
    // Not to find out what is set, but what would work.
    layers.flags[.transport] = [TransportMode.auto.rawValue]
    if layers.value(of: .registry) == nil, layers.value(of: .rendezvous) == nil,
      let first = named.first.flatMap({ HostPort($0, defaultPort: NodeConfiguration.beaconPort) })
    {
      layers.flags[.rendezvous] = [HostPort(host: first.host, port: NodeConfiguration.registryPort).description]
    }
    return try NodeConfiguration(layers).tls
  }

  /// Asks all of them, and the rendezvous by TLS, a few seconds at most. Throws when nothing answers either way.
  package static func run(_ beacons: [HostPort], tls: TLSSettings?) async throws(ControlError) -> NetcheckReport {
    async let secure = secureReport(tls)

    var targets: [(name: String, endpoint: Endpoint)] = []
    var problem: ControlError?
    for beacon in beacons {
      do {
        let found = try await HostResolver.endpoints(host: beacon.host, port: beacon.port)
        for endpoint in found where !targets.contains(where: { $0.endpoint == endpoint }) {
          targets.append((beacon.description, endpoint))
        }
      } catch { problem = ControlError(error) }
    }
    if targets.isEmpty, let problem {
      // The name may be known to the proxy alone.
      var report = NetcheckReport(beacons: [])
      report.tls = await secure
      guard report.tls?.isReached == true else { throw problem }
      return report
    }
    async let router = services(.ipv4)
    async let firewall = services(.ipv6)
    var report: NetcheckReport
    do {
      report = try ask(Array(targets.prefix(16)))
    } catch { throw ControlError(error) }
    report.tls = await secure
    guard report.hasUDP || report.tls?.isReached == true else {
      throw ControlError(
        "udp_blocked", "no beacon answered by UDP: " + beacons.map(\.description).joined(separator: ", "),
        hint: "UDP is blocked on the way, or the beacons do not run; "
          + report.beacons.map { "\($0.endpoint) \($0.hasRoute ? "no answer" : "no route")" }.joined(separator: ", ")
          + (report.tls?.problem.map { "; and \($0.message)" } ?? ""))
    }
    report.router = await router
    report.firewall = await firewall
    return report
  }

  private static func ask(_ targets: [(name: String, endpoint: Endpoint)]) throws(LinkError) -> NetcheckReport {
    let probe = try UDPSocket(port: 0, disabled: ["udp-gro"])
    let helper = try UDPSocket(port: 0, disabled: ["udp-gro"])
    var machine = NetcheckMachine(
      beacons: targets, local: LocalAddresses.list(except: ""), entropy: .random(in: 0...(.max)))
    var pending = machine.start(now: Clock.now())
    while true {
      while let action = pending.first {
        pending.removeFirst()
        guard case .send(let name, let bytes, let target) = action else { continue }
        let result =
          name == .probe
          ? send(bytes, to: target, fd: probe.fd, family: probe.family)
          : send(bytes, to: target, fd: helper.fd, family: helper.family)
        if result < 0 {
          let event = NetcheckMachine.Event.refused(
            name, to: target, size: bytes.count, isTooLong: result == -EMSGSIZE)
          pending += machine.handle(event, now: Clock.now())
        }
      }
      guard let deadline = machine.nextDeadline else { return machine.report }
      let now = Clock.now()
      wait(probe, helper, milliseconds: deadline > now ? Int32((deadline - now) / 1_000_000) + 1 : 0)
      for (name, datagrams) in [(NetcheckMachine.Socket.probe, receive(probe)), (.helper, receive(helper))] {
        for (bytes, from) in datagrams {
          pending += machine.handle(.received(name, from: from, bytes), now: Clock.now())
        }
      }
      pending += machine.handle(.tick, now: Clock.now())
    }
  }

  // MARK: Sockets

  private static func wait(_ one: borrowing UDPSocket, _ other: borrowing UDPSocket, milliseconds: Int32) {
    var both = [
      pollfd(fd: one.fd, events: Int16(POLLIN), revents: 0), pollfd(fd: other.fd, events: Int16(POLLIN), revents: 0),
    ]
    // An ICMP error wakes as POLLERR, again and again until it is read.
    if poll(&both, 2, milliseconds) > 0 {
      _ = pt_udp_drain_errors(one.fd)
      _ = pt_udp_drain_errors(other.fd)
    }
  }

  /// `scope`: the interface of a link-local target. Zero, or -errno.
  static func send(_ bytes: [UInt8], to target: Endpoint, scope: UInt32 = 0, fd: Int32, family: Int32) -> Int32 {
    var bytes = bytes
    return bytes.withUnsafeMutableBytes { buffer in
      var message = pt_send()
      message.data = buffer.baseAddress
      message.length = UInt32(buffer.count)
      message.to = pt_endpoint(target)
      message.to.scope = scope
      return min(0, pt_udp_send(fd, family, &message, 1))
    }
  }

  static func receive(_ socket: borrowing UDPSocket) -> [(bytes: [UInt8], from: Endpoint)] {
    var datagrams: [(bytes: [UInt8], from: Endpoint)] = []
    var buffer = [UInt8](repeating: 0, count: 2048)
    let fd = socket.fd
    // A flood must not keep us here.
    while datagrams.count < 64 {
      let got = buffer.withUnsafeMutableBytes { buffer -> (count: Int, from: Endpoint)? in
        var message = pt_receive()
        message.data = buffer.baseAddress
        message.capacity = UInt32(buffer.count)
        guard pt_udp_receive(fd, &message, 1) == 1 else { return nil }
        return (Int(message.length), Endpoint(message.from))
      }
      guard let got else { break }
      datagrams.append((Array(buffer.prefix(got.count)), got.from))
    }
    return datagrams
  }
}
