// A machine whose network goes away and comes back, with a node on it whose peer is behind another NAT.

import Foundation
import Testing

extension KernelTests {
  @Suite("A network that comes back")
  struct NetworkReturnTests {
    @Test(
      "data flows again within two seconds, also when the routes come long after the address, relayed and direct",
      arguments: [("symmetric:symmetric", "relay"), ("port-restricted:port-restricted", "direct")])
    func returns(topology: String, path: String) throws {
      try NATFleet.with(topology) { fleet in
        try fleet.a.waitForPing(fleet.b.ipv6)
        try fleet.waitForPath(path, within: 10)
        let machine = try fleet.machine("a")
        let routes = try machine.command("ip -4 route show").split(separator: "\n").filter { $0.contains(" via ") }
        #expect(!routes.isEmpty)
        let traffic = try fleet.lab.start(
          in: fleet.a.namespace, ["ping", "-q", "-i", "0.2", "-w", "60", fleet.b.ipv6])
        try machine.command("ip link set eth0 down")
        Thread.sleep(forTimeInterval: 6)
        // The old way out is gone in the meantime.
        try fleet.flush("nat-a")
        try machine.command("ip link set eth0 up")
        Thread.sleep(forTimeInterval: 3)
        for route in routes { try machine.command("ip route replace \(route)") }
        let returned = Date()
        _ = try eventually("the peer answers", within: 20) {
          try fleet.a.run(["ping", "-q", "-c", "1", "-W", "0.2", fleet.b.ipv6]).isSuccess ? true : nil
        }
        let silence = Date().timeIntervalSince(returned)
        print("\(topology): the peer answers \(silence) s after the network's return")
        #expect(silence < 2)
        traffic.end()
        try fleet.waitForPath(path, within: 10)
      }
    }
  }
}
