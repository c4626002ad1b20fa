// What official clients are told: the members they need, lists that fit into a frame, signed requests.

import Directory
import Gateway
import JSON
import LocalSocket
import Session
import Testing
import Wire

@testable import TunControl

@Suite("Local clients: forms")
struct LocalFormTests {
  private static let status: JSONValue = [
    "version": "0.1.0", "uptime_seconds": 61, "node_id": 71762, "address": "0:0000.0001.1852", "hostname": "agent",
    "public_key": "AAAA", "endpoint": "203.0.113.9:4000", "pending_requests": 2,
    "rendezvous": ["beacon": "203.0.113.1:9001"], "networks": [["id": 3, "address": "3:0003.0001.1852"]],
    "peers": [
      [
        "node_id": 1, "session": "established", "path": "direct", "endpoint": "198.51.100.7:4242", "tx_bytes": 10,
        "rx_bytes": 20, "tx_packets": 1, "rx_packets": 2,
      ],
      [
        "node_id": 2, "session": "established", "path": "relay", "endpoint": nil, "tx_bytes": 5, "rx_bytes": 6,
        "tx_packets": 3, "rx_packets": 4,
      ],
      ["node_id": 9, "session": "none", "path": "none", "endpoint": nil],
    ],
  ]

  private static func stream(_ id: UInt32, to node: UInt32, _ state: StreamRow.State = .established) -> StreamRow {
    StreamRow(
      id: id, localPort: 49152, remote: PilotAddress(network: 0, node: node), remotePort: 7, state: state)
  }

  @Test("Info has every number that official clients take for granted, and the features they ask for")
  func info() throws {
    let local = LocalStatus(streams: [Self.stream(1, to: 2), Self.stream(2, to: 1, .timeWait)], ports: 3)
    let info = LocalForms.info(Self.status, local)
    for name in [
      "node_id", "uptime_secs", "peers", "connections", "ports", "bytes_sent", "bytes_recv", "pkts_sent", "pkts_recv",
    ] {
      #expect(info[name]?.integer != nil, "\(name)")
    }
    #expect(info.int("peers") == 2 && info.int("connections") == 1 && info.int("ports") == 3)
    #expect(info.int("bytes_sent") == 15 && info.int("pkts_recv") == 6)
    #expect(info["features"] == ["reply_window"] && info.string("endpoint") == "203.0.113.9:4000")
    #expect(info["networks"] == [["network_id": 3, "address": "3:0003.0001.1852"]])
    // The one with an open stream first.
    #expect(info.items("peer_list").map { $0.int("node_id") } == [2, 1])
    #expect(info.items("peer_list").last?.string("endpoint") == "198.51.100.7:4242")
    let row = try #require(info.items("conn_list").first)
    for name in [
      "id", "local_port", "remote_port", "bytes_sent", "bytes_recv", "segs_sent", "segs_recv", "retransmits",
      "fast_retx", "sack_sent", "sack_recv", "dup_acks", "cong_win", "in_flight", "unacked", "ooo_buf",
      "peer_recv_win", "recv_win", "srtt_ms",
    ] {
      #expect(row.double(name) != nil, "\(name)")
    }
    #expect(row.string("state") == "ESTABLISHED" && row.string("remote_addr") == "0:0000.0000.0002")
    #expect(row.int("peer_recv_win") == 0 && row["in_recovery"] == false)
  }

  @Test("Health has its required numbers")
  func health() {
    let health = LocalForms.health(Self.status, LocalStatus(streams: [Self.stream(1, to: 2)]))
    for name in ["connections", "peers", "bytes_sent", "bytes_recv"] {
      #expect(health[name]?.integer != nil, "\(name)")
    }
    #expect(health.string("status") == "ok" && health.int("connections") == 1 && health.int("peers") == 2)
    #expect(health.string("beacon_addr") == "203.0.113.1:9001" && health.int("handshake_pending_count") == 2)
  }

  @Test("lists are cut where a frame ends, the first list last, and the counters keep the whole")
  func cut() {
    let peers = (1...15_000).map { node -> JSONValue in
      ["node_id": JSONValue(node), "session": "established", "path": "direct", "endpoint": "198.51.100.7:4242"]
    }
    let status = Self.status.adding(["peers": .list(peers)])
    let streams = (1...200).map { Self.stream($0, to: 8999) }
    let info = LocalForms.info(status, LocalStatus(streams: streams))
    #expect(info.encoded.count <= LocalSocketLimits.replyBody && info.encoded.count > LocalSocketLimits.replyBody - 300)
    #expect(info.flag("peer_list_truncated") && info["conn_list_truncated"] == nil)
    #expect(info.int("peers") == 15_000 && info.items("conn_list").count == 200)
    #expect(info.items("peer_list").first?.int("node_id") == 8999)
    let small = LocalForms.cut(["a": 1], [("x", [1, 2, 3]), ("y", [4])], limit: 90)
    #expect(small == ["a": 1, "x": [1, 2, 3], "y": [4]])
    let none = LocalForms.cut([:], [("x", [.text(String(repeating: "a", count: 200))])], limit: 100)
    #expect(none == ["x": [], "x_truncated": true])
  }

  @Test("rows of a registry that lack what clients index are left out")
  func rows() {
    let reply: JSONValue = [
      "type": "poll_invites_ok", "invites": [["network_id": 3, "inviter_id": 2], ["network_id": 3], [], 7],
    ]
    let passed = LocalAnswers.with(reply, "invites", having: ["network_id", "inviter_id"])
    #expect(passed == ["type": "poll_invites_ok", "invites": [["network_id": 3, "inviter_id": 2]]])
    #expect(LocalAnswers.with(["type": "x"], "invites", having: []) == ["type": "x", "invites": []])
  }

  @Test("an envelope is read as it was written, and by nothing else")
  func envelope() throws {
    let hash = RequestEnvelope.hash(Array("abc".utf8))
    #expect(hash == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    let address = PilotAddress(network: 0, node: 71762)
    let made = RequestEnvelope(
      sender: address, time: 1_795_370_310, nonce: "00112233445566aa", bodyHash: hash, audience: "list-agents.x")
    let envelope = try #require(made)
    let text = "pilot-req-v1|000000011852|1795370310|00112233445566aa|\(hash)|list-agents.x"
    #expect(envelope.text == text && RequestEnvelope(text) == envelope)
    for bad in [
      "", "pilot-req-v2" + text.dropFirst(12), text + "|", text.uppercased(), text.replacing("|1795", with: "|+1795"),
      text.replacing("000000011852", with: "00000011852"), text + String(repeating: "x", count: 600),
      text.replacing("list-agents.x", with: "list agents"), text.replacing("list-agents.x", with: ""),
      text.replacing("1795370310", with: "99999999999999999999"), text.replacing("aa|", with: "a|"),
    ] {
      #expect(RequestEnvelope(bad) == nil, "\(bad)")
    }
    let identity = Identity.generate()
    let signature = Base64.encode(identity.sign(Array(text.utf8)).bytes)
    func fault(_ signature: String, _ key: Bytes32, _ now: Int64) -> String? {
      envelope.fault(signature: signature, key: key, now: now, skew: 300)
    }
    #expect(fault(signature, identity.publicKey, 1_795_370_610) == nil)
    #expect(fault(signature, identity.publicKey, 1_795_370_010) == nil)
    #expect(fault(signature, identity.publicKey, 1_795_370_611) != nil)
    #expect(fault(signature, identity.publicKey, .min) != nil)
    #expect(fault(signature, Identity.generate().publicKey, 1_795_370_310) != nil)
    #expect(fault("AAAA", identity.publicKey, 1_795_370_310) != nil)
  }
}
