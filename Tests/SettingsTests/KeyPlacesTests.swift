// Places of keys in files, nearest keys, and the documents made from declarations.

import SeededRandom
import Testing

@testable import Settings

@Suite("Places of keys")
struct KeyPlacesTests {
  @Test("every key of a file is found at its line and column, whatever stands between")
  func places() {
    let places = KeyPlaces(
      """
      # mtu = 1
      hostname = "a # = b"  # mtu = 2
        state-dir='/x'
      networks = [ 1, # [
        "7:t]",
      ]
      long = \"""
      mtu = 3 \\"\"" mtu = 4
      \"""
      "quoted key" = 1
      über = { mtu = 5 }
      mtu   =   1280
      mtu = 6
      "tab\\tand \\u00e9" = 1
      [table.inner]
      dns = "off"
      """)
    func at(_ key: String) -> [Int?] {
      let entry = places[key]
      return [entry?.key.line, entry?.key.column, entry?.value?.line, entry?.value?.column]
    }
    #expect(at("hostname") == [2, 1, 2, 12])
    #expect(at("state-dir") == [3, 3, 3, 13])
    #expect(at("networks") == [4, 1, 4, 12])
    #expect(at("long") == [7, 1, 7, 8])
    #expect(at("quoted key") == [10, 1, 10, 16])
    #expect(at("über") == [11, 1, 11, 8])
    #expect(at("mtu") == [12, 1, 12, 11], "the first at the top level")
    #expect(at("tab\tand \u{e9}") == [14, 1, 14, 21])
    #expect(at("table") == [15, 2, nil, nil])
    #expect(places["dns"] == nil, "what stands in a table is no key of the file")
  }

  @Test("rubbish ends, too")
  func rubbish() {
    var random = SeededGenerator(seed: 7)
    let alphabet = Array("ab=[]{}\"'\\#\n \t.,1é".unicodeScalars)
    for _ in 0..<2000 {
      var text = String.UnicodeScalarView()
      for _ in 0..<Int.random(in: 0...60, using: &random) { text.append(alphabet.randomElement(using: &random)!) }
      let places = KeyPlaces(String(text))
      for entry in places.entries.values { #expect(entry.key.line >= 1 && entry.key.column >= 1) }
    }
  }

  @Test(
    "a mistyped key is led to the one that was meant",
    arguments: [
      ("hostnam", "hostname"), ("hsotname", "hostname"), ("mtux", "mtu"), ("log_level", nil), ("loglevel", "log-level"),
      ("token", "admin-token-file"), ("log", nil), ("zzzz", nil), ("m", nil), ("ipv6", nil), ("dsn", "dns"),
    ] as [(String, String?)])
  func nearest(_ typed: String, _ meant: String?) {
    let known = ["hostname", "mtu", "log-level", "log-format", "admin-token-file", "dns", "metrics"]
    if typed == "log_level" { return #expect(NearestKey.of(typed, among: known) == "log-level") }
    #expect(NearestKey.of(typed, among: known) == meant)
  }

  @Test("the example has every key commented, wrapped and without Markdown")
  func example() {
    let settings = [
      SettingDeclaration(
        "mtu", .number(1280...9000, unit: "bytes"), standard: "1400", summary: "s",
        meaning: "see [there](x.md): `a` " + String(repeating: "word ", count: 40), example: "1400"),
      SettingDeclaration(
        "public", .flag, standard: "false", isReloadable: true, summary: "s", meaning: "lets all in", example: "true"),
    ]
    let text = SettingDocuments.example(settings, heading: "Head\nof two lines")
    #expect(text.hasPrefix("# Head\n# of two lines\n\n# See there: a word"))
    #expect(text.contains("\n# mtu = 1400\n") && text.hasSuffix("# Lets all in. Default: false.\n# public = true\n"))
    #expect(text.split(separator: "\n").allSatisfy { $0.hasPrefix("#") && $0.count <= 120 })
    let table = SettingDocuments.table(settings)
    #expect(
      table.contains("| `mtu` | 1280 to 9000 bytes | 1400 | restart |")
        && table.contains("| `public` | true, false | false | yes |"))
  }
}
