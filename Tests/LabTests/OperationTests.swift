// What operators look at: metrics, the log and its level, bug reports; and that no secret is in any of them.

import Foundation
import Glibc
import Testing

extension KernelTests {
  @Suite("Operating a node")
  struct OperationTests {
    private func write(_ text: String, _ path: String) throws {
      try text.write(toFile: path, atomically: false, encoding: .utf8)
      chmod(path, 0o600)
    }

    /// Samples of the page, by name and labels as they are written.
    private func metrics(_ node: LabNode) throws -> [String: Double] {
      let page = try node.run(["curl", "-s", "-m", "5", "http://127.0.0.1:9464/metrics"]).orThrow().output
      var samples: [String: Double] = [:]
      for line in page.split(separator: "\n") where !line.hasPrefix("#") {
        let space = try #require(line.lastIndex(of: " "))
        samples[String(line[..<space])] = Double(line[line.index(after: space)...])
      }
      return samples
    }

    @Test("metrics, log level and bug report tell what happens, and no secret, at the finest level")
    func operating() throws {
      let secrets = ["s3cret-of-seven", "s3cret-of-eight", "s3cret-adm1n"]
      try Fleet.with(rendezvousFlags: [
        "--network", "seven:token:\(secrets[0])", "--network", "eight:token:\(secrets[1])", "--log-level", "trace",
      ]) { fleet in
        let folder = fleet.lab.directory
        try write(secrets[1], folder + "/eight")
        try write(secrets[2], folder + "/admin")
        let alpha = try fleet.node(
          "alpha",
          [
            "--metrics", "9464", "--log-level", "trace", "--network", "1:\(secrets[0])", "--network",
            "2:@\(folder)/eight", "--ipc", folder + "/ipc.sock", "--admin-token-file", folder + "/admin",
          ])
        let beta = try fleet.node("beta", ["--public", "--log-format", "json", "--network", "1:\(secrets[0])"])
        try alpha.waitForPing(beta.ipv6)
        try alpha.run(["ping", "-c", "20", "-i", "0.01", "-s", "1000", beta.ipv6]).orThrow()

        let samples = try metrics(alpha)
        #expect(samples["pilot_tun_ready"] == 1)
        #expect(samples[#"pilot_tun_directory_state{state="registered"}"#] == 1)
        #expect(samples[#"pilot_tun_peers{path="direct4"}"#] == 1)
        #expect(samples[#"pilot_tun_sent_bytes_total{path="direct4"}"#] ?? 0 > 20_000, "\(samples)")
        #expect(samples[#"pilot_tun_events_total{event="sessions-established"}"#] ?? 0 >= 1)
        #expect(samples[#"pilot_tun_drops_total{reason="not-trusted"}"#] != nil)
        let sent = try alpha.counter("sent-frames")
        #expect(Int(samples["pilot_tun_sent_frames_total"] ?? 1e15) <= sent, "the words of status")
        let open = try alpha.run([
          "curl", "-s", "-H", "Accept: application/openmetrics-text", "http://127.0.0.1:9464/metrics",
        ]).orThrow().output
        #expect(open.hasSuffix("# EOF\n"))
        #expect(
          try !alpha.run(["curl", "-s", "-m", "2", "http://\(alpha.underlay):9464/metrics"]).isSuccess,
          "other machines are not served")

        let level = try alpha.tun("log-level", "warn").orThrow().output
        #expect(level == "warning (before: trace)\n")
        #expect(try alpha.tun("log-level").orThrow().output == "warning\n")
        #expect(try alpha.tun("log-level", "loud").status == 1)
        let before = alpha.program?.errorText.utf8.count
        try alpha.tun("ping", "beta", "--count", "2", "--interval", "0.1").orThrow()
        #expect(alpha.program?.errorText.utf8.count == before, "nothing below a warning is written any more")
        try alpha.tun("log-level", "trace").orThrow()

        let shown = try alpha.tun("config", "show", "--node").orThrow().output
        #expect(shown.contains("1:(redacted), 2:@\(folder)/eight") && shown.contains("flag --metrics"))

        let file = folder + "/report.tar.gz"
        let report = try alpha.tun("bugreport", "--output", file, "--hide-addresses").orThrow().output
        #expect(report.contains("wrote \(file)"))
        let content = try alpha.run(["tar", "-xzOf", file]).orThrow().output
        for expected in ["sessions-established", "beta", "pilot0", "ways to the peer", "mtu 1400", "log level changed"]
        {
          #expect(content.contains(expected), "the report has \(expected)")
        }
        let identity = try JSON(
          parsing: String(contentsOfFile: alpha.stateDirectory + "/identity.json", encoding: .utf8))["private_key"].text
        #expect(identity.count > 40)
        alpha.stop()
        beta.stop()
        let texts = [
          "report": content, "alpha": alpha.program?.errorText ?? "", "beta": beta.program?.errorText ?? "",
          "rendezvous": fleet.rendezvousProgram?.errorText ?? "", "shown": shown,
          "metrics": samples.keys.joined(separator: "\n"),
        ]
        for (name, text) in texts {
          // The rendezvous has little to say.
          #expect(!text.isEmpty || name == "rendezvous", "\(name)")
          for secret in secrets + [identity] { #expect(!text.contains(secret), "a secret in \(name)") }
        }
        let lines = (beta.program?.errorText ?? "").split(separator: "\n")
        #expect(lines.count > 3)
        for line in lines { #expect(!(try JSON(parsing: String(line))["message"].text.isEmpty), "\(line)") }
      }
    }
  }
}
