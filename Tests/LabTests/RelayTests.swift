// Relayed pairs that lose their relay: several beacons, and a node that relays for peers that trust it.

import Foundation
import Testing

extension KernelTests {
  @Suite("Relays")
  struct RelayTests {
    /// A transfer from b to a that goes on while relays die.
    private func startTransfer(_ fleet: NATFleet, octets: Int) throws -> Program {
      _ = try fleet.b.helper(Tools.python("tcp_serve", fleet.b.ipv6, "5001", "\(octets)"))
      let fetch = try fleet.lab.start(
        in: fleet.a.namespace, Tools.python("tcp_fetch", fleet.b.ipv6, "5001"))
      let before = try fleet.a.peer(fleet.b)["rx_bytes"].number
      _ = try eventually("the transfer is under way", within: 20) {
        try fleet.a.peer(fleet.b)["rx_bytes"].number > before + (1 << 20) ? true : nil
      }
      return fetch
    }

    private func finish(_ fetch: Program) throws {
      let outcome = try fetch.wait(within: 60).orThrow()
      #expect(outcome.output.contains("the content is right"))
    }

    @Test("three beacons: when the one in use dies, the pair goes on through another within seconds, twice")
    func beaconLoss() throws {
      try NATFleet.with("symmetric:symmetric", isStarted: false) { fleet in
        var beacons = [String: Program]()
        beacons["203.0.113.2:9001"] = fleet.servers["rendezvous"]
        for (machine, endpoint) in [("beacon2", "203.0.113.6:9101"), ("rendezvous", "203.0.113.2:9201")] {
          let port = endpoint.split(separator: ":")[1]
          let program = try fleet.lab.start(
            in: fleet.machine(machine), [Tools.rendezvous, "beacon", "--beacon-listen", "0.0.0.0:\(port)"])
          try program.waitForLine(containing: "beacon ready")
          beacons[endpoint] = program
        }
        let order = ["203.0.113.2:9001", "203.0.113.6:9101", "203.0.113.2:9201"]
        for node in [fleet.a, fleet.b] {
          node.flags += order.flatMap { ["--beacon", $0] }
          try node.start()
        }
        try fleet.a.waitForPing(fleet.b.ipv6)
        try fleet.waitForPath("relay", within: 10)
        let beaconsOfA = try fleet.a.status()["rendezvous"]["beacons"].list
        #expect(beaconsOfA.map { $0["endpoint"].text } == order)
        #expect(beaconsOfA.map { $0["state"].text }.sorted() == ["home", "known", "known"])

        let fetch = try startTransfer(fleet, octets: 96 << 20)
        for step in 1...2 {
          // The one that carries the transfer; both ends use the same.
          let used = try eventually("both ends use one relay", within: 10) { () throws -> String? in
            let relays = try [fleet.a.peer(fleet.b), fleet.b.peer(fleet.a)].map { $0["relay"].text }
            return relays[0] == relays[1] && beacons[relays[0]] != nil ? relays[0] : nil
          }
          let received = try fleet.a.peer(fleet.b)["rx_bytes"].number
          beacons[used]?.end(SIGKILL)
          beacons[used] = nil
          let died = Date()
          _ = try eventually("both ends use another relay", within: 10) {
            try [fleet.a.peer(fleet.b), fleet.b.peer(fleet.a)]
              .allSatisfy { beacons[$0["relay"].text] != nil } ? true : nil
          }
          let moved = Date().timeIntervalSince(died)
          #expect(moved < 4)
          // TCP sends again when its own timer says so: after 1.4, 3, 6.2 s of silence.
          _ = try eventually("octets come", within: 10) {
            try fleet.a.peer(fleet.b)["rx_bytes"].number > received + (256 << 10) || !fetch.isRunning ? true : nil
          }
          let flowing = Date().timeIntervalSince(died)
          _ = try eventually("home is another beacon", within: 10) {
            let homes = try [fleet.a, fleet.b].map { try $0.status()["rendezvous"]["beacon"].text }
            return homes.allSatisfy { beacons[$0] != nil } ? true : nil
          }
          let settled = Date().timeIntervalSince(died)
          print(
            "death \(step) of \(used): the pair moved after \(moved) s, TCP flowed after \(flowing) s, home was another after \(settled) s"
          )
          #expect(settled < 10)
        }
        try finish(fetch)
        try fleet.waitForPath("relay", within: 1)
        #expect(try fleet.a.peer(fleet.b)["relay"].text == beacons.keys.first)
      }
    }

    @Test("a node relays for two that trust it when the beacon is gone, and for nobody else")
    func peerRelay() throws {
      try NATFleet.with("symmetric:symmetric", isStarted: false) { fleet in
        let relay = try LabNode(
          "relay", fleet.machine("beacon2"), rendezvous: "203.0.113.2", lab: fleet.lab,
          flags: ["--relay", "--trust-auto-approve"])
        try relay.start()
        for node in [fleet.a, fleet.b] { try node.start() }
        try fleet.a.waitForPing(fleet.b.ipv6)
        try fleet.waitForPath("relay", within: 10)
        #expect(try relay.status()["relay"]["offered"].isTrue)
        #expect(try fleet.a.status()["relay"]["through"].list.isEmpty)
        for node in [fleet.a, fleet.b] {
          _ = try node.tun("trust", "request", relay.address).orThrow()
          _ = try eventually("\(node.name) may use the relay", within: 30) {
            try node.status()["relay"]["through"].list.map(\.text) == [relay.address] ? true : nil
          }
        }
        #expect(try relay.status()["relay"]["peers"].number == 2)
        let fetch = try startTransfer(fleet, octets: 64 << 20)
        fleet.servers["rendezvous"]?.end(SIGKILL)
        let died = Date()
        _ = try eventually("the pair goes on through the relay", within: 10) {
          let ends = try [fleet.a.peer(fleet.b), fleet.b.peer(fleet.a)]
          return ends.allSatisfy { $0["relay"].text == relay.address } ? true : nil
        }
        print("the beacon's death: the pair is on the relay after \(Date().timeIntervalSince(died)) s")
        try finish(fetch)
        #expect(try relay.counter("relayed-packets") > 1000)
        #expect(try relay.counter("relayed-bytes") > 1 << 20)
        #expect(try relay.drops("relay-not-allowed") == 0)
        // The relay is remembered, though nobody tells of it: it is all there is now.
        fleet.a.stop()
        try fleet.a.start()
        _ = try eventually("the relay is known again", within: 10) {
          try fleet.a.status()["relay"]["through"].list.map(\.text) == [relay.address] ? true : nil
        }
        try fleet.a.waitForPing(fleet.b.ipv6)
        // Without trust it relays no more, and the pair has no way left.
        _ = try relay.tun("trust", "revoke", fleet.b.address)
        _ = try eventually("the offer is gone", within: 20) {
          try fleet.b.status()["relay"]["through"].list.isEmpty ? true : nil
        }
        let ping = try fleet.a.run(["ping", "-c", "3", "-W", "1", fleet.b.ipv6])
        #expect(!ping.isSuccess)
      }
    }
  }
}
