// `config check`, `show` and `schema`, differences between two readings, secrets in files, and the documents made from
// the table of settings.

import Directory
import Glibc
import JSON
import Settings
import Testing
import Wire

@testable import TunControl

@Suite("Configuration reports")
struct ConfigurationReportTests {
  /// A folder of its own, removed at the end.
  private func inFolder(_ body: (String) throws -> Void) throws {
    var template = Array("/tmp/pilot-config-XXXXXX".utf8CString)
    let folder = template.withUnsafeMutableBufferPointer { String(cString: mkdtemp($0.baseAddress!)) }
    defer { _ = CommandOutput.of(["rm", "-r", folder]) }
    try body(folder)
  }

  private func write(_ text: String, _ path: String, mode: mode_t = 0o600) throws {
    try SmallFile.write(Array(text.utf8), to: path, mode: 0o600)
    chmod(path, mode)
  }

  @Test("check tells everything that is wrong with a file, in its order")
  func check() {
    let problems = ConfigurationReport.problems(
      """
      mtu = 12
      hostnam = "a"
      dns = "always"
      public = 3
      beacon = "h:1"
      interface = "a/b"
      """, path: "c.toml", environment: [:])
    #expect(problems.map { $0.subject?.place?.line } == [1, 2, 3, 4, 5, 6])
    #expect(problems[4].message.contains("no registry") && problems[4].json["setting"] == "beacon")
    #expect(problems[1].json["column"] == 1 && problems[1].json["file"] == "c.toml")
    #expect(ConfigurationReport.problems("mtu = = 1", path: "c", environment: [:]).count == 1)
    #expect(ConfigurationReport.problems("", path: "c", environment: ["PILOT_TUN_MTU": "1"]).isEmpty)
  }

  @Test("a token stands in a file or comes with the service, and neither errors nor show tell it")
  func secrets() throws {
    try inFolder { folder in
      try write("s3cret-file\n", folder + "/seven")
      try write("s3cret-credential", folder + "/network-8")
      try write("adm1n", folder + "/admin-token")
      let environment = ["CREDENTIALS_DIRECTORY": folder]
      var layers = ConfigurationLayers(
        environment: environment,
        file: try ConfigurationFile.parse(
          "networks = [\"7:@\(folder)/seven\", 8, \"9:s3cret-plain\", \"10:@network-8\"]", path: "c"))
      let configuration = try NodeConfiguration(layers)
      #expect(
        configuration.networks.map(\.token) == [
          "s3cret-file", "s3cret-credential", "s3cret-plain", "s3cret-credential",
        ])
      #expect(configuration.adminTokenFile == folder + "/admin-token")
      let token = try AdminToken(path: folder + "/admin-token", credentials: Credentials(environment: environment))
      #expect(token.matches(Array("adm1n".utf8)))
      // The access list of a credential shows as a mode for the group.
      chmod(folder + "/admin-token", 0o440)
      _ = try AdminToken(path: folder + "/admin-token", credentials: Credentials(environment: environment))
      #expect(throws: ControlError.self) { try AdminToken(path: folder + "/admin-token") }

      let shown = ConfigurationReport.effective(layers)
      let text = ConfigurationReport.text(shown) + shown.line
      #expect(!text.contains("s3cret") && text.contains("9:(redacted)") && text.contains("7:@\(folder)/seven"))

      for wrong in ["7:@\(folder)/none", "0:s3cret", "7:@\(folder)/open"] {
        try write("s3cret-open", folder + "/open", mode: 0o644)
        layers.file[.networks] = SettingValue([wrong], origin: "here")
        layers.environment = [:]
        do throws(ControlError) {
          _ = try NodeConfiguration(layers)
          Issue.record("\(wrong) was taken")
        } catch {
          #expect(!error.message.contains("s3cret") && error.isUsage, "\(error)")
        }
      }
    }
  }

  @Test("show names the source of each value")
  func show() throws {
    let layers = ConfigurationLayers(
      flags: [.mtu: ["1300"]], environment: ["PILOT_TUN_HOSTNAME": "a"],
      file: try ConfigurationFile.parse("\n dns = \"off\"\ntags = [\"x\", \"y\"]", path: "/c.toml"))
    let settings = ConfigurationReport.effective(layers).items("settings")
    func setting(_ key: String) -> JSONValue { settings.first { $0.string("key") == key } ?? [:] }
    #expect(settings.count == Setting.allCases.count)
    #expect(setting("mtu").string("source") == "flag --mtu" && setting("mtu").string("value") == "1300")
    #expect(setting("hostname").string("source") == "environment PILOT_TUN_HOSTNAME")
    #expect(setting("dns").string("source") == "/c.toml:2:8, key `dns`")
    #expect(setting("tag")["value"] == ["x", "y"])
    #expect(setting("listen").string("source") == "default" && setting("listen")["value"] == .null)
    let text = ConfigurationReport.text(["settings": .list(settings)])
    #expect(text.contains("mtu") && text.contains("1300") && text.contains("pilot0"))
  }

  @Test("metrics listen on this machine alone unless an address is named")
  func metricsAddress() throws {
    func endpoint(_ text: String) throws -> String? {
      try NodeConfiguration(ConfigurationLayers(flags: [.metrics: [text]])).metrics?.description
    }
    #expect(try endpoint("9464") == "127.0.0.1:9464")
    #expect(try endpoint(":9464") == "127.0.0.1:9464")
    #expect(try endpoint("localhost:9464") == "127.0.0.1:9464")
    #expect(try endpoint("[::]:9464") == "[::]:9464")
    #expect(try NodeConfiguration(ConfigurationLayers()).metrics == nil)
  }

  @Test("the declarations fit the settings, and their examples are values that the node takes")
  func declarations() throws {
    for setting in Setting.allCases {
      let declaration = setting.declaration
      #expect(declaration.key == setting.rawValue)
      #expect(!declaration.summary.isEmpty && !declaration.meaning.isEmpty && !declaration.standard.isEmpty)
      // A beacon alone is refused.
      let more = setting == .beacon ? "registry = \"r:1\"" : ""
      let file = try ConfigurationFile.parse(
        "\(declaration.key) = \(declaration.example)\n\(more)", path: setting.rawValue)
      _ = try NodeConfiguration(ConfigurationLayers(file: file))
    }
  }
}
