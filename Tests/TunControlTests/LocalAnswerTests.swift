// Answers to local clients that the directory gives, by the project's own rendezvous.

import Directory
import Glibc
import JSON
import LocalSocket
import Logging
import Rendezvous
import Session
import Testing
import Wire

@testable import TunControl

private let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// A rendezvous and two nodes of it, without workers.
private final class Bed: Sendable {
  let path: String
  let rendezvous: RendezvousServer
  let a: Directory
  let b: Directory
  private let services: [Task<Void, Never>]

  init() async throws {
    var template = Array("/tmp/local-answers-XXXXXX".utf8CString)
    path = template.withUnsafeMutableBufferPointer {
      $0.baseAddress.flatMap { mkdtemp($0) }.map { String(cString: $0) } ?? ""
    }
    let loopback = IPv6Address(mappedIPv4: 0x7F00_0001)
    var configuration = RendezvousConfiguration(
      stateDirectory: path + "/rendezvous", registryListen: Endpoint(address: loopback, port: 0),
      beaconListen: Endpoint(address: loopback, port: 0))
    configuration.networks = [NetworkSpecification(name: "team", token: "sekrit")]
    rendezvous = RendezvousServer(configuration: configuration, logger: quiet)
    let port = try await rendezvous.start().registry.port
    a = try Self.directory(path + "/a", "agent-a", port)
    b = try Self.directory(path + "/b", "agent-b", port)
    services = [a, b].map { directory in Task { await directory.run() } }
    for directory in [a, b] {
      for await event in directory.events {
        if case .stateChanged(.connected) = event { break }
      }
    }
  }

  private static func directory(_ path: String, _ name: String, _ port: UInt16) throws -> Directory {
    var configuration = DirectoryConfiguration(registryHost: "127.0.0.1", registryPort: port, hostname: name)
    configuration.timing.pollGap = .milliseconds(10)
    return Directory(
      configuration: configuration, store: try NodeStore(directory: path, logger: quiet),
      announcement: Announcement(listenAddress: "127.0.0.1:4000"), logger: quiet)
  }

  func stop() async {
    for service in services { service.cancel() }
    for service in services { await service.value }
    await rendezvous.shutdown()
    for directory in [a, b] { directory.store.close() }
    Folder.remove(path)
  }
}

private enum Folder {
  /// Removes a folder of this test.
  static func remove(_ path: String) {
    guard path.hasPrefix("/tmp/local-answers-"), let folder = opendir(path) else { return }
    while let entry = readdir(folder) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name == "." || name == ".." { continue }
      if unlink(path + "/" + name) != 0 { remove(path + "/" + name) }
    }
    closedir(folder)
    rmdir(path)
  }
}

extension LocalAnswers {
  fileprivate func text(_ query: LocalQuery) async -> String {
    do {
      return try await answer(query).map { String(decoding: $0.encoded, as: UTF8.self) } ?? "none"
    } catch {
      return "Error: \(error.text)"
    }
  }
}

@Suite("Local clients: answers of the directory", .timeLimit(.minutes(1)))
struct LocalAnswerTests {
  @Test("names and tags")
  func names() async throws {
    let bed = try await Bed()
    let (a, b) = (LocalAnswers(directory: bed.a), LocalAnswers(directory: bed.b))
    let idA = try #require(await bed.a.node)
    let idB = try #require(await bed.b.node)
    let taken = await b.text(.setHostname("agent-a"))
    #expect(taken == #"Error: set_hostname: registry: hostname "agent-a" already in use"#)
    #expect(await b.text(.setHostname("other")) == #"{"hostname":"other","node_id":\#(idB),"type":"set_hostname_ok"}"#)
    #expect(await b.text(.setHostname("")) == #"{"hostname":"","node_id":\#(idB),"type":"set_hostname_ok"}"#)
    #expect((await b.text(.setHostname("no such name"))).hasPrefix("Error: set_hostname: "))
    #expect(
      await a.text(.resolve(name: "nobody")) == #"Error: resolve_hostname: registry: hostname "nobody" not found"#)
    let own = await a.text(.resolve(name: "agent-a"))
    #expect(own.contains(#""node_id":\#(idA),"public":false,"type":"resolve_hostname_ok""#), "\(own)")
    #expect(
      await a.text(.setTags(["swift"])) == #"{"node_id":\#(idA),"tags":["swift"],"type":"set_tags_ok"}"#)
    #expect(await a.text(.setTags([])) == #"{"node_id":\#(idA),"tags":null,"type":"set_tags_ok"}"#)
    #expect(await a.text(.setWebhook(url: "")) == #"{"webhook":""}"#)
    #expect(await a.text(.setWebhook(url: "http://h/")) == "Error: set_webhook: this node calls no webhooks")
    #expect(await a.text(.deregister) == #"{"type":"deregister_ok"}"#)
    for query: LocalQuery in [.info, .health, .rotateKey, .setVisibility(isPublic: true), .preferDirect(node: 1)] {
      #expect(await a.text(query) == "none")
    }
    await bed.stop()
  }

  @Test("trust is asked for, waited for, shown and withdrawn")
  func trust() async throws {
    let bed = try await Bed()
    let (a, b) = (LocalAnswers(directory: bed.a), LocalAnswers(directory: bed.b))
    let idA = try #require(await bed.a.node)
    let idB = try #require(await bed.b.node)
    #expect(await a.text(.handshake(.wait(node: idB, milliseconds: 0))) == #"{"node_id":\#(idB),"trusted":false}"#)
    #expect(await a.text(.handshake(.wait(node: idB, milliseconds: 30))) == #"{"node_id":\#(idB),"trusted":false}"#)
    #expect((await a.text(.handshake(.approve(node: idB)))).hasPrefix("Error: handshake approve: "))
    #expect((await a.text(.handshake(.reject(node: idB, reason: "")))).hasPrefix("Error: handshake reject: "))
    #expect((await a.text(.handshake(.send(node: idA, justification: "")))).hasPrefix("Error: handshake send: "))
    #expect(
      await a.text(.handshake(.send(node: idB, justification: "hi"))) == #"{"node_id":\#(idB),"status":"sent"}"#)
    async let waiting = a.text(.handshake(.wait(node: idB, milliseconds: 20_000)))
    var pending = ""
    while !pending.contains("\(idA)") {
      pending = await b.text(.handshake(.pending))
      try await Task.sleep(for: .milliseconds(10))
    }
    #expect(pending.contains(#""justification":"hi""#) && pending.contains(#""received_at":"#))
    #expect(await b.text(.handshake(.approve(node: idA))) == #"{"node_id":\#(idA),"status":"approved"}"#)
    #expect(await b.text(.handshake(.approve(node: idA))) == #"{"node_id":\#(idA),"status":"approved"}"#)
    #expect(await waiting == #"{"node_id":\#(idB),"trusted":true}"#)
    #expect(await b.text(.handshake(.pending)) == #"{"pending":[]}"#)
    let trusted = try JSONValue(parsing: Array(await a.text(.handshake(.trusted)).utf8))
    let row = try #require(trusted.items("trusted").first)
    #expect(row.int("node_id") == Int64(idB) && row.int("approved_at") > 0 && row.flag("mutual"))
    #expect(trusted["peers"] == trusted["trusted"])
    #expect(
      await a.text(.handshake(.send(node: idB, justification: "")))
        == #"{"node_id":\#(idB),"status":"already_trusted"}"#)
    #expect(await b.text(.handshake(.revoke(node: idA))) == #"{"node_id":\#(idA),"status":"revoked"}"#)
    #expect(
      await b.text(.handshake(.revoke(node: idA))) == "Error: handshake revoke: node \(idA) was not trusted")
    await bed.stop()
  }

  @Test("networks, and what this node does not run")
  func networks() async throws {
    let bed = try await Bed()
    let a = LocalAnswers(directory: bed.a)
    let idA = try #require(await bed.a.node)
    let list = try JSONValue(parsing: Array(await a.text(.network(.list)).utf8))
    let found = list.items("networks").first { $0.string("name") == "team" }
    let team = try #require(found?["id"]?.port16)
    let refused = await a.text(.network(.join(network: team, token: "wrong")))
    #expect(refused.hasPrefix("Error: network join: registry: "), "\(refused)")
    let joined = await a.text(.network(.join(network: team, token: "sekrit")))
    let address = PilotAddress(network: team, node: idA)
    #expect(joined == #"{"address":"\#(address)","network_id":\#(team),"type":"join_network_ok"}"#)
    let members = try JSONValue(parsing: Array(await a.text(.network(.members(network: team))).utf8))
    #expect(members.items("nodes").map { $0.int("node_id") } == [Int64(idA)])
    #expect(await a.text(.network(.leave(network: team))) == #"{"network_id":\#(team),"type":"leave_network_ok"}"#)
    #expect((await a.text(.network(.invite(network: team, node: 5)))).hasPrefix("Error: network invite: registry: "))
    #expect(await a.text(.network(.pollInvites)) == #"{"invites":[],"type":"poll_invites_ok"}"#)
    #expect(
      (await a.text(.network(.respond(network: team, accepts: true)))).hasPrefix(
        "Error: network respond-invite: registry: "))
    #expect(await bed.a.networks == [0])
    #expect(
      await a.text(.managed(.policy(network: 7)))
        == #"{"engine":"none","network_id":7,"type":"managed_policy_ok"}"#)
    #expect(await a.text(.managed(.status(network: 7))) == "Error: managed: no active managed networks")
    #expect(
      await a.text(.managed(.reconcile(network: 7))) == "Error: managed: no active policy runner for network")
    #expect(
      await a.text(.submitBadge(json: Array("{}".utf8))) == "Error: submit_badge: badge and badge_sig are required")
    #expect((await a.text(.enrollRecovery(json: [0xFF]))).hasPrefix("Error: enroll_recovery: invalid JSON"))
    await bed.stop()
  }

  @Test("a broadcast goes to the members of a network, with the administrator's token only")
  func audience() async throws {
    let bed = try await Bed()
    let idB = try #require(await bed.b.node)
    let team = try #require(try await bed.a.listNetworks().first { $0.name == "team" }?.id)
    for directory in [bed.a, bed.b] { try await directory.join(NetworkMembership(id: team, token: "sekrit")) }
    func audience(_ network: UInt16, _ token: String, _ own: String?) async -> String {
      let answers = LocalAnswers(directory: bed.a, adminToken: own.map { AdminToken($0) })
      do {
        return try await answers.audience(network, token: Array(token.utf8)).map(\.description).joined(separator: " ")
      } catch {
        return error.text
      }
    }
    #expect(await audience(0, "operator", "operator") == "broadcast: broadcast not permitted on backbone network")
    #expect(await audience(team, "", nil) == "broadcast: broadcast denied: daemon has no admin token configured")
    for wrong in ["", "operatos", "operator "] {
      #expect(await audience(team, wrong, "operator") == "broadcast: broadcast denied: invalid admin token")
    }
    #expect((await audience(9, "operator", "operator")).hasPrefix("broadcast: registry: "))
    let members = await audience(team, "operator", "operator")
    #expect(members == PilotAddress(network: team, node: idB).description)
    await bed.stop()
  }

  @Test("what one node signs another verifies; damaged ones are answered with the reason")
  func envelopes() async throws {
    let bed = try await Bed()
    let (a, b) = (LocalAnswers(directory: bed.a), LocalAnswers(directory: bed.b))
    let idA = try #require(await bed.a.node)
    func signed(_ json: String) async -> String { await a.text(.signEnvelope(json: Array(json.utf8))) }
    let answer = try JSONValue(parsing: Array(await signed(#"{"audience":"x.y","body_b64":"YWJj"}"#).utf8))
    let envelope = answer.string("envelope")
    #expect(
      envelope.hasPrefix("pilot-req-v1|") && envelope.hasSuffix("|\(RequestEnvelope.hash(Array("abc".utf8)))|x.y"))
    func verified(_ envelope: String, _ more: [String: JSONValue] = [:]) async -> JSONValue? {
      let request = JSONValue.object(["envelope": .text(envelope), "signature": answer["signature"] ?? ""]).adding(more)
      return try? JSONValue(parsing: Array(await b.text(.verifyEnvelope(json: request.encoded)).utf8))
    }
    let good = try #require(await verified(envelope))
    #expect(good.flag("valid") && good.int("node_id") == Int64(idA) && good.string("verified_via") == "registry")
    #expect(good["trusted"] == false && good["online"] == nil)
    // Only of public nodes everybody is told when they were last heard of.
    try await bed.a.setVisibility(isPublic: true)
    await bed.b.recordsExpire()
    let standing = try #require(await verified(envelope, ["check_standing": true]))
    #expect(standing.flag("online") && standing.flag("network_member"))
    let damaged = try #require(await verified(envelope.replacing("x.y", with: "x.z")))
    #expect(damaged["valid"] == false && damaged.string("reason") == "the signature is not the sender's")
    #expect(await verified("")?["valid"] == false)
    #expect(
      await b.text(.verifyEnvelope(json: Array("{}".utf8)))
        == "Error: verify_envelope: envelope and signature are required")
    for bad in [
      "[]", "{}", #"{"audience":"A"}"#, #"{"audience":"a"}"#, #"{"audience":"a","body_hash":"12"}"#,
      #"{"audience":"a","body_b64":"!"}"#, #"{"audience":"a","body_b64":"","body_hash":"12"}"#,
      #"{"audience":"a","body_b64":"","nonce":"|"}"#,
    ] {
      #expect((await signed(bad)).hasPrefix("Error: sign_envelope: "), "\(bad)")
    }
    await bed.stop()
  }
}
