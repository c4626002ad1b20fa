// The pure half of the stub: what each query is answered.
import Naming
import Testing
import Wire

@Suite struct NameAnswererTests {
  @Test("a known name has its overlay address, byte for byte as expected")
  func golden() async throws {
    guard case .lookUp(let pending) = NameAnswerer.begin(query("specialist-papers.pilot", .aaaa), by: .udp) else {
      Issue.record("not looked up")
      return
    }
    #expect(pending.need == .address(of: "specialist-papers", group: nil))
    let response = NameAnswerer.finish(pending, .found(papers, ttl: 30))
    var expected: [UInt8] = [0x12, 0x34, 0x85, 0x00, 0, 1, 0, 1, 0, 0, 0, 0]
    expected += [17] + Array("specialist-papers".utf8) + [5] + Array("pilot".utf8) + [0, 0, 28, 0, 1]
    expected += [0xC0, 0x0C, 0, 28, 0, 1, 0, 0, 0, 30, 0, 16]
    expected += [0xfd, 0x50, 0x49, 0x4c, 0x4f, 0x54, 0, 0, 0, 0, 0, 0, 0, 1, 0x2F, 0x3A]
    #expect(response.bytes == expected)
    #expect(response.hasAnswers)
    #expect(!response.isTruncated)
  }

  @Test("a name within a group is looked up there; a group alone has names below it and no address")
  func groups() async throws {
    let found = try #require(await answer(query("Specialist-Papers.PAPERS.pilot", .aaaa)))
    #expect(found.answers.map(\.data) == [.aaaa(papers)])
    #expect(found.questions.first?.name.description == "Specialist-Papers.PAPERS.pilot.")
    let group = try #require(await answer(query("papers.pilot", .aaaa)))
    #expect(group.responseCode == .noError && group.answers.isEmpty && group.authority.count == 1)
    for text in ["specialist-papers.others.pilot", "www.specialist-papers.pilot", "a.specialist-papers.papers.pilot"] {
      #expect(try #require(await answer(query(text, .aaaa))).responseCode == .nameError, "\(text)")
    }
    guard case .lookUp(let pending) = NameAnswerer.begin(query("\(DNSName.reverse(of: papers))", .ptr), by: .udp) else {
      Issue.record("not looked up")
      return
    }
    let pointer = NameAnswerer.finish(pending, .found("specialist-papers", group: "papers", ttl: 9))
    #expect(DNSMessage(pointer.bytes)?.answers.map(\.data) == [.ptr(name("specialist-papers.papers.pilot"))])
    #expect(NameAnswerer.finish(pending, .found("x", group: "a b", ttl: 9)).code == .serverFailure)
  }

  @Test("what a search list put behind a name is refused, with the reason for those who can read it")
  func foreignSuffix() async throws {
    let edns = DNSExtension(udpSize: 1232)
    for text in ["specialist-papers.pilot.localdomain", "specialist-papers.pilot.example.com", "example.com"] {
      let reply = try #require(await answer(query(text, .aaaa, edns: edns)))
      #expect(reply.responseCode == .refused && reply.edns?.reason?.code == 20, "\(text)")
    }
    let away = try #require(await answer(query("nobody.pilot", .aaaa, edns: edns), from: TableSource(.away)))
    #expect(away.responseCode == .serverFailure && away.edns?.reason?.code == 22)
    let plain = try #require(await answer(query("nobody.pilot", .aaaa), from: TableSource(.away)))
    #expect(plain.responseCode == .serverFailure && plain.edns == nil)
  }

  @Test("names are found in any case, and the question comes back as it was written")
  func caseOfNames() async throws {
    let source = TableSource()
    let reply = try #require(await answer(query("SpecialIST-papers.PiLoT", .aaaa), from: source))
    #expect(source.questions == ["specialist-papers"])
    #expect(reply.questions.first?.name.description == "SpecialIST-papers.PiLoT.")
    #expect(reply.answers.first?.data == .aaaa(papers))
  }

  @Test(
    "other types of an existing name are NODATA with the zone's SOA",
    arguments: [1, 2, 5, 15, 16, 33, 65, 43] as [UInt16])
  func noData(type: UInt16) async throws {
    let reply = try #require(await answer(query("specialist-papers.pilot", DNSRecordType(rawValue: type))))
    #expect(reply.responseCode == .noError)
    #expect(reply.isAuthoritative)
    #expect(reply.answers.isEmpty)
    let authority = try #require(reply.authority.first)
    #expect(authority.name == name("pilot"))
    #expect(authority.ttl == NamingLimits.negativeTTL)
    guard case .soa(let soa) = authority.data else {
      Issue.record("no SOA")
      return
    }
    #expect(soa.minimum == NamingLimits.negativeTTL)
  }

  @Test(
    "a name that does not exist is NXDOMAIN with SOA, whatever the type",
    arguments: [
      "nobody.pilot", "a.specialist-papers.pilot", "-x.pilot", "under_score.pilot", "a\\.b.pilot", "\\255.pilot",
    ])
  func noSuchName(text: String) async throws {
    for type in [DNSRecordType.aaaa, .a, .any, .txt] {
      let reply = try #require(await answer(query(text, type)))
      #expect(reply.responseCode == .nameError)
      #expect(reply.isAuthoritative)
      #expect(reply.authority.count == 1)
    }
  }

  @Test("only possible hostnames reach the directory")
  func junkStopsHere() async {
    let source = TableSource()
    for text in ["a.b.pilot", "_x.pilot", "-a.pilot", "a-.pilot", "\\000.pilot", "pilot", "com"] {
      _ = await answer(query(text, .aaaa), from: source)
    }
    #expect(source.questions.isEmpty)
  }

  @Test(
    "names outside the zones are refused, never failed",
    arguments: [
      "example.com", ".", "pilot.com", "xpilot", "1.0.0.127.in-addr.arpa", "ip6.arpa",
      "5.f.4.c.4.9.4.0.5.d.f.ip6.arpa",
    ])
  func refused(text: String) async throws {
    let reply = try #require(await answer(query(text, .aaaa), from: TableSource(.away)))
    #expect(reply.responseCode == .refused)
    #expect(!reply.isAuthoritative)
    #expect(reply.authority.isEmpty)
  }

  @Test("while the directory is away an unknown name is SERVFAIL, and what needs no directory is answered")
  func directoryAway() async throws {
    let away = TableSource(.away)
    #expect(await answer(query("specialist-papers.pilot", .aaaa), from: away)?.responseCode == .serverFailure)
    #expect(await answer(query("a.b.pilot", .aaaa), from: away)?.responseCode == .nameError)
    #expect(await answer(query("pilot", .soa), from: away)?.responseCode == .noError)
  }

  @Test(
    "the life of an answer is what the source says, between 1 and 60 s",
    arguments: [(0, 1), (5, 5), (60, 60), (86400, 60)] as [(UInt32, UInt32)])
  func lifetimes(said: UInt32, given: UInt32) async throws {
    let reply = try #require(await answer(query("specialist-papers.pilot", .aaaa), from: TableSource(ttl: said)))
    #expect(reply.answers.first?.ttl == given)
  }

  @Test("ANY gives the one record there is")
  func any() async throws {
    #expect(await answer(query("specialist-papers.pilot", .any))?.answers.map(\.data) == [.aaaa(papers)])
    #expect(await answer(query("pilot", .any))?.answers.map(\.data.type) == [.soa])
  }

  @Test("both zones have SOA and NS at the top, and nothing else")
  func apex() async throws {
    for zone in ["pilot", "4.5.f.4.c.4.9.4.0.5.d.f.ip6.arpa"] {
      #expect(await answer(query(zone, .soa))?.answers.map(\.data.type) == [.soa])
      #expect(await answer(query(zone, .ns))?.answers.map(\.data) == [.ns(name("_resolver.pilot"))])
      let other = try #require(await answer(query(zone, .aaaa)))
      #expect(other.responseCode == .noError)
      #expect(other.answers.isEmpty)
      #expect(other.authority.first?.name == name(zone))
    }
  }

  @Test("the server's own name and address point at each other")
  func serverName() async throws {
    #expect(await answer(query("_resolver.pilot", .aaaa))?.answers.map(\.data) == [.aaaa(OverlayMapping.resolver)])
    let reverse = DNSName.reverse(of: OverlayMapping.resolver).description
    #expect(await answer(query(reverse, .ptr))?.answers.map(\.data) == [.ptr(name("_resolver.pilot"))])
  }

  @Test("a node's address has its name")
  func pointer() async throws {
    let reverse = DNSName.reverse(of: papers).description
    let reply = try #require(await answer(query(reverse, .ptr)))
    #expect(reply.answers.map(\.data) == [.ptr(name("specialist-papers.pilot"))])
    #expect(await answer(query(reverse, .aaaa))?.responseCode == .noError)
    let stranger = OverlayMapping.address(for: PilotAddress(network: 3, node: 9))
    #expect(await answer(query(DNSName.reverse(of: stranger).description, .ptr))?.responseCode == .nameError)
  }

  @Test("half an address is an empty name, an impossible one does not exist")
  func partialPointers() async throws {
    let zone = "4.5.f.4.c.4.9.4.0.5.d.f.ip6.arpa"
    #expect(await answer(query("0.\(zone)", .ptr))?.responseCode == .noError)
    #expect(await answer(query("0.0.0.0.\(zone)", .ptr))?.responseCode == .noError)
    #expect(await answer(query("1.0.0.0.0.\(zone)", .ptr))?.responseCode == .nameError)
    #expect(await answer(query("g.\(zone)", .ptr))?.responseCode == .nameError)
    #expect(await answer(query("00.\(zone)", .ptr))?.responseCode == .nameError)
    let full = DNSName.reverse(of: papers).description
    #expect(await answer(query("0.\(full)", .ptr))?.responseCode == .nameError)
    let broken = IPv6Address(high: papers.high, low: papers.low | 1 << 40)
    #expect(await answer(query(DNSName.reverse(of: broken).description, .ptr))?.responseCode == .nameError)
  }

  @Test("the directory cannot point a name outside the overlay, or give an address a name that is none")
  func hostileDirectory() throws {
    guard case .lookUp(let forward) = NameAnswerer.begin(query("specialist-papers.pilot", .aaaa), by: .udp),
      case .lookUp(let reverse) = NameAnswerer.begin(query(DNSName.reverse(of: papers).description, .ptr), by: .udp)
    else {
      Issue.record("not looked up")
      return
    }
    let outside = try #require(IPv6Address("2001:db8::1"))
    #expect(NameAnswerer.finish(forward, .found(outside, ttl: 9)).code == .serverFailure)
    for text in ["", "a b", "a.b", String(repeating: "x", count: 300), "ä"] {
      #expect(NameAnswerer.finish(reverse, .found(text, group: nil, ttl: 9)).code == .serverFailure)
    }
  }
}

@Suite struct ExtensionTests {
  @Test("EDNS is answered with our size and the asker's DO bit; without EDNS there is none")
  func echo() async throws {
    let asked = DNSExtension(udpSize: 4096, wantsDNSSEC: true)
    let reply = try #require(await answer(query("specialist-papers.pilot", .aaaa, edns: asked)))
    #expect(reply.edns == DNSExtension(udpSize: 1232, wantsDNSSEC: true))
    let plain = try #require(await answer(query("specialist-papers.pilot", .aaaa)))
    #expect(plain.edns == nil)
  }

  @Test("an EDNS version above 0 is BADVERS, with our version in the answer")
  func badVersion() async throws {
    let asked = DNSExtension(udpSize: 1232, version: 1)
    let reply = try #require(await answer(query("specialist-papers.pilot", .aaaa, edns: asked)))
    #expect(reply.responseCode == .badVersion)
    #expect(reply.edns?.version == 0)
    #expect(reply.answers.isEmpty)
  }

  @Test("other classes and zone transfers are refused, other operations are not implemented")
  func unusual() async throws {
    var message = DNSMessage.query(id: 7, name("pilot"), .soa)
    message.questions[0].recordClass = DNSClass(rawValue: 3)
    #expect(await answer(message.encoded())?.responseCode == .refused)
    #expect(await answer(query("pilot", DNSRecordType(rawValue: 252)), by: .tcp)?.responseCode == .refused)
    #expect(await answer(query("pilot", DNSRecordType(rawValue: 250)))?.responseCode == .notImplemented)
    for opcode in [1, 2, 4, 5, 15] as [UInt8] {
      var message = DNSMessage.query(id: 7, name("pilot"), .soa)
      message.opcode = opcode
      let reply = try #require(await answer(message.encoded()))
      #expect(reply.responseCode == .notImplemented)
      #expect(reply.opcode == opcode)
    }
  }

  @Test("a longest name is still answered whole in 512 bytes")
  func longestName() async throws {
    let long = [String](repeating: String(repeating: "x", count: 62), count: 3).joined(separator: ".")
    let text = long + "." + String(repeating: "y", count: 57) + ".pilot"
    #expect(name(text).wireSize == 254)
    guard case .respond(let response) = NameAnswerer.begin(query(text, .aaaa), by: .udp) else {
      Issue.record("not answered at once")
      return
    }
    #expect(!response.isTruncated)
    #expect(response.bytes.count <= 512)
  }
}
