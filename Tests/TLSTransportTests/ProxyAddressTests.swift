// Proxies as users write them: URLs, exceptions, credentials, and what is never shown.

import SeededRandom
import Testing
import Wire

@testable import TLSTransport

@Suite("Proxy settings")
struct ProxyAddressTests {
  @Test(
    "URLs of proxies are read",
    arguments: [
      ("http://proxy.example:3128", "http://proxy.example:3128", nil),
      ("http://proxy.example:3128/", "http://proxy.example:3128", nil),
      ("HTTP://proxy", "http://proxy:80", nil), ("proxy:8080", "http://proxy:8080", nil),
      ("http://10.1.2.3", "http://10.1.2.3:80", nil), ("http://[2001:db8::1]:8080", "http://[2001:db8::1]:8080", nil),
      ("http://me:word@proxy:1", "http://proxy:1", "Basic bWU6d29yZA=="),
      ("http://me@proxy:1", "http://proxy:1", "Basic bWU6"),
      ("http://me:p%40ss%3A@proxy:1", "http://proxy:1", "Basic bWU6cEBzczo="),
      ("http://me:a@b@proxy:1", "http://proxy:1", "Basic bWU6YUBi"),
    ])
  func good(text: String, shown: String, authorization: String?) throws {
    let address = try ProxyAddress(parsing: text)
    #expect(address.description == shown)
    #expect(address.credentials?.authorization == authorization)
  }

  @Test(
    "what is no proxy is refused",
    arguments: [
      "", "http://", "https://proxy:1", "socks5://proxy:1", "http://proxy:0", "http://proxy:65536", "http://proxy:+1",
      "http://proxy:1x", "http://pro xy:1", "http://proxy/path", "http://[::1", "http://[nonsense]:1", "http://[::1]x",
      "http://me:%zz@proxy:1", "http://me:%0a@proxy:1", "http://:x@proxy:1", "http://a\u{7}b:1", "http://me:x\n@proxy",
      "http://me:%ff@proxy:1",
    ])
  func bad(text: String) {
    #expect(throws: ProxyAddress.Fault.self) { try ProxyAddress(parsing: text) }
  }

  @Test("nothing that is printed holds a password")
  func hidden() throws {
    let address = try ProxyAddress(parsing: "http://me:hunter2@proxy:1")
    var settings = TLSSettings(host: "h", port: 443)
    settings.proxy = address
    var dumped = ""
    dump(settings, to: &dumped)
    for text in ["\(address)", "\(settings)", String(reflecting: address), dumped] {
      #expect(!text.contains("hunter2") && !text.contains("bWU6"), "\(text)")
    }
  }

  @Test(
    "what a command prints",
    arguments: [
      ("me:word\n", "Basic bWU6d29yZA=="), ("  me:a:b\nmore\n", "Basic bWU6YTpi"),
      ("http://me:word@proxy:3128\n", "Basic bWU6d29yZA=="), ("Bearer abc.def\n", "Bearer abc.def"),
      ("basic bWU6d29yZA==", "basic bWU6d29yZA=="),
    ])
  func printed(text: String, authorization: String) {
    #expect(ProxyCredentials(printed: text)?.authorization == authorization)
  }

  @Test(
    "what a command may not print",
    arguments: ["", "\n", "word", ":word", "http://proxy:1", "me:\u{0}", "Bearer", "a\u{1B}:b", "me\r:x\u{7F}"])
  func misprinted(text: String) { #expect(ProxyCredentials(printed: text)?.authorization == nil) }

  @Test("exceptions as curl reads them")
  func exceptions() {
    let some = ProxyExceptions("example.org, .internal  10.0.0.0/8,2001:db8::/32,host:8443,192.0.2.7,[2001:db9::1]:443")
    for host in [
      "example.org", "a.example.org", "EXAMPLE.ORG", "x.internal", "internal", "10.9.8.7", "2001:db8::5", "192.0.2.7",
      "2001:db9::1", "localhost", "127.0.0.1", "::1",
    ] {
      #expect(some.contains(host, port: 443), "\(host)")
    }
    for host in ["badexample.org", "example.com", "11.0.0.1", "2001:dba::1", "192.0.2.70", "host"] {
      #expect(!some.contains(host, port: 443), "\(host)")
    }
    #expect(some.contains("host", port: 8443))
    #expect(!some.contains("2001:db9::1", port: 8443))
    #expect(ProxyExceptions("*").contains("anything", port: 1))
    #expect(!ProxyExceptions("").contains("anything", port: 1))
    for nonsense in ["/", "10.0.0.0/33", "1.2.3.4/-1", ":", "[", "a:b:", ".", ",,,", "x:99999"] {
      #expect(!ProxyExceptions(nonsense).contains("anything", port: 443), "\(nonsense)")
    }
  }

  @Test("no text makes the readers trap")
  func noise() {
    var random = SeededGenerator(seed: 7)
    let alphabet = Array("http://[]:@%41f.a0-,*/ \n\u{e9}\u{0}Bearer ".unicodeScalars)
    for _ in 0..<20_000 {
      var text = ""
      for _ in 0..<Int.random(in: 0..<24, using: &random) {
        text.unicodeScalars.append(alphabet.randomElement(using: &random) ?? "x")
      }
      if let address = try? ProxyAddress(parsing: text) { #expect(!address.host.isEmpty && address.port != 0) }
      _ = ProxyCredentials(printed: text)
      _ = ProxyExceptions(text).contains("a.b", port: 1)
      _ = CompatAuthentication(Array(text.utf8))
    }
  }
}
