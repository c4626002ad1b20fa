// Every verb of `pilotctl`: what it takes, and what it does. Help texts, manual page, completions and the check of flags
// come from this table.

import TunControl

enum Manual {
  static let abstract = "The commands that Pilot users know, answered by a pilot-tun node."
  static let discussion = """
    A PEER is a hostname, a Pilot address, an IPv6 overlay address or a node id. Flags may stand anywhere.
    --json prints one line: {"data":{…},"status":"ok"} on stdout, errors on stderr.
    """

  static let verbs: [VerbDescription] = [
    VerbDescription(
      "daemon", "A node in the background.",
      verbs: [
        VerbDescription(
          "start", "Start a node and wait until it is ready.",
          discussion: """
            Starts `pilot-tun up` (PILOT_DAEMON_BIN, else next to pilotctl, else in PATH) and waits until it is ready. \
            State, pid file and log are in ~/.pilot (PILOT_HOME moves it). Without --rendezvous or --registry the node \
            brings its own rendezvous along. Flags of the official daemon without a meaning here are noted and ignored.
            """,
          flags: [
            .option("hostname", "name", "Name of the node; others reach it as NAME.pilot."),
            .option("rendezvous", "host[:port]", "Registry and beacon on one host."),
            .option("registry", "host:port", "Registry (PILOT_REGISTRY)."),
            .option("beacon", "host:port", "Beacon (PILOT_BEACON)."),
            .option("listen", "[address:]port", "Tunnel socket."),
            .option("endpoint", "host:port", "Endpoint at which others reach this node."),
            .switch("public", "Accept packets of every node, not only of trusted ones."),
            .switch("trust-auto-approve", "Approve every request for trust."),
            .option("networks", "id,id", "Networks to join."),
            .option("interface", "name", "TUN interface."),
            .option("mtu", "bytes", "Largest inner packet."),
            .option("state-dir", "folder", "Identity, pinned keys, trust (default ~/.pilot)."),
            .option("dns", "auto|resolved|off", "Names."),
            .option("config", "file", "Configuration file of pilot-tun."),
            .option("metrics", "address:port", "Serve counters for Prometheus over HTTP."),
            .option("log-level", "level", "trace, debug, info, notice, warning, error or critical."),
            .option("log-format", "text|json", "Form of the log."),
            .switch("relay-only", "Never talk to peers directly, only through the beacon."),
            .switch("foreground", "Become the node instead of starting one."),
            .option("wait", "duration", "How long to wait until it is ready (default 30s)."),
          ],
          ignored: DaemonStart.ignored.union(["no-encrypt"])),
        VerbDescription("stop", "End the node (SIGTERM, after 10 s SIGKILL)."),
        VerbDescription(
          "status", "Say whether the node runs and answers.",
          flags: [.switch("check", "Print nothing: exit status 0 when it answers, else 1.")]),
      ]),
    VerbDescription(
      "ping", "Measure the way to a peer.",
      discussion: "Four packets, one a second, 5 s in all. Exit status 1 when nothing came back.",
      operands: [.peer],
      flags: [
        .option("count", "n", "Packets to send (default 4)."),
        .option("timeout", "duration", "Time for all of them (default 5s)."),
      ],
      ignored: ["reuse-conn", "trace", "no-auto-handshake"]),
    VerbDescription("info", "Show the node and its traffic."),
    VerbDescription("health", "Show whether the node is well, in a few lines."),
    VerbDescription(
      "peers", "List the peers and how they are reached.",
      flags: [
        .switch("all", "Those without a session as well."),
        .option("limit", "n", "At most so many."),
        .option("search", "digits", "Only peers whose node id contains these digits."),
      ]),
    VerbDescription(
      "find", "Find the address of a name.",
      operands: [.init(name: "hostname", help: "Hostname, with or without .pilot.")]
    ),
    VerbDescription("handshake", "Ask a peer for trust.", operands: [.peer, .reason("Shown to the peer's operator.")]),
    VerbDescription("pending", "List requests for trust that wait for an answer."),
    VerbDescription("approve", "Accept a peer's request.", operands: [.peer]),
    VerbDescription("reject", "Refuse a peer's request.", operands: [.peer, .reason("Told to the peer.")]),
    VerbDescription(
      "trust", "List trusted peers.",
      flags: [
        .option("search", "text", "Only those that contain this text."),
        .option("limit", "n", "At most so many."),
      ]),
    VerbDescription("untrust", "Withdraw trust; the peer's packets stop at once.", operands: [.peer]),
    VerbDescription("version", "Show the version of this program.", takesSocket: false),
  ]

  /// The description that fits the words of a line, and how many of them name it.
  static func find(_ words: [String]) -> VerbDescription? {
    guard let verb = verbs.first(where: { $0.name == words.first }) else { return nil }
    return verb.verbs.first { $0.name == words.dropFirst().first } ?? verb
  }

  /// Refuses flags that the verb does not know: a misspelt one must not be ignored silently.
  static func check(_ arguments: PilotctlArguments) throws(ControlError) {
    // A verb that only has verbs of its own answers by itself.
    guard let verb = find(arguments.words), verb.verbs.isEmpty else { return }
    try arguments.allow(Set(verb.flags.map(\.name)).union(verb.ignored))
  }
}
