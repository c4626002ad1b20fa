// What each setting of the rendezvous is: the one source of the flags' help, of its part of docs/configuration.md and of
// docs/rendezvous.toml.example (scripts/docs writes them), of `config schema` and of the forms in errors.

package import Settings

extension RendezvousSettings {
  package static func declaration(_ name: String) -> SettingDeclaration? {
    declarations.first { $0.key == key(name) }
  }

  /// `state-dir` for `state_dir`.
  static func key(_ name: String) -> String {
    name.split(separator: "_", omittingEmptySubsequences: false).joined(separator: "-")
  }

  /// In the order of the manual.
  package static let declarations: [SettingDeclaration] = [
    SettingDeclaration(
      "state-dir", .path, standard: "`/var/lib/pilot-rendezvous`",
      summary: "Keep the database here (default /var/lib/pilot-rendezvous).",
      meaning: "the database and the lock that keeps a second server out", example: #""/var/lib/pilot-rendezvous""#),
    SettingDeclaration(
      "registry-listen", .text, value: "`ADDRESS:PORT`", standard: "`[::]:9000`",
      summary: "Registry, TCP (default [::]:9000).", meaning: "the registry (TCP)", example: #""[::]:9000""#),
    SettingDeclaration(
      "beacon-listen", .text, value: "`ADDRESS:PORT`", standard: "`[::]:9001`",
      summary: "Beacon, UDP (default [::]:9001).",
      meaning: "the beacon (UDP); checks are answered on the port after it", example: #""[::]:9001""#),
    SettingDeclaration(
      "http-listen", .text, value: "`ADDRESS:PORT`", standard: "none",
      summary: "Status page and metrics, HTTP (default none).",
      meaning:
        "serves `/healthz`, `/api/public-stats` and `/metrics` ([metrics.md](metrics.md)): numbers only, no names",
      example: #""127.0.0.1:9002""#),
    SettingDeclaration(
      "advertised-beacon", .text, value: "`ADDRESS:PORT`", standard: "where nodes reached this one",
      summary: "Beacon that nodes are told about (default: where they reached this one).",
      meaning: "the beacon that nodes are told about", example: #""203.0.113.5:9001""#),
    SettingDeclaration(
      "more-beacons", .list, value: "`ADDRESS:PORT`", standard: "none",
      summary: "A beacon that runs by itself, for nodes of pilot-tun (--more-beacon, may be repeated).",
      meaning: "beacons that run by themselves (`pilot-rendezvous beacon`), which nodes of pilot-tun are told of; the "
        + "flag is `--more-beacon` ([nat-traversal.md](nat-traversal.md#several-beacons))",
      example: #"["198.51.100.7:9001"]"#),
    SettingDeclaration(
      "admin-token", .text, standard: "none: no administrator", isSecret: true,
      summary: "The administrator's token; better kept in a file (--admin-token-file).",
      meaning: "the administrator's token itself; `admin-token-file` keeps it out of the configuration",
      example: #""a long random text""#),
    SettingDeclaration(
      "admin-token-file", .path, standard: "the credential `admin-token` of the service, if it has one",
      summary: "File with the administrator's token.",
      meaning: "file with the administrator's token: one line, readable by the server's user only",
      example: #""/etc/pilot-rendezvous/admin-token""#),
    SettingDeclaration(
      "admin-needs-tls", .flag, standard: "false", summary: "Refuse the administrator's token on plain connections.",
      meaning: "refuses the administrator's token on connections that are neither TLS nor from this machine",
      example: "true"),
    SettingDeclaration(
      "tls-certificate", .path, value: "PEM file", standard: "none",
      summary: "PEM file: with it and --tls-key the registry port speaks TLS as well.",
      meaning: "with `tls-key`: the registry's port speaks TLS as well", example: #""/etc/pilot-rendezvous/cert.pem""#),
    SettingDeclaration(
      "tls-key", .path, value: "PEM file", standard: "none", summary: "PEM file: the key of the certificate.",
      meaning: "the key of the certificate", example: #""/etc/pilot-rendezvous/key.pem""#),
    SettingDeclaration(
      "tls-listen", .text, value: "`ADDRESS:PORT`, or `off`", standard: "`[::]:443` with a certificate",
      summary: "TLS for nodes without UDP: ADDRESS:PORT or off (default [::]:443 with a certificate).",
      meaning: "registry and beacon by TLS, for nodes whose network lets no UDP through", example: #""[::]:443""#),
    SettingDeclaration(
      "networks", .list, value: "`NAME:open`, `NAME:token:@FILE` or `NAME:token:SECRET`", standard: "none",
      isSecret: true,
      summary: "A network that exists from the start (--network, may be repeated); secrets are better kept in files.",
      meaning:
        "networks that exist from the start; the flag is `--network`. A name of a FILE without a slash is that of "
        + "a credential of the service",
      example: #"["team:open"]"#),
    SettingDeclaration(
      "exempt-sources", .list, value: "addresses or `ADDRESS/LENGTH`", standard: "`127.0.0.0/8`, `::1`",
      summary: "Sources that the limits per source do not count.",
      meaning: "sources that the limits per source do not count", example: #"["10.0.0.0/8"]"#),
    SettingDeclaration(
      "believe-local-clients", .flag, standard: "true", summary: "Clients on this machine may name their address.",
      meaning: "a client on this machine may name the address at which others reach it", example: "true"),
    SettingDeclaration(
      "bind-changes-to-host", .flag, standard: "true",
      summary: "Signed changes are taken from the host that registered the node only.",
      meaning: "a signed change is taken only from the host that registered the node", example: "true"),
    SettingDeclaration(
      "group-connections", .flag, standard: "true",
      summary: "Connections of one host within 0.25 s count as one client for reading.",
      meaning: "connections of one host opened within 0.25 s count as one client for reading", example: "true"),
    SettingDeclaration(
      "connections", .number(1...10_000_000, unit: ""), standard: "100000", summary: "Connections at most.",
      meaning: "connections at most", example: "100000"),
    SettingDeclaration(
      "connections-per-source", .number(1...10_000_000, unit: ""), standard: "256",
      summary: "Connections of one source at most.", meaning: "connections of one source at most", example: "256"),
    SettingDeclaration(
      "nodes", .number(1...100_000_000, unit: ""), standard: "1000000", summary: "Nodes at most.",
      meaning: "nodes at most", example: "1000000"),
    SettingDeclaration(
      "relayed-per-second", .number(1...100_000_000, unit: "datagrams"), standard: "50000",
      summary: "Datagrams relayed for one node in a second.", meaning: "datagrams relayed for one node in a second",
      example: "50000"),
    SettingDeclaration(
      "threads", .number(1...256, unit: ""), standard: "2", summary: "Threads of the registry.",
      meaning: "threads of the registry; the beacon has one of its own", example: "2"),
    SettingDeclaration(
      "log-level", .choice(["trace", "debug", "info", "notice", "warning", "error", "critical"]),
      value: "`trace` … `critical`", standard: "`info`", isReloadable: true,
      summary: "trace, debug, info, notice, warning, error or critical (default info).", meaning: "what is logged",
      example: #""info""#),
    SettingDeclaration(
      "log-format", .choice(["auto", "text", "json", "journal"]), standard: "`auto`",
      summary: "auto, text, json or journal (default auto: journal as a service, else text).",
      meaning: "the log's form ([logs.md](logs.md))", example: #""auto""#),
  ]
}
