// Domain names: text, comparison, limits, reverse names.

import Testing
import Wire

@Suite("DNS names")
struct DNSNameTests {
  @Test(
    "a name is read from text and written back with its final dot",
    arguments: [
      (".", "."), ("pilot", "pilot."), ("Specialist-Papers.Pilot.", "Specialist-Papers.Pilot."),
      ("_cap._tcp.fx.pilot", "_cap._tcp.fx.pilot."), ("a\\.b.c", "a\\.b.c."), ("a\\\\b", "a\\\\b."),
      ("a\\032b", "a\\032b."), ("\\255\\000", "\\255\\000."), ("é.pilot", "\\195\\169.pilot."),
    ])
  func text(text: String, canonical: String) throws {
    let name = try #require(DNSName(text))
    #expect(name.description == canonical)
    #expect(DNSName(canonical)?.labels == name.labels)
  }

  @Test(
    "what is no name is refused",
    arguments: [
      "", "..", ".a", "a..b", "a..", "\\", "a\\", "a\\25", "a\\256", "a\\9x9",
      String(repeating: "x", count: 64), "ok." + String(repeating: "x", count: 64) + ".ok",
      String(repeating: "abc.", count: 64),
    ])
  func badText(text: String) {
    #expect(DNSName(text) == nil)
  }

  @Test("labels of 63 bytes and names of 255 are the longest")
  func limits() throws {
    let label = [UInt8](repeating: 0x61, count: 63)
    let longest = try #require(DNSName(labels: [label, label, label, Array(label.prefix(61))]))
    #expect(longest.wireSize == 255 && longest.wire.count == 255)
    #expect(DNSName(labels: [label, label, label, Array(label.prefix(62))]) == nil)
    #expect(DNSName(labels: [label + [0x61]]) == nil)
    #expect(DNSName(labels: [[]]) == nil)
    #expect(longest.prepending("a") == nil)
    #expect(DNSName.root.wire == [0] && DNSName.root.parent == nil)
  }

  @Test("case is kept but does not count")
  func caseInsensitive() throws {
    let upper = try #require(DNSName("NODE-A.PILOT"))
    let lower = try #require(DNSName("node-a.pilot."))
    #expect(upper == lower && upper.hashValue == lower.hashValue && upper.labels != lower.labels)
    // Only ASCII letters fold: 0xC1 and 0xE1 differ, and so do @ and `.
    #expect(DNSName(labels: [[0xC1]]) != DNSName(labels: [[0xE1]]))
    #expect(DNSName("@") != DNSName("`"))
    #expect(DNSName("ab.c") != DNSName("a.bc"))
  }

  @Test("a zone holds itself and what is below, label by label")
  func zones() throws {
    let zone = try #require(DNSName("pilot"))
    #expect(try #require(DNSName("Pilot.")).isWithin(zone))
    #expect(try #require(DNSName("a.b.PILOT")).isWithin(zone))
    #expect(try !#require(DNSName("copilot")).isWithin(zone))
    #expect(try !#require(DNSName("pilot.com")).isWithin(zone))
    #expect(zone.isWithin(.root) && !DNSName.root.isWithin(zone))
    #expect(zone.prepending("fx")?.description == "fx.pilot." && zone.prepending("") == nil)
    #expect(try #require(DNSName("fx.pilot")).parent == zone)
  }

  @Test("a reverse name stands for one address")
  func reverse() throws {
    let address = try #require(IPv6Address("fd50:494c:4f54:5::a3:f291"))
    let name = DNSName.reverse(of: address)
    #expect(
      name.description
        == "1.9.2.f.3.a.0.0.0.0.0.0.0.0.0.0.5.0.0.0.4.5.f.4.c.4.9.4.0.5.d.f.ip6.arpa.")
    #expect(name.reverseAddress == address)
    let zone = DNSName.reverse(of: address, bits: 48)
    #expect(zone.description == "4.5.f.4.c.4.9.4.0.5.d.f.ip6.arpa.")
    #expect(name.isWithin(zone) && zone.reverseAddress == nil)
    #expect(DNSName(name.description.uppercased())?.reverseAddress == address)
    var labels = name.labels
    labels[3] = Array("g".utf8)
    #expect(DNSName(labels: labels)?.reverseAddress == nil)
    labels[3] = Array("10".utf8)
    #expect(DNSName(labels: labels)?.reverseAddress == nil)
    #expect(DNSName(labels: name.labels.dropLast() + [Array("arpb".utf8)])?.reverseAddress == nil)
    #expect(name.prepending("0")?.reverseAddress == nil)
    var generator = SeededGenerator(seed: 3596)
    for _ in 0..<200 {
      let address = IPv6Address(high: generator.next(), low: generator.next())
      #expect(DNSName.reverse(of: address).reverseAddress == address)
    }
  }
}
