// What each setting of the node is: the one source of the flags' help, of docs/configuration.md and of
// docs/config.toml.example (`scripts/docs` writes them), of `pilot-tun config schema` and of the forms in errors.

import Logging
package import Settings
import Telemetry

extension Setting {
  /// All declarations, in the order of the manual.
  package static var declarations: [SettingDeclaration] { allCases.map(\.declaration) }

  package var declaration: SettingDeclaration {
    switch self {
    case .stateDirectory:
      SettingDeclaration(
        rawValue, .path, standard: "`/var/lib/pilot-tun`",
        summary: "Identity, pinned keys, trust, last known peers (default /var/lib/pilot-tun).",
        meaning: "identity, pinned keys, trust, what is known of peers; 0700", example: #""/var/lib/pilot-tun""#)
    case .controlSocket:
      SettingDeclaration(
        rawValue, .path, value: "path, at most 90 bytes", standard: "`/run/pilot-tun/control.sock`",
        summary: "Control socket (default /run/pilot-tun/control.sock).",
        meaning: "where the other commands reach the node", example: #""/run/pilot-tun/control.sock""#)
    case .ipc:
      SettingDeclaration(
        rawValue, .path, value: "path, at most 90 bytes", standard: "none",
        summary: "Also serve official clients (pilotctl, Python SDK) on this socket.",
        meaning: "also serve official clients there: `pilotctl`, the Python SDK ([interop.md](interop.md))",
        example: #""/run/pilot-tun/pilot.sock""#)
    case .inbox:
      SettingDeclaration(
        rawValue, .path, value: "path, or `off`",
        standard:
          "`~/.pilot` of the node's user, where `pilotctl` looks; the state directory when it has no home",
        summary: "Messages and files for official clients (default ~/.pilot, where pilotctl looks), or off.",
        meaning: "with `ipc`: keeps messages and files that peers send to official clients (`inbox`, `received`), and "
          + "serves events. `off`: ports 1001 and 1002 are like others",
        example: #""/var/lib/pilot-tun""#)
    case .adminTokenFile:
      SettingDeclaration(
        rawValue, .path, standard: "the credential `admin-token` of the service, if it has one",
        summary: "File with the administrator's token of the registry, for `pilotctl broadcast`.",
        meaning: "with `ipc`: file with the administrator's token of the registry, for `pilotctl broadcast` and tags "
          + "of members; one line, readable by the node's user only ([Secrets](#secrets))",
        example: #""/etc/pilot-tun/admin-token""#)
    case .hostname:
      SettingDeclaration(
        rawValue, .text, value: "1 to 63 of `a-z 0-9 -`", standard: "none", isReloadable: true,
        summary: "Name of this node; others reach it as NAME.pilot.",
        meaning: "the node's name in the directory; others reach it as `NAME.pilot`",
        example: #""specialist-papers""#)
    case .rendezvous:
      SettingDeclaration(
        rawValue, .text, value: "`HOST[:PORT]`", standard: "none: the node runs its own",
        summary: "Registry and beacon on one host (ports 9000 and 9001).",
        meaning: "registry and beacon on one host; the beacon's port is 9001, or PORT + 1",
        example: #""rendezvous.example.net""#)
    case .registry:
      SettingDeclaration(
        rawValue, .text, value: "`HOST:PORT`", standard: "from `rendezvous`", summary: "Registry (TCP).",
        meaning: "the registry on its own", example: #""registry.example.net:9000""#)
    case .beacon:
      SettingDeclaration(
        rawValue, .list, value: "`HOST[:PORT]`, at most 8",
        standard: "from `rendezvous`, and those that the registry names",
        summary: "Beacon (UDP); repeatable, the nearest that works is used.",
        meaning: "beacons (also `beacons`): all are measured, the nearest that works is used "
          + "([nat-traversal.md](nat-traversal.md#several-beacons)). Name the registry's own first: it is the one that "
          + "official daemons know, and where nodes meet",
        example: #"["rendezvous.example.net", "beacon2.example.net"]"#)
    case .interface:
      SettingDeclaration(
        rawValue, .text, value: "1 to 15 characters", standard: "`pilot0`", summary: "TUN interface (default pilot0).",
        meaning: "name of the TUN interface", example: #""pilot0""#)
    case .mtu:
      SettingDeclaration(
        rawValue, .number(1280...9000, unit: "bytes"), standard: "1400",
        summary: "Largest inner packet in bytes, 1280 to 9000 (default 1400).",
        meaning: "MTU of the interface: 100 less than what the underlay carries; where the node's own link carries "
          + "less, packets adapt",
        example: "1400")
    case .listen:
      SettingDeclaration(
        rawValue, .text, value: "`[ADDRESS:]PORT`",
        standard: "all addresses, 4000, or any free port when that is taken",
        summary: "Tunnel socket (default port 4000, any free port when taken).",
        meaning: "UDP socket of the tunnels", example: #""4000""#)
    case .advertise:
      SettingDeclaration(
        rawValue, .text, value: "`HOST:PORT`", standard: "what the beacon sees",
        summary: "Endpoint at which others reach this node.", meaning: "endpoint to tell the directory",
        example: #""203.0.113.9:4000""#)
    case .portMapping:
      SettingDeclaration(
        rawValue, .choice(PortMappingMode.allCases.map(\.rawValue)), standard: "`auto`",
        summary: "Have the router open a port (PCP, NAT-PMP, UPnP): auto or off (default auto).",
        meaning: "has the router of the default IPv4 route open the tunnel's port: asks it by PCP, NAT-PMP, then UPnP, "
          + "and the firewall of the default IPv6 route let it in (PCP); gives both back at the end; `status` shows what came of it",
        example: #""auto""#)
    case .hardNAT:
      SettingDeclaration(
        rawValue, .choice(HardNATMode.allCases.map(\.rawValue)), standard: "`auto`",
        summary: "Open many ports where a punch cannot connect: auto or off (default auto).",
        meaning:
          "between a symmetric NAT and one that filters by port, one end opens 32 to 256 ports for some seconds and "
          + "the other tries up to 1,024, at most every two minutes and ever more rarely "
          + "([nat-traversal.md](nat-traversal.md)); `off`: such pairs stay relayed",
        example: #""auto""#)
    case .isPublic:
      SettingDeclaration(
        rawValue, .flag, standard: "false", isReloadable: true,
        summary: "Accept packets of every node, not only of trusted ones.", meaning: "let every registered node in",
        example: "false")
    case .trustAutoApprove:
      SettingDeclaration(
        rawValue, .flag, standard: "false", isReloadable: true, summary: "Approve every request for trust.",
        meaning: "agree to every request for trust", example: "false")
    case .networks:
      SettingDeclaration(
        rawValue, .list, value: "`NUMBER` (1 to 65534), `NUMBER:@FILE` or `NUMBER:TOKEN`", standard: "none",
        isSecret: true,
        summary: "Network to join; repeatable. A token is better kept in a file or credential.",
        meaning: "networks to join (also `networks`). Where a network asks for a token: a file that holds it, or the "
          + "credential `network-NUMBER` of the service ([Secrets](#secrets)); the token itself belongs into no "
          + "command line, where others see it",
        example: "[7]")
    case .tags:
      SettingDeclaration(
        rawValue, .list, value: "at most three", standard: "none", isReloadable: true,
        summary: "Tag that others find this node by; up to three.", meaning: "tags in the directory (also `tags`)",
        example: #"["papers"]"#)
    case .relayOnly:
      SettingDeclaration(
        rawValue, .flag, standard: "false", summary: "Never talk to peers directly, only through the beacon.",
        meaning: "no direct paths", example: "false")
    case .relay:
      SettingDeclaration(
        rawValue, .flag, standard: "false", summary: "Relay for trusted peers that cannot reach each other directly.",
        meaning: "relay for trusted peers that do not reach each other directly; for nodes with a public address "
          + "([nat-traversal.md](nat-traversal.md#nodes-as-relays))",
        example: "false")
    case .relayLimit:
      SettingDeclaration(
        rawValue, .text, value: "`BYTES` or `BYTES:PACKETS` a second, with k, M or G; at least `10k:10`",
        standard: "`4M:8k`",
        summary: "Bytes, and packets, a second that are relayed for each peer (default 4M:8k).",
        meaning: "what is relayed for each peer, with `relay`", example: #""4M:8k""#)
    case .transport:
      SettingDeclaration(
        rawValue, .choice(TransportMode.allCases.map(\.rawValue)), standard: "`auto`",
        summary: "How to reach the rendezvous: auto, udp or tls (default auto: TLS where UDP is blocked).",
        meaning:
          "how to reach the rendezvous: by UDP and its own ports, by TLS on TCP 443, or by TLS where UDP is blocked "
          + "([nat-traversal.md](nat-traversal.md#where-udp-is-blocked))",
        example: #""auto""#)
    case .rendezvousTLS:
      SettingDeclaration(
        rawValue, .text, value: "`HOST[:PORT]`", standard: "the registry's host, 443",
        summary: "Where the rendezvous listens for TLS (default: its host, port 443).",
        meaning: "where the rendezvous listens for TLS", example: #""rendezvous.example.net:443""#)
    case .proxy:
      SettingDeclaration(
        rawValue, .text, value: "`http://[USER:PASSWORD@]HOST[:PORT]`, or `none`",
        standard: "`HTTPS_PROXY`, `https_proxy`", isSecret: true,
        summary: "HTTP proxy for TLS, or none (default HTTPS_PROXY).",
        meaning:
          "HTTP proxy (CONNECT) for TLS; hosts in `NO_PROXY` are reached without it. Credentials are refused on the "
          + "command line, where every user sees them",
        example: #""http://proxy.example.net:3128""#)
    case .proxyCredentialsCommand:
      SettingDeclaration(
        rawValue, .text, value: "a command for `/bin/sh`", standard: "none", isSecret: true,
        summary: "Prints the proxy's credentials; run again when they are refused.",
        meaning: "prints `USER:PASSWORD`, the proxy's URL with both, or `Bearer TOKEN` as its first line; run when "
          + "credentials are needed first, and again when the proxy refuses them (407); 10 s at most",
        example: #""cat /run/proxy-credentials""#)
    case .tlsCAFile:
      SettingDeclaration(
        rawValue, .path, standard: "the system's authorities, or `SSL_CERT_FILE`",
        summary: "Authorities to trust instead of the system's (PEM).",
        meaning: "PEM file of the authorities to trust instead", example: #""/etc/pilot-tun/authority.pem""#)
    case .dns:
      SettingDeclaration(
        rawValue, .text, value: "`auto`, `resolved`, `file:/PATH`, `off`", standard: "`auto`",
        summary: "Who is told to ask this node for names: auto, resolved, file:/PATH or off (default auto).",
        meaning: "who is told to ask this node for names; see [Names](#names)", example: #""auto""#)
    case .dnsSearch:
      SettingDeclaration(
        rawValue, .flag, standard: "false", summary: "Complete short names with .pilot, through systemd-resolved.",
        meaning: "short names are completed with `.pilot` (`ssh papers`), by systemd-resolved", example: "false")
    case .metrics:
      SettingDeclaration(
        rawValue, .text, value: "`[ADDRESS:]PORT`", standard: "none",
        summary: "Serve metrics for Prometheus over HTTP; without ADDRESS on 127.0.0.1 only.",
        meaning: "serves `/metrics` for Prometheus over HTTP ([metrics.md](metrics.md)); a port alone is one of "
          + "127.0.0.1, other machines are let in by naming an address",
        example: #""127.0.0.1:9464""#)
    case .logLevel:
      SettingDeclaration(
        rawValue, .choice(Logger.Level.allCases.map(\.rawValue)), value: "`trace` … `critical`", standard: "`info`",
        isReloadable: true, summary: "trace, debug, info, notice, warning, error or critical (default info).",
        meaning: "what is logged; `pilot-tun log-level LEVEL` changes it in the running node", example: #""info""#)
    case .logFormat:
      SettingDeclaration(
        rawValue, .choice(LogFormat.allCases.map(\.rawValue)), standard: "`auto`",
        summary: "auto, text, json or journal (default auto: journal as a service, else text).",
        meaning: "`auto`: with fields to journald when stderr leads there, as it does in a service, else `text` "
          + "([logs.md](logs.md))",
        example: #""auto""#)
    }
  }
}
