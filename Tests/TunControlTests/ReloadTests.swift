// What a restart and a reload carry over: the list of recent peers, and which settings change while the node runs.

import Glibc
import JSON
import Shim
import Testing
import Wire

@testable import TunControl

@Suite("Restart and reload") struct ReloadTests {
  @Test("recent peers are read as they were written, and only so")
  func recentPeers() {
    let nodes: [UInt32] = [1, 0xFFFF_FFFE, 6226]
    #expect(RecentPeers.decoded(RecentPeers.encoded(nodes)[...]) == nodes)
    #expect(RecentPeers.decoded(RecentPeers.encoded([])[...]) == [])
    let many = (1...300).map { UInt32($0) }
    #expect(RecentPeers.decoded(RecentPeers.encoded(many)[...]) == Array(many.prefix(RecentPeers.most)))
    let good = RecentPeers.encoded(nodes)
    let bad: [[UInt8]] = [
      [], Array("PTP".utf8), Array("PTP2".utf8) + good.dropFirst(4), Array(good.dropLast()), good + [0],
      RecentPeers.encoded([0]), RecentPeers.encoded([.max]), RecentPeers.encoded([5, 5]),
      good + [UInt8](repeating: 1, count: 4 * RecentPeers.most),
    ]
    for bytes in bad { #expect(RecentPeers.decoded(bytes[...]) == nil, "\(bytes.prefix(12))") }
  }

  @Test("a kept list is taken over; what is none is not")
  func keptList() throws {
    let first = try #require(RecentPeers())
    first.write([3, 4])
    first.write([4])
    let second = try #require(RecentPeers(adopting: dup(first.descriptor)))
    #expect(second.read() == [4])
    let foreign = pt_memory_file("foreign")
    _ = pt_memory_file_write(foreign, [9, 9, 9], 3)
    for descriptor in [foreign, open("/dev/null", O_RDWR), 987] {
      let isTaken = RecentPeers(adopting: descriptor) != nil
      #expect(!isTaken)
    }
  }

  /// One line of a file, read as the node reads it.
  private func configuration(_ setting: Setting, _ text: String) throws -> NodeConfiguration {
    try NodeConfiguration(
      ConfigurationLayers(file: [setting: SettingValue(text.isEmpty ? [] : [text], origin: "test")]))
  }

  @Test(
    "each setting that changes shows as itself",
    arguments: [
      (.stateDirectory, "/a"), (.controlSocket, "/a"), (.ipc, "/a"), (.inbox, "/a"), (.adminTokenFile, "/a"),
      (.hostname, "name"), (.interface, "pilot9"), (.mtu, "1300"), (.listen, "4001"), (.advertise, "h:1"),
      (.portMapping, "off"), (.isPublic, "true"), (.trustAutoApprove, "true"), (.networks, "7"), (.tags, "tag"),
      (.relayOnly, "true"), (.dns, "off"), (.metrics, "127.0.0.1:1"), (.logLevel, "debug"), (.logFormat, "json"),
    ] as [(Setting, String)])
  func changes(setting: Setting, text: String) throws {
    let old = NodeConfiguration()
    let new = try configuration(setting, text)
    #expect(ConfigurationChange.between(old, new) == [setting])
    #expect(ConfigurationChange.between(new, old) == [setting])
    #expect(ConfigurationChange.between(new, new) == [])
  }

  @Test("another rendezvous is another registry and beacon")
  func rendezvous() throws {
    let new = try configuration(.rendezvous, "host")
    #expect(ConfigurationChange.between(NodeConfiguration(), new) == [.registry, .beacon])
  }

  @Test("what became of each setting is told")
  func forms() {
    let results: [ReloadedSetting] = [
      ReloadedSetting(setting: .hostname, outcome: .applied), ReloadedSetting(setting: .mtu, outcome: .needsRestart),
      ReloadedSetting(
        setting: .tags,
        outcome: .failed(ControlError("registry_unreachable", "the registry is away", hint: "wait for it"))),
    ]
    let text = ReloadedSetting.text(["settings": .list(results.map(\.json))])
    #expect(
      text == """
        hostname: changed
        mtu: needs a restart of the node
        tag: stays as it is: the registry is away [registry_unreachable]
          hint: wait for it
        """)
    #expect(ReloadedSetting.text(["settings": []]) == "nothing changed")
    #expect(
      results[2].json.line
        == #"{"code":"registry_unreachable","hint":"wait for it","outcome":"failed","reason":"the registry is away","setting":"tag"}"#
    )
  }
}
