// Metrics: the names and labels that dashboards and alerts rely on, the page and its limits, traffic by path.

import Engine
import Foundation
import Glibc
import JSON
import NIOCore
import NIOPosix
import Synchronization
import Telemetry
import Testing
import Wire

@testable import TunControl

@Suite("Metrics")
struct MetricsTests {
  /// Golden: a change here breaks somebody's dashboard.
  static let golden = """
    gauge pilot_tun_build_info{version}
    gauge pilot_tun_uptime_seconds{}
    gauge pilot_tun_ready{}
    gauge pilot_tun_directory_state{state}
    gauge pilot_tun_directory_state_age_seconds{}
    gauge pilot_tun_peers{path}
    counter pilot_tun_sent_bytes_total{path}
    counter pilot_tun_received_bytes_total{path}
    counter pilot_tun_sent_packets_total{path}
    counter pilot_tun_received_packets_total{path}
    counter pilot_tun_drops_total{reason}
    counter pilot_tun_events_total{event}
    gauge pilot_tun_offload_enabled{offload}
    gauge pilot_tun_streams{}
    gauge pilot_tun_trust_requests_pending{}
    gauge pilot_tun_warnings{}
    gauge pilot_tun_port_mapping_state{state}
    gauge pilot_tun_queue_length{queue}
    counter pilot_tun_log_lines_suppressed_total{}
    counter pilot_tun_log_lines_lost_total{}
    gauge pilot_tun_dns_running{}
    counter pilot_tun_dns_queries_total{protocol}
    counter pilot_tun_dns_answers_total{outcome}
    counter pilot_tun_dns_dropped_total{reason}
    counter pilot_tun_dns_events_total{event}
    gauge process_start_time_seconds{}
    counter process_cpu_seconds_total{}
    gauge process_resident_memory_bytes{}
    gauge process_open_fds{}
    """

  @Test("names, kinds and labels stay what they are")
  func names() {
    let now = NodeMetrics.declarations.prefix(Self.golden.split(separator: "\n").count).map {
      "\($0.kind.rawValue) \($0.sampleName){\($0.labels.joined(separator: ","))}"
    }
    #expect(now.joined(separator: "\n") == Self.golden)
    let worker = NodeMetrics.declarations.dropFirst(now.count)
    #expect(worker.count == WorkerCounter.allCases.count)
    for (declaration, counter) in zip(worker, WorkerCounter.allCases) {
      #expect(declaration.sampleName == "pilot_tun_\(counter.name.replacing("-", with: "_"))_total")
      #expect(declaration.labels.isEmpty && declaration.kind == .counter)
    }
    let all = NodeMetrics.declarations.map(\.sampleName)
    #expect(Set(all).count == all.count)
    for declaration in NodeMetrics.declarations {
      #expect(declaration.help.hasSuffix(".") && !declaration.name.hasSuffix("_total"), "\(declaration.name)")
      #expect(declaration.name.allSatisfy { $0.isASCII && ($0.isLowercase || $0.isNumber || $0 == "_") })
    }
  }

  @Test("every query of the dashboard uses a metric and labels that exist")
  func dashboard() throws {
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    let bytes = try SmallFile.read(root.appendingPathComponent("docs/grafana/pilot-tun.json").path)
    let dashboard = try JSONValue(parsing: bytes)
    let labels = Dictionary(uniqueKeysWithValues: NodeMetrics.declarations.map { ($0.sampleName, $0.labels) })
    var count = 0
    for panel in dashboard.items("panels") {
      for target in panel.items("targets") {
        count += 1
        let query = target.string("expr")
        let metrics = query.matches(of: /\b((?:pilot_tun|process)_\w+)(?:\{([^}]*)\})?/)
        #expect(!metrics.isEmpty, "\(query)")
        var known: Set<String> = ["instance"]
        for metric in metrics {
          let own = try #require(labels[String(metric.1)], "\(metric.1) in \(query)")
          known.formUnion(own)
          for pair in (metric.2 ?? "").split(separator: ",") {
            let name = String(pair.prefix { $0.isLetter || $0 == "_" })
            #expect(name == "instance" || own.contains(name), "\(name) in \(query)")
          }
        }
        for group in query.matches(of: /by \((\w+)\)/) { #expect(known.contains(String(group.1)), "\(query)") }
        for mark in target.string("legendFormat").matches(of: /\{\{(\w+)\}\}/) {
          #expect(known.contains(String(mark.1)), "\(target)")
        }
      }
    }
    #expect(count > 25)
  }

  @Test("bytes count for the path that the peer had meanwhile, and rows that begin anew lose nothing")
  func traffic() {
    var traffic = PathTraffic()
    var before = PeerStatistics()
    var now = PeerStatistics()
    now.sentBytes = 100
    now.receivedPackets = 3
    traffic.add(.relay, from: &before, to: now)
    now.sentBytes = 250
    traffic.add(.direct4, from: &before, to: now)
    #expect(traffic[.relay].sentBytes == 100 && traffic[.direct4].sentBytes == 150)
    #expect(traffic[.relay].receivedPackets == 3 && traffic[.direct4].receivedPackets == 0)
    now = PeerStatistics()
    now.sentBytes = 7
    traffic.add(.direct4, from: &before, to: now)
    #expect(traffic[.direct4].sentBytes == 157)
  }

  @Test("the process' own figures are there")
  func process() {
    let values = ProcessFigures.metrics().compactMap(\.samples.first?.value)
    #expect(values.count == 4 && values.allSatisfy { $0 > 0 }, "\(values)")
    #expect(abs(values[0] - Double(time(nil))) < 86_400)
  }
}

@Suite("Page of metrics")
struct MetricsServerTests {
  /// Sends the bytes and returns everything until the other end closes, or `seconds` of silence.
  private static func talk(_ endpoint: Endpoint, _ text: String, seconds: Int = 5) async throws -> String {
    try await DedicatedThread.run("test-client") {
      let descriptor = connection(endpoint)
      defer { close(descriptor) }
      return talk(descriptor, text, seconds: seconds)
    }
  }

  /// On a connection that stays open. Blocks.
  private static func talk(_ descriptor: Int32, _ text: String, seconds: Int = 5) -> String {
    var limit = timeval(tv_sec: seconds, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    _ = send(descriptor, text, text.utf8.count, Int32(MSG_NOSIGNAL))
    var all: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 16 * 1024)
    while true {
      let count = read(descriptor, &chunk, chunk.count)
      guard count > 0 else { break }
      all += chunk[..<count]
    }
    return String(decoding: all, as: UTF8.self)
  }

  /// Whether the other end has closed it; waits for that until then.
  private static func isClosed(_ descriptor: Int32, within milliseconds: Int32) async throws -> Bool {
    try await DedicatedThread.run("test-client") {
      var question = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
      var byte: UInt8 = 0
      return poll(&question, 1, milliseconds) == 1 && recv(descriptor, &byte, 1, Int32(MSG_PEEK)) <= 0
    }
  }

  /// A connection to a port of 127.0.0.1, or -1.
  private static func connection(_ endpoint: Endpoint) -> Int32 {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var name = sockaddr_in()
    name.sin_family = sa_family_t(AF_INET)
    name.sin_port = endpoint.port.bigEndian
    name.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    let result = withUnsafePointer(to: &name) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard result == 0 else {
      close(descriptor)
      return -1
    }
    return descriptor
  }

  private func serving(
    timeLimit: TimeAmount = .seconds(5), restLimit: TimeAmount = .seconds(60),
    crowded: @escaping @Sendable () -> Void = {}, before: @escaping @Sendable () async -> Void = {},
    _ body: (Endpoint) async throws -> Void
  ) async throws {
    let family = MetricFamily(MetricDeclaration("a", .counter, ["b"], help: "c."), [(["d"], 1)])
    let server = try await MetricsServer(
      Endpoint(address: IPv6Address(mappedIPv4: 0x7F00_0001), port: 0), group: MultiThreadedEventLoopGroup.singleton,
      timeLimit: timeLimit, restLimit: restLimit, crowded: crowded,
      source: {
        await before()
        return [family]
      })
    do {
      try await body(server.endpoint)
    } catch {
      await server.close()
      throw error
    }
    await server.close()
  }

  @Test("GET and HEAD of /metrics are answered, in the form that is asked for; nothing else is")
  func requests() async throws {
    try await serving { endpoint in
      let rest = " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
      let get = try await Self.talk(endpoint, "GET /metrics?a=b\(rest)\r\n")
      #expect(get.hasPrefix("HTTP/1.1 200") && get.hasSuffix("# TYPE a_total counter\na_total{b=\"d\"} 1\n"), "\(get)")
      #expect(get.contains("text/plain; version=0.0.4"))
      let open = try await Self.talk(
        endpoint, "GET /metrics\(rest)Accept: application/openmetrics-text; version=1.0.0\r\n\r\n")
      #expect(
        open.contains("application/openmetrics-text") && open.hasSuffix("# TYPE a counter\na_total{b=\"d\"} 1\n# EOF\n")
      )
      let head = try await Self.talk(endpoint, "HEAD /metrics\(rest)\r\n")
      #expect(head.hasPrefix("HTTP/1.1 200") && head.hasSuffix("\r\n\r\n") && !head.contains("a_total"))
      let twice = try await Self.talk(endpoint, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\nGET /metrics\(rest)\r\n")
      #expect(twice.components(separatedBy: "HTTP/1.1 200").count == 3, "pipelined: \(twice)")
      #expect(try await Self.talk(endpoint, "GET /\(rest)\r\n").hasPrefix("HTTP/1.1 404"))
      #expect(try await Self.talk(endpoint, "POST /metrics\(rest)Content-Length: 0\r\n\r\n").hasPrefix("HTTP/1.1 405"))
      #expect(try await Self.talk(endpoint, "PUT /metrics\(rest)Content-Length: 3\r\n\r\nabc").contains("200") == false)
      #expect(try await Self.talk(endpoint, "rubbish\r\n\r\n").contains("200") == false)
      let long =
        "GET /metrics HTTP/1.1\r\n" + String(repeating: "X: \(String(repeating: "y", count: 1000))\r\n", count: 200)
      #expect(try await Self.talk(endpoint, long).contains("200 OK") == false)
    }
  }

  private static let kept = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
  private static let last = "GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n"

  @Test("who is slow with a request is cut off, with the first as with the next one; who rests may do so for longer")
  func slow() async throws {
    try await serving(timeLimit: .milliseconds(400)) { endpoint in
      let start = ContinuousClock.now
      let slow = try await Self.talk(endpoint, "GET /metrics HTTP/1.1\r\nX: ")
      #expect(slow.isEmpty && ContinuousClock.now - start < .seconds(4))
      let kept = Self.connection(endpoint)
      defer { close(kept) }
      _ = Self.talk(kept, Self.kept, seconds: 1)
      #expect(try await !Self.isClosed(kept, within: 0), "it rests")
      _ = send(kept, "GET /met", 8, Int32(MSG_NOSIGNAL))
      #expect(try await Self.isClosed(kept, within: 4000), "half a request")
    }
    try await serving(restLimit: .milliseconds(300)) { endpoint async throws in
      let kept = Self.connection(endpoint)
      defer { close(kept) }
      #expect(Self.talk(kept, Self.kept, seconds: 4).contains("200 OK"))
      #expect(try await Self.isClosed(kept, within: 0), "rested for too long")
    }
  }

  @Test("connections that ask for nothing make room for those that do, the longest silent one first, and are counted")
  func crowd() async throws {
    let crowded = Mutex(0)
    try await serving(crowded: { crowded.withLock { $0 += 1 } }) { endpoint async throws in
      // The first has had an answer since: it is not the one that was silent for the longest time.
      let held = (0..<MetricsServer.connectionLimit).map { _ in Self.connection(endpoint) }
      defer { for descriptor in held { close(descriptor) } }
      #expect(held.allSatisfy { $0 >= 0 })
      #expect(
        try await DedicatedThread.run("test-client") { Self.talk(held[0], Self.kept, seconds: 1) }.contains("200"))
      #expect(try await Self.talk(endpoint, Self.last).contains("200 OK"))
      #expect(try await Self.isClosed(held[1], within: 4000))
      for descriptor in [held[0]] + held[2...] { #expect(try await !Self.isClosed(descriptor, within: 0)) }
      #expect(crowded.withLock { $0 } == 1)
    }
  }

  @Test("where all are being answered, one more is turned away and counted")
  func busy() async throws {
    let crowded = Mutex(0)
    let (mayGoOn, goOn) = AsyncStream<Void>.makeStream()
    try await serving(crowded: { crowded.withLock { $0 += 1 } }, before: { for await _ in mayGoOn {} }) { endpoint in
      var asking: [Int32] = []
      defer { for descriptor in asking { close(descriptor) } }
      func ask() {
        asking.append(Self.connection(endpoint))
        _ = send(asking[asking.count - 1], Self.last, Self.last.utf8.count, Int32(MSG_NOSIGNAL))
      }
      for _ in 0..<MetricsServer.connectionLimit { ask() }
      // One whose request the server has not seen yet may make room for this one, and this one then is as they are.
      var isTurnedAway = false
      for _ in 0..<8 where !isTurnedAway {
        ask()
        isTurnedAway = try await Self.isClosed(asking[asking.count - 1], within: 500)
      }
      #expect(isTurnedAway)
      goOn.finish()
      let open = asking
      let answers = try await DedicatedThread.run("test-client") { open.map { Self.talk($0, "") } }
      #expect(answers.count { $0.contains("200 OK") } == MetricsServer.connectionLimit, "\(answers)")
      #expect(crowded.withLock { $0 } == asking.count - MetricsServer.connectionLimit)
    }
  }

  @Test("an address that is not there is an error that says so")
  func taken() async throws {
    try await serving { endpoint in
      await #expect(throws: ControlError.self) {
        try await MetricsServer(endpoint, group: MultiThreadedEventLoopGroup.singleton, source: { return [] })
      }
    }
  }
}
