// Bug reports: an archive that every tar reads, and nothing secret in it.

import Directory
import Foundation
import Glibc
import JSON
import Logging
import Session
import Settings
import Testing
import Wire

@testable import TunControl

@Suite("Bug reports")
struct BugreportTests {
  private func inFolder(_ body: (String) throws -> Void) throws {
    var template = Array("/tmp/pilot-report-XXXXXX".utf8CString)
    let folder = template.withUnsafeMutableBufferPointer { String(cString: mkdtemp($0.baseAddress!)) }
    defer { _ = CommandOutput.of(["rm", "-r", folder]) }
    try body(folder)
  }

  @Test("tar and gzip read the archive, whatever the sizes")
  func archive() throws {
    try inFolder { folder in
      var archive = Archive(time: 1_795_370_321)
      let sizes = [0, 1, 511, 512, 513, 65_535, 65_536, 200_000]
      for size in sizes { archive.add("r/\(size)", (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) }) }
      try SmallFile.write(archive.gzip, to: folder + "/a.tar.gz", mode: 0o600)
      #expect(CommandOutput.of(["gzip", "-t", folder + "/a.tar.gz"]) == "")
      #expect(CommandOutput.of(["tar", "-C", folder, "-xzf", folder + "/a.tar.gz"]) == "")
      for size in sizes {
        let content = try SmallFile.read(folder + "/r/\(size)")
        let isSame = content == (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) }
        #expect(isSame, "\(size)")
      }
    }
    #expect(Archive.crc32(Array("123456789".utf8)) == 0xCBF4_3926)
  }

  @Test("secrets go wherever they stand, and what is called one")
  func redaction() {
    let redactor = Redactor(secrets: ["hunter22", "abc", "äö-geheim"])
    #expect(redactor.clean("a hunter22hunter22 b abc") == "a (redacted)(redacted) b abc", "three bytes are no secret")
    #expect(redactor.clean("xäö-geheimy") == "x(redacted)y")
    #expect(redactor.clean("--token=ab12 next") == "--token=(redacted) next")
    #expect(redactor.clean(#"{"private_key":"QUJD","x":1}"#) == #"{"private_key":"(redacted)","x":1}"#)
    #expect(redactor.clean("Secret: abc, d") == "Secret: (redacted), d")
    #expect(redactor.clean("--network 7:tok --mtu 3") == "--network 7:(redacted) --mtu 3")
    #expect(redactor.clean("PILOT_TUN_NETWORK=7:tok") == "PILOT_TUN_NETWORK=7:(redacted)")
    #expect(redactor.clean("network 7 0:0000.0001.1852 7:@/etc/x") == "network 7 0:0000.0001.1852 7:@/etc/x")
    #expect(redactor.clean("admin-token-file  none\nmtu 3") == "admin-token-file  none\nmtu 3")
  }

  @Test("public addresses become marks when asked for, equal ones equal, others stay")
  func addresses() {
    let plain =
      "10.0.0.1 127.0.0.1:80 192.168.1.9 fd50:494c:4f54::1:1852 fe80::1%eth0 0:0001.0000.002A 12:34:56 1.2 ::1"
    let redactor = Redactor(secrets: [], addressSalt: [1])
    #expect(redactor.clean(plain) == plain)
    let hidden = redactor.clean("8.8.8.8:4000, [2001:4860:4860::8888]:4000 via 8.8.8.8. end 2001:4860:4860::8888/64")
    #expect(!hidden.contains("8.8.8") && !hidden.contains("4860"), "\(hidden)")
    let marks = hidden.matches(of: /ip4-[0-9a-f]{8}/).map { String($0.0) }
    #expect(marks.count == 2 && marks.first == marks.last)
    #expect(hidden.matches(of: /ip6-[0-9a-f]{8}/).count == 2 && hidden.contains("]:4000") && hidden.contains("/64"))
    let joined = redactor.clean("peer:8.8.8.8:4000 udp=8.8.8.8, [::ffff:8.8.8.8]")
    #expect(!joined.contains("8.8.8") && joined.hasPrefix("peer:ip4-") && joined.contains(":4000"), "\(joined)")
    let other = Redactor(secrets: [], addressSalt: [2]).clean("8.8.8.8")
    #expect(!hidden.contains(other), "another report has other marks")
  }

  @Test("without a node there is a report, and secrets of the configuration are not in it")
  func withoutNode() throws {
    try inFolder { folder in
      let store = try NodeStore(directory: folder + "/state", logger: Logger(label: "test"))
      let seed = store.identity.withSeed { Array($0) }
      for (name, text) in [("token", "planted-file-secret"), ("admin", "planted-admin-secret")] {
        try SmallFile.write(Array(text.utf8), to: "\(folder)/\(name)", mode: 0o600)
      }
      let text = """
        state-dir = "\(folder)/state"
        networks = ["7:planted-plain-secret", "8:@\(folder)/token"]
        admin-token-file = "\(folder)/admin"
        interface = "pilot9"
        """
      let layers = ConfigurationLayers(
        environment: ["PILOT_TUN_NETWORK": "9:planted-environment-secret"],
        file: try ConfigurationFile.parse(text, path: "planted.toml"))
      var report = Bugreport(
        client: ControlClient(path: folder + "/no.sock"), configuration: .success(layers), hidesAddresses: true)
      report.collect()
      report.add(netcheck: .failure(ControlError("udp_blocked", "planted-plain-secret was here")))
      #expect(report.failures.contains { $0.contains("no node answers") })
      let bytes = report.archive(time: 1_795_370_321)
      let whole = String(decoding: bytes, as: UTF8.self)
      #expect(whole.contains("pilot-tun-bugreport/README.txt") && whole.contains("netcheck: (redacted) was here"))
      #expect(whole.contains("/proc/version") && whole.contains("pilot9") && whole.contains("planted.toml"))
      #expect(whole.firstRange(of: /planted-\w+-secret/) == nil)
      for encoded in [Base64.encode(seed), seed.map { String($0, radix: 16) }.joined()] {
        #expect(!whole.contains(encoded))
      }
      var broken = Bugreport(
        client: ControlClient(path: folder + "/no.sock"),
        configuration: .failure(ControlError("configuration_invalid", "wrong")), hidesAddresses: false)
      broken.collect()
      #expect(broken.failures.contains("configuration: wrong"))
    }
  }

  @Test("a program that hangs or talks without end is left")
  func commands() {
    let start = Clock.now()
    #expect(CommandOutput.of(["sleep", "60"], seconds: 1) == "\n(cut off)\n")
    let endless = CommandOutput.of(["yes"], seconds: 5, limit: 10_000)
    #expect(endless.map { $0.utf8.count < 10_100 && $0.hasSuffix("(cut off)\n") } == true)
    #expect(CommandOutput.of(["no-such-program-here"]) == nil)
    #expect(CommandOutput.of(["sh", "-c", "echo a; echo b >&2"]) == "a\nb\n")
    #expect(Clock.now() - start < 10_000_000_000)
  }
}
