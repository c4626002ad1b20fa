// What surrounds port mappings in TunControl: the kernel's table of routes, what netcheck makes of answers, the forms.

import JSON
import PortMapping
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

  @Test("the gateway of the IPv6 route of the least metric is found; routes that reject, and our own, are none")
  func gatewayOfIPv6() {
    let zero = String(repeating: "0", count: 32)
    let link = "fe80000000000000000000000000000" + "1"
    let global = "20010db8000000020000000000000001"
    func line(
      _ destination: String, _ length: String, _ gateway: String, _ metric: String, _ flags: String, _ device: String
    ) -> String {
      "\(destination) \(length) \(zero) 00 \(gateway) \(metric) 00000001 00000000 \(flags) \(device)"
    }
    func found(_ lines: String...) -> String? {
      DefaultGateway.parseIPv6(lines.joined(separator: "\n") + "\n", except: "pilot0").map {
        "\($0.gateway) \($0.device)"
      }
    }
    let plain = line(zero, "00", link, "00000400", "00450003", "eth0")
    #expect(found(plain) == "fe80::1 eth0")
    #expect(found(plain, line(zero, "00", global, "00000100", "00000003", "eth1")) == "2001:db8:0:2::1 eth1")
    #expect(found(line(zero, "00", zero, "ffffffff", "00200200", "lo")) == nil)
    #expect(found(line(zero, "00", link, "00000400", "00000003", "pilot0")) == nil)
    #expect(found(line(zero, "00", zero, "00000400", "00000001", "eth0")) == nil, "a route without a gateway")
    #expect(found(line(global, "40", link, "00000400", "00000003", "eth0")) == nil)
    #expect(found("", "x", "1 2 3 4 5 6 7 8 9 10", String(repeating: "z", count: 200)) == nil)
  }
}
