// What the programs print, literally.

import Directory
import JSON
import Testing
import TunControl
import Wire

@Suite("Outputs")
struct OutputFormTests {
  @Test("a ping that was answered, and one that was not")
  func pingLines() {
    let good: JSONValue = [
      "ok": true, "address": "0:0001.0000.002A", "rtt_ms": .number(1.234), "path": "direct",
      "endpoint": "10.0.0.2:4000",
    ]
    #expect(StatusForms.ping(good) == "✓ reply from 0:0001.0000.002A · 1.2 ms · direct 10.0.0.2:4000")
    let bad: JSONValue = ["ok": false, "address": "0:0001.0000.002A", "reason": "timeout"]
    #expect(StatusForms.ping(bad) == "✗ no reply from 0:0001.0000.002A · timeout")
  }

  @Test("pilotctl prints pings as users know them")
  func pilotctlPing() {
    #expect(
      PilotctlForms.ping(["ok": true, "seq": 1, "bytes": 16, "rtt_ms": .number(3.633105)])
        == "seq=1 bytes=16 time=3.633105ms")
    #expect(PilotctlForms.ping(["ok": false, "seq": 0, "reason": "timeout"]) == "seq=0 error: timeout")
    let answer: JSONValue = [
      "results": [
        ["ok": true, "seq": 0, "bytes": 16, "rtt_ms": .number(1.2461)], ["ok": false, "seq": 1, "reason": "x"],
      ]
    ]
    #expect(
      PilotctlForms.success(PilotctlForms.pings(answer, target: "0:0000.0000.0001", timedOut: false))
        == #"{"data":{"results":[{"bytes":16,"rtt_ms":1.246,"seq":0},{"error":"x","seq":1}],"target":"0:0000.0000.0001","timeout":false,"to":"0:0000.0000.0001"},"status":"ok"}"#
    )
  }

  @Test("durations are printed as Go prints them")
  func goDurations() {
    #expect(PilotctlForms.goDuration(milliseconds: 0.345) == "345µs")
    #expect(PilotctlForms.goDuration(milliseconds: 3.633105) == "3.633105ms")
    #expect(PilotctlForms.goDuration(milliseconds: 1500) == "1.5s")
  }

  @Test("an error object carries its message twice and escapes what HTML would")
  func errorObject() {
    let error = ControlError("not_found", "no <b> & c", hint: "look")
    #expect(
      PilotctlForms.failure(error)
        == #"{"code":"not_found","error":"no \u003cb\u003e \u0026 c","hint":"look","message":"no \u003cb\u003e \u0026 c","status":"error"}"#
    )
    #expect(
      error.json.line
        == #"{"code":"not_found","hint":"look","message":"no \u003cb\u003e \u0026 c","status":"error"}"#)
  }

  @Test("an error for people has its code, and what to do; that of pilotctl is as the official one")
  func errorText() {
    let error = ControlError("not_found", "no such name", hint: "look")
    #expect(Output.text(of: error) == "error: no such name [not_found]\nhint:  look")
    #expect(Output.text(of: error, showsCode: false) == "error: no such name\nhint:  look")
  }

  @Test("find, peers, trust and pending have the keys of the official tool")
  func pilotctlObjects() {
    let found: JSONValue = [
      "address": "0:0000.0000.0001", "hostname": "agent-b", "node_id": 1, "public": true, "ipv6": "x",
    ]
    #expect(
      PilotctlForms.success(PilotctlForms.find(found))
        == #"{"data":{"address":"0:0000.0000.0001","hostname":"agent-b","node_id":1,"public":true},"status":"ok"}"#)
    #expect(
      PilotctlForms.findText(PilotctlForms.find(found)) == """
        Hostname:  agent-b
        Node ID:   1
        Address:   0:0000.0000.0001
        Visible:   public
        """)
    let peers: JSONValue = ["peers": [["node_id": 1, "session": "established", "path": "direct"]]]
    #expect(
      PilotctlForms.success(PilotctlForms.peers(peers))
        == #"{"data":{"encrypted":1,"peers":[{"authenticated":true,"encrypted":true,"node_id":1,"relay":false}],"total":1},"status":"ok"}"#
    )
    #expect(
      PilotctlForms.success(PilotctlForms.peers(["peers": []]))
        == #"{"data":{"encrypted":0,"peers":null,"total":0},"status":"ok"}"#)
    let entries: JSONValue = [
      "trust": [["state": "trusted", "node_id": 3, "since_unix": 1_795_370_321, "public_key": "K"]]
    ]
    #expect(
      PilotctlForms.success(PilotctlForms.trusted(entries, search: nil, limit: nil))
        == #"{"data":{"total":1,"trusted":[{"approved_at":1795370321,"mutual":true,"network":0,"node_id":3,"public_key":"K"}]},"status":"ok"}"#
    )
    #expect(
      PilotctlForms.trustedText(PilotctlForms.trusted(entries, search: nil, limit: nil))
        == "Trusted peers — 1\n\n  node 3 · approved 2026-11-22 17:58")
  }

  @Test("address converts both ways and refuses what is neither")
  func addresses() throws {
    let pilot = try AddressForms.convert("0:0000.0001.1852")
    #expect(pilot.string("ipv6") == "fd50:494c:4f54::1:1852")
    #expect(try AddressForms.convert("fd50:494c:4f54::1:1852") == pilot)
    #expect(try AddressForms.convert("71762") == pilot)
    #expect(AddressForms.text(pilot) == "0:0000.0001.1852  fd50:494c:4f54::1:1852")
    for wrong in ["", "agent", "::1", "fd50:494c:4f54::", "0:0000.FFFF.FFFF", "1:0000.0000.0001", "10.0.0.1", "0"] {
      #expect(throws: ControlError.self, "\(wrong)") { try AddressForms.convert(wrong) }
    }
  }

  @Test("a peer is named by address, overlay address, node id or hostname")
  func references() throws {
    #expect(try PeerReference("specialist-FX.pilot") == .hostname("specialist-fx"))
    #expect(try PeerReference("2:0002.0000.0001") == .address(PilotAddress(network: 2, node: 1)))
    #expect(try PeerReference("fd50:494c:4f54:2::1") == .address(PilotAddress(network: 2, node: 1)))
    #expect(try PeerReference(" 11 ") == .address(PilotAddress(network: 0, node: 11)))
    for wrong in ["a b", "-x", "a\u{1b}[31m", "4294967295", "fd50:494c:4f54:ffff::53"] {
      #expect(throws: ControlError.self, "\(wrong)") { try PeerReference(wrong) }
    }
  }

  @Test("the status for people names address, path, drops and warnings")
  func statusText() {
    let status: JSONValue = [
      "version": "0.1.0", "uptime_seconds": 75, "address": "0:0000.0001.1852", "ipv6": "fd50:494c:4f54::1:1852",
      "hostname": "coordinator", "interface": "pilot0", "mtu": 1400, "listen": "[::]:4000",
      "public_key": "b3du",
      "rendezvous": ["registry": "10.0.0.1:9000", "beacon": "10.0.0.1:9001", "state": "registered", "embedded": false],
      "dns": ["running": true, "resolver": "fd50:494c:4f54:ffff::53"],
      "names": ["mechanism": "resolved", "proof": ["name": "coordinator.pilot", "ok": true]],
      "port_mapping": ["state": "mapped", "protocol": "PCP", "external": "203.0.113.9:4000"],
      "offloads": ["udp-gso": ["on": true, "reason": nil], "tun-uso": ["on": false, "reason": "kernel 5.10"]],
      "drops": ["replayed": 3, "not-trusted": 0], "warnings": ["keys are not locked"],
      "peers": [
        [
          "address": "0:0000.0002.0000", "hostname": "specialist-fx", "path": "direct", "endpoint": "10.0.0.3:4000",
          "session": "established", "trust": "trusted", "rtt_ms": .number(0.21), "tx_bytes": 1500, "rx_bytes": 20,
          "last_receive_seconds": .number(2.5),
        ]
      ],
    ]
    #expect(
      StatusForms.status(status) == """
        ● pilot-tun 0.1.0 · up 1m15s · registered
          address     0:0000.0001.1852 · coordinator.pilot
          ipv6        fd50:494c:4f54::1:1852 on pilot0, mtu 1400
          key         b3du
          udp         [::]:4000
          router      maps 203.0.113.9:4000 to here by PCP
          rendezvous  registry 10.0.0.1:9000 · beacon 10.0.0.1:9001
          names       stub on fd50:494c:4f54:ffff::53
                      asked by systemd-resolved · coordinator.pilot is found
          offloads    tun-uso off (kernel 5.10) · udp-gso
          access      private: trusted peers only
          ! keys are not locked

        1 peer · 1 direct · 0 relayed
          NAME           ADDRESS           PATH                  SESSION      TRUST    RTT      SENT    RECEIVED  HEARD
          specialist-fx  0:0000.0002.0000  direct 10.0.0.3:4000  established  trusted  0.21 ms  1.5 KB  20 B      2s ago

        dropped packets
          replayed  3
        """)
  }

  @Test("text from elsewhere cannot move the cursor or forge lines")
  func controlCharacters() {
    #expect(TextForms.plain("a\u{1b}[2Jb\nc\u{9b}d") == "a [2Jb c d")
  }

  @Test("durations, sizes and decimals for people")
  func smallForms() {
    #expect(TextForms.duration(seconds: 59) == "59s")
    #expect(TextForms.duration(seconds: 3599) == "59m59s")
    #expect(TextForms.duration(seconds: 86_400) == "1d0h")
    #expect(TextForms.bytes(999) == "999 B")
    #expect(TextForms.bytes(1000) == "1.0 KB")
    #expect(TextForms.bytes(3_400_000_000) == "3.4 GB")
    #expect(TextForms.decimal(0.999, 2) == "1.00")
    #expect(TextForms.decimal(-0.001, 2) == "0.00")
    #expect(TextForms.decimal(.infinity, 2) == "?")
  }
}
