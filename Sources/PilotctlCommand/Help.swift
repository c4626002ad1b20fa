// The pages of `--help`.

enum Help {
  static let usage = """
    usage: pilotctl [--json] VERB [ARGUMENTS] [FLAGS]

      daemon start [--hostname NAME] [--rendezvous HOST]   start a node in the background
      daemon stop | daemon status [--check]                stop it, look at it
      ping PEER [--count N] [--timeout DUR]                measure the way to a peer
      info | health | peers [--all]                        the node, its traffic, its peers
      find HOSTNAME                                        address of a name
      handshake PEER [REASON]                              ask a peer for trust
      pending | approve PEER | reject PEER                 requests of others
      trust | untrust PEER                                 trusted peers
      version

    A PEER is a hostname, a Pilot address, an IPv6 overlay address or a node id. Flags may stand anywhere.
    --json prints one line: {"data":{…},"status":"ok"} on stdout, errors on stderr. `pilotctl VERB --help` says more.
    """

  static func page(_ words: [String]) -> String? {
    switch (words.first, words.dropFirst().first) {
    case ("daemon", "start"):
      """
      pilotctl daemon start [--hostname NAME] [--rendezvous HOST[:PORT]] [--registry HOST:PORT] [--beacon HOST:PORT]
        [--listen [ADDRESS:]PORT] [--socket PATH] [--endpoint HOST:PORT] [--public] [--trust-auto-approve]
        [--networks ID,ID] [--interface NAME] [--state-dir DIR] [--dns auto|resolved|off] [--config FILE]
        [--log-level LEVEL] [--log-format text|json] [--relay-only] [--foreground] [--wait DUR]

      Starts `pilot-tun up` (PILOT_DAEMON_BIN, else next to pilotctl, else in PATH) and waits until it is ready.
      State, pid file and log are in ~/.pilot (PILOT_HOME moves it). Without --rendezvous or --registry the node
      brings its own rendezvous along. Flags of the official daemon without a meaning here are noted and ignored.
      """
    case ("daemon", _):
      """
      pilotctl daemon start [FLAGS]       start a node and wait until it is ready
      pilotctl daemon stop                end it (SIGTERM, after 10 s SIGKILL)
      pilotctl daemon status [--check]    --check prints nothing: status 0 when it answers, else 1
      """
    case ("ping", _):
      """
      pilotctl ping PEER [--count N] [--timeout DUR]

      Four packets, one a second, 5 s in all. Status 1 when nothing came back, also when the time ran out before.
      """
    default: usage
    }
  }
}
