// What surrounds port mappings in TunControl: the kernel's table of routes, what netcheck makes of answers, the forms.

import JSON
import PortMapping
import Session
import Testing
import Wire

@testable import TunControl

@Suite("Port mapping")
struct PortMappingFormTests {
  private static let head =
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"

  @Test("the default gateway is the one of the lowest metric, never over our own interface")
  func gateway() {
    func gateway(_ lines: String...) -> String? {
      DefaultGateway.parse(Self.head + lines.joined(separator: "\n") + "\n", except: "pilot0")?.description
    }
    let own = "pilot0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0"
    let wired = "eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0"
    let wireless = "wlan0\t00000000\t0102A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0"
    let network = "eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0"
    let half = "eth0\t00000000\t0109A8C0\t0003\t0\t0\t0\t00000080\t0\t0\t0"
    let down = "eth0\t00000000\t0109A8C0\t0002\t0\t0\t0\t00000000\t0\t0\t0"
    #expect(gateway(network, wireless, wired, half, down, own) == "192.168.1.1")
    #expect(gateway(wireless, network) == "192.168.2.1")
    #expect(gateway(own) == nil)
    #expect(gateway(network) == nil)
    for text in ["", "\n", Self.head, Self.head + "eth0\t00000000", Self.head + "a b c d e f g h i j"] {
      #expect(DefaultGateway.parse(text, except: "pilot0") == nil)
    }
  }

  @Test("a server that answers in the other protocol that it knows no such version is none of ours")
  func services() {
    let announced: [UInt8] = [2, 0x80, 0, 0] + [UInt8](repeating: 0, count: 20)
    #expect(Netcheck.service(answering: announced) == .pcp)
    #expect(Netcheck.service(answering: [2, 0x80, 0, 1] + [UInt8](repeating: 0, count: 20)) == nil)
    #expect(Netcheck.service(answering: [0, 128, 0, 0, 0, 0, 0, 1, 203, 0, 113, 9]) == .natPMP)
    #expect(Netcheck.service(answering: [0, 128, 0, 2, 0, 0, 0, 1]) == .natPMP)
    #expect(Netcheck.service(answering: [0, 128, 0, 1, 0, 0, 0, 1]) == nil)
    #expect(Netcheck.service(answering: []) == nil)
  }

  @Test("netcheck and status say what the router does, in words and as JSON")
  func forms() {
    var report = NetcheckReport(beacons: [])
    #expect(report.json["router"] == .null)
    report.router = NetcheckReport.Router(gateway: IPv6Address(mappedIPv4: 0xC0A8_0101))
    #expect(NetcheckReport.text(report.json).contains("192.168.1.1 opens no ports"))
    report.router?.services = [.pcp, .upnp]
    #expect(report.json["router"]?.flag("pcp") == true && report.json["router"]?.flag("nat_pmp") == false)
    #expect(NetcheckReport.text(report.json).contains("opens ports by PCP, UPnP"))

    func status(_ mapping: JSONValue) -> String { StatusForms.status(["port_mapping": mapping]) }
    #expect(status(["state": "none", "reason": "no default gateway"]).contains("no port mapping: no default gateway"))
    #expect(status(["state": "searching", "reason": nil]).contains("is asked for a port mapping"))
  }

  @Test("the PCP nonce is the same after a restart, and another one for others and on other networks")
  func nonces() throws {
    func nonce(_ seed: UInt8, _ server: UInt32, _ local: UInt32) throws -> PCPNonce {
      let identity = Identity(seed: try #require(Bytes32([UInt8](repeating: seed, count: 32))))
      let gateway = Endpoint(address: IPv6Address(mappedIPv4: server), port: MappingNetwork.port)
      return Node.nonce(identity, MappingNetwork(server: gateway, local: IPv6Address(mappedIPv4: local)))
    }
    let first = try nonce(1, 0xC0A8_0101, 0xC0A8_010A)
    let again = try nonce(1, 0xC0A8_0101, 0xC0A8_010A)
    #expect(first == again)
    for other in [
      try nonce(2, 0xC0A8_0101, 0xC0A8_010A), try nonce(1, 0xC0A8_0102, 0xC0A8_010A),
      try nonce(1, 0xC0A8_0101, 0xC0A8_010B),
    ] { #expect(first.high != other.high && first.low != other.low) }
  }

  @Test("netcheck and status say what the router of IPv6 lets in")
  func wordsOfIPv6() {
    var report = NetcheckReport(beacons: [])
    #expect(report.json["ipv6_router"] == .null && !NetcheckReport.text(report.json).contains("IPv6 router"))
    report.firewall = NetcheckReport.Router(gateway: IPv6Address(high: 0xFE80_0000_0000_0000, low: 1))
    #expect(NetcheckReport.text(report.json).contains("IPv6 router  fe80::1 is not asked to let peers in: no PCP"))
    report.firewall?.services = [.pcp]
    #expect(report.json["ipv6_router"]?.flag("pcp") == true)
    #expect(NetcheckReport.text(report.json).contains("fe80::1 lets peers in by PCP"))
    func status(_ hole: JSONValue) -> String { StatusForms.status(["ipv6_pinhole": hole]) }
    #expect(
      status(["state": "mapped", "protocol": "PCP", "external": "[2001:db8::2]:4000"])
        .contains("lets everybody in at [2001:db8::2]:4000 by PCP"))
    #expect(!status(["state": "none", "reason": "no answer by PCP"]).contains("PCP"))
  }
}
