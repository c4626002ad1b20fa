// The metrics of a node: names, labels and meanings. The one source of the page at `--metrics` (Node+Metrics fills it)
// and of the table in docs/metrics.md. Names: `pilot_tun_`, base units, `_total` for counters; the words of the labels
// are those of `status` and of the log.

import Engine
package import Telemetry

package enum NodeMetrics {
  static let buildInfo = gauge("build_info", ["version"], "Always 1; the version that runs.")
  static let uptime = gauge("uptime_seconds", "Since the node started.")
  static let ready = gauge("ready", "1 when the address can be used and the node is registered or was before.")
  static let directoryState = gauge(
    "directory_state", ["state"],
    "1 for the state that the directory is in: `connecting`, `registered`, `unreachable`; 0 for the others.")
  static let directoryStateAge = gauge("directory_state_age_seconds", "How long the directory is in its state.")
  static let peers = gauge(
    "peers", ["path"], "Peers with a row by path class: `direct4`, `direct6`, `relay`; `none` without a session.")
  static let sentBytes = counter("sent_bytes", ["path"], "Bytes of inner packets sent, by path class.")
  static let receivedBytes = counter("received_bytes", ["path"], "Bytes of inner packets received, by path class.")
  static let sentPackets = counter("sent_packets", ["path"], "Inner packets sent, by path class.")
  static let receivedPackets = counter("received_packets", ["path"], "Inner packets received, by path class.")
  static let drops = counter(
    "drops", ["reason"], "What went no further, by the reasons of [drops.md](drops.md).")
  static let events = counter("events", ["event"], "What happened as it should; the events are listed below.")
  static let offloads = gauge("offload_enabled", ["offload"], "1 while the kernel offload is in use.")
  static let streams = gauge("streams", "Streams to and from official agents that are open.")
  static let trustRequests = gauge("trust_requests_pending", "Requests for trust that wait for an operator.")
  static let warnings = gauge("warnings", "Lines with `!` in `pilot-tun status`.")
  static let portMapping = gauge(
    "port_mapping_state", ["state"],
    "1 for the state of the router's port mapping: `off`, `none`, `searching`, `mapped`; 0 for the others.")
  static let queues = gauge(
    "queue_length", ["queue"],
    "Messages that wait between threads: `commands` to the worker, `events` from it, `streams` to the gateway.")
  static let logSuppressed = counter("log_lines_suppressed", "Lines of the log left out as repetitions.")
  static let logLost = counter("log_lines_lost", "Lines that neither journald nor stderr took.")
  static let dnsRunning = gauge("dns_running", "1 while the resolver stub answers.")
  static let dnsQueries = counter("dns_queries", ["protocol"], "DNS queries by `udp` and `tcp`.")
  static let dnsAnswers = counter(
    "dns_answers", ["outcome"],
    "DNS answers: `found`, or the response code (`nxdomain`, `nodata`, `servfail`, `refused`, …); `truncated` on top.")
  static let dnsDropped = counter("dns_dropped", ["reason"], "DNS queries that were not answered.")
  static let dnsEvents = counter("dns_events", ["event"], "What else happened at the stub: connections, lookups.")
  static let processStart = MetricDeclaration(
    "process_start_time_seconds", .gauge, help: "When the process started, seconds since 1970.")
  static let processCPU = MetricDeclaration("process_cpu_seconds", .counter, help: "Processor time used.")
  static let processMemory = MetricDeclaration(
    "process_resident_memory_bytes", .gauge, help: "Resident memory, as the kernel counts it.")
  static let processFiles = MetricDeclaration("process_open_fds", .gauge, help: "Open file descriptors.")

  /// All of them, in the order of the page; the worker's own counters stand behind.
  package static let declarations: [MetricDeclaration] =
    [
      buildInfo, uptime, ready, directoryState, directoryStateAge, peers, sentBytes, receivedBytes, sentPackets,
      receivedPackets, drops, events, offloads, streams, trustRequests, warnings, portMapping, queues, logSuppressed,
      logLost, dnsRunning, dnsQueries, dnsAnswers, dnsDropped, dnsEvents, processStart, processCPU, processMemory,
      processFiles,
    ] + WorkerCounter.allCases.map(worker)

  /// `pilot_tun_sent_frames_total` for `sent-frames` of `status`.
  static func worker(_ counter: WorkerCounter) -> MetricDeclaration {
    self.counter(counter.name.map { $0 == "-" ? "_" : String($0) }.joined(), [], counter.meaning)
  }

  private static func counter(_ name: String, _ labels: [String], _ help: String) -> MetricDeclaration {
    MetricDeclaration("pilot_tun_" + name, .counter, labels, help: help)
  }

  private static func counter(_ name: String, _ help: String) -> MetricDeclaration { counter(name, [], help) }

  private static func gauge(_ name: String, _ labels: [String], _ help: String) -> MetricDeclaration {
    MetricDeclaration("pilot_tun_" + name, .gauge, labels, help: help)
  }

  private static func gauge(_ name: String, _ help: String) -> MetricDeclaration { gauge(name, [], help) }

  /// The table of docs/metrics.md.
  package static var table: String { Exposition.table(declarations) }
}

extension WorkerCounter {
  /// For docs/metrics.md and the page.
  var meaning: String {
    switch self {
    case .tunReads: "Reads from the TUN; one may bring a superpacket of up to 64 KB."
    case .tunReadPackets: "Packets that programs sent, after superpackets were cut."
    case .tunWrites: "Writes into the TUN."
    case .tunWrittenSegments: "Packets handed to programs, before they were joined to superpackets."
    case .sentTrains: "Trains of frames sent with one UDP_SEGMENT datagram."
    case .sentFrames: "Sealed frames sent."
    case .sentTwice: "Frames sent through the relay as well, as the direct path had rested."
    case .sentPlainly: "Trains sent again frame by frame after an offload failed."
    case .sendCalls: "System calls that send (sendmmsg)."
    case .receiveCalls: "System calls that receive (recvmmsg)."
    case .receivedDatagrams: "UDP datagrams received."
    case .receivedFrames: "Authentic frames received."
    case .relayedFrames: "Frames that came through a relay."
    case .relayedPackets: "Frames relayed here from one peer to another."
    case .relayedBytes: "Their bytes."
    case .punches: "Datagrams sent to open a NAT's or firewall's way."
    case .stagedPackets: "Packets that waited for a session."
    case .icmpAnswers: "ICMPv6 errors sent to programs."
    case .translatedPackets: "Packets translated for official agents."
    case .splitPackets: "Packets sent as two frames."
    case .joinedPackets: "Packets that came as two frames."
    case .wakeUps: "Times the worker woke up."
    }
  }
}
