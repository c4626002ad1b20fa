// The dashboard of docs/grafana before a real Prometheus that scrapes a real node: each expression of each panel is
// taken, and has data.

import Foundation
import Glibc
import Testing

/// Unpacked, not installed.
private enum Prometheus {
  static let program = URL(fileURLWithPath: Official.folder).deletingLastPathComponent()
    .appendingPathComponent("prometheus/usr/bin/prometheus").path
  static var isThere: Bool { access(program, X_OK) == 0 }
}

extension KernelTests {
  @Suite(
    "Dashboard", .enabled(if: Prometheus.isThere, "Prometheus is not here: scripts/setup --interop fetches it"))
  struct DashboardTests {
    private static let dashboard = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .appendingPathComponent("../../docs/grafana/pilot-tun.json").standardized.path

    @Test("Prometheus takes each expression of the dashboard, and has data for it")
    func expressions() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha", ["--metrics", "9464"])
        let beta = try fleet.node("beta")
        let folder = fleet.lab.directory
        let settings = """
          global: {scrape_interval: 1s}
          scrape_configs: [{job_name: pilot-tun, static_configs: [{targets: ["127.0.0.1:9464"]}]}]

          """
        try settings.write(toFile: folder + "/prometheus.yml", atomically: false, encoding: .utf8)
        let program = try fleet.lab.start(
          in: alpha.namespace,
          [
            Prometheus.program, "--config.file=\(folder)/prometheus.yml",
            "--storage.tsdb.path=\(folder)/series", "--web.listen-address=127.0.0.1:9090",
          ])
        // Traffic, and packets that are dropped: nobody has that address.
        try alpha.waitForPing(beta.ipv6)
        let nobody = Fleet.resolver.replacingOccurrences(of: "ffff::53", with: ":1234:5678")
        for target in [beta.ipv6, nobody] {
          _ = try fleet.lab.start(in: alpha.namespace, ["ping", "-q", "-i", "0.2", target])
        }
        var last = ""
        let seen = try? eventually("each panel has data", within: 60) {
          let outcome = try alpha.run(
            Tools.python("dashboard", Self.dashboard, "http://127.0.0.1:9090", "10s"), within: 30)
          last = outcome.output + outcome.errors
          return outcome.isSuccess ? true : nil
        }
        #expect(seen == true, "\(last)\n\(program.transcript.suffix(2000))")
        #expect(last.split(separator: "\n").count > 25, "\(last)")
      }
    }
  }
}
