// Makes this machine's programs ask our stub for .pilot, and nothing else: through systemd-resolved, or through a file
// that the operator named. Shows by getaddrinfo(3) that it works, and says why when it does not. One per Node, which
// begins it when the stub answers and ends it before the interface goes.

import JSON
import Logging
import Naming
import Wire

actor HostNames {
  private let mode: DNSMode
  private let isSearched: Bool
  private let interface: (name: String, index: UInt32)
  private let note: ResolverFileNote
  private let logger: Logger

  private var thread: ResolvedThread?
  private var reports: Task<Void, Never>?
  private var report = ResolvedThread.Report()
  private var file: ResolverFile?
  private var fileProblem: ControlError?
  /// Ends the wait of `start` for the first thing that is known of resolved.
  private var becameKnown: AsyncStream<Void>.Continuation?

  /// The name that is asked for, and where it leads.
  private var subject: (name: String, address: IPv6Address)?
  private var proof: NameProof?
  private var isProving = false
  private var provedAt: UInt64 = 0
  private var hasAdvised = false
  private var hasBegun = false
  /// Nothing is told to anybody any more.
  private var isEnded = false
  private var logged: Set<String> = []

  private static let proofLimit = Duration.seconds(3)
  /// So long a start waits for resolved, which may be starting, too.
  private static let resolvedLimit = Duration.seconds(3)

  init(configuration: NodeConfiguration, interface: (name: String, index: UInt32), logger: Logger) {
    mode = configuration.dns
    isSearched = configuration.isDNSSearched
    self.interface = interface
    note = ResolverFileNote(stateDirectory: configuration.stateDirectory)
    self.logger = logger
  }

  /// The stub answers, `name` (of this node, or of the stub) leads to `address`. Returns when programs were shown to find
  /// it, or not, after some seconds at most. May be called again with another name.
  ///
  /// - Throws: the operator insisted on a way that does not work.
  func begin(name: String, address: IPv6Address) async throws(ControlError) {
    guard mode != .off, !isEnded else { return }
    let isFirst = !hasBegun
    guard isFirst || subject?.name != name || subject?.address != address else { return }
    hasBegun = true
    subject = (name, address)
    if isFirst { try await start() }
    await prove()
  }

  /// The network of this machine changed.
  func look() {
    thread?.look()
    if let file { install(file) }
    proveAgainIfDue()
  }

  /// Takes everything back.
  func end() async {
    isEnded = true
    if let thread {
      thread.stop()
      await reports?.value
      self.thread = nil
    }
    if let file { takeBack(file) }
    file = nil
  }

  // MARK: Ways

  private func start() async throws(ControlError) {
    if let left = note.read() { takeBack(left) }
    if case .file(let path) = mode {
      let wanted = try ResolverFile(path)
      file = wanted
      install(wanted)
      if let fileProblem { throw fileProblem }
      return
    }
    let (known, becameKnown) = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingOldest(1))
    self.becameKnown = becameKnown
    do {
      let thread = try ResolvedThread(
        index: interface.index, domains: ResolvedSettings.domains(isSearched: isSearched), insists: mode == .resolved)
      self.thread = thread
      reports = Task {
        for await report in thread.reports { take(report) }
        becameKnown.finish()
      }
    } catch {
      guard mode == .auto else { throw error }
      report.state = .failed(ResolvedMachine.Problem(name: error.code, text: error.message))
      return logOnce(error.description)
    }
    let limit = Task {
      guard (try? await Task.sleep(for: Self.resolvedLimit)) != nil else { return }
      becameKnown.finish()
    }
    for await _ in known {}
    limit.cancel()
    guard mode == .resolved, report.state != .configured else { return }
    throw ResolverAdvice.explain(report.state, interface: interface.name)
      ?? ControlError(
        "resolved_unavailable", "systemd-resolved does not answer", hint: ResolverAdvice.unavailableHint)
  }

  private func take(_ new: ResolvedThread.Report) {
    let before = report
    report = new
    // Whoever goes on doing it is reported once more, as a problem.
    if new.losses > before.losses, new.losses <= 3 {
      logger.notice(
        "systemd-resolved lost the settings of our interface; they are set again",
        metadata: ["times": "\(new.losses)"])
    }
    guard new.state != before.state else { return }
    if new.state != .starting { becameKnown?.finish() }
    if new.state == .configured {
      logger.info(
        "systemd-resolved asks this node for names", metadata: ["domains": "\(domainText)"])
      // The first proof is `begin`'s.
      if proof != nil { Task { await prove() } }
    } else if case .failed = new.state, let problem = ResolverAdvice.explain(new.state, interface: interface.name) {
      logOnce("\(problem.message)\(problem.hint.map { " (\($0))" } ?? "")")
    }
  }

  private func install(_ file: ResolverFile) {
    guard !isEnded else { return }
    do throws(ControlError) {
      do throws(FileFailure) {
        try note.write(file)
      } catch {
        throw ControlError(
          "resolver_file_unusable", "cannot keep a note of \(file.path): \(error.reason)",
          hint: "the state directory has to be writable: \(note.path)")
      }
      if try file.install() { logger.info("programs ask this node first", metadata: ["file": "\(file.path)"]) }
      fileProblem = nil
    } catch {
      fileProblem = error
      logOnce(error.message)
    }
  }

  private func takeBack(_ file: ResolverFile) {
    do {
      try file.remove()
      note.clear()
    } catch {
      logOnce("a line of ours stays behind: \(error.message)")
    }
  }

  // MARK: Proof

  private func prove() async {
    guard let subject, !isProving else { return }
    isProving = true
    var proof = await NameProof.run(subject.name, expects: subject.address, within: Self.proofLimit)
    // Whoever was told this moment may need another one.
    for _ in 0..<2 where proof.failure != nil && isTold && proof.milliseconds < 1000 {
      try? await Task.sleep(for: .milliseconds(300))
      proof = await NameProof.run(subject.name, expects: subject.address, within: Self.proofLimit)
    }
    isProving = false
    provedAt = Clock.now()
    let hadFailed = self.proof?.failure != nil
    self.proof = proof
    if proof.failure == nil {
      if hadFailed || !logged.contains("proven") { logger.info("names resolve", metadata: ["name": "\(proof.name)"]) }
      logged.insert("proven")
    } else if let problem {
      logOnce("names do not resolve: \(problem.message)\(problem.hint.map { " (\($0))" } ?? "")")
      advise()
    }
  }

  private func proveAgainIfDue() {
    guard proof?.failure != nil, Clock.now() > provedAt + 5_000_000_000 else { return }
    Task { await prove() }
  }

  private func advise() {
    guard needsAdvice, !hasAdvised else { return }
    hasAdvised = true
    logger.notice("to have programs on this machine find NAME.pilot, add one of these:")
    for line in ResolverAdvice.lines { logger.notice("  \(line)") }
  }

  private func logOnce(_ text: String) {
    if logged.count < 64, logged.insert(text).inserted { logger.warning("\(text)") }
  }

  // MARK: What is shown

  /// resolved, or a file, leads programs here.
  private var isTold: Bool { file != nil || report.state == .configured }
  private var needsAdvice: Bool { proof?.failure != nil && !isTold }

  private var domainText: String { ResolvedSettings.domains(isSearched: isSearched).joined(separator: " ") }

  /// What keeps programs from finding names; nil when nothing does, or nothing is known yet.
  var problem: ControlError? {
    if let fileProblem { return fileProblem }
    guard let proof, let failure = proof.failure else {
      if case .failed = report.state { return ResolverAdvice.explain(report.state, interface: interface.name) }
      return nil
    }
    let asked = "\(proof.name): \(failure)"
    if let file {
      return ControlError(
        "names_unresolved", asked,
        hint: "do programs read \(file.path)? The line `hosts:` of /etc/nsswitch.conf needs `dns`")
    }
    if let known = ResolverAdvice.explain(report.state, interface: interface.name) {
      return ControlError(known.code, "\(asked); \(known.message)", hint: known.hint)
    }
    let files = ["/etc/resolv.conf", "/etc/nsswitch.conf"].map { (try? SmallFile.read($0)) ?? [] }
    if let bypass = ResolverAdvice.bypass(resolvConf: files[0], nsswitch: files[1]) {
      return ControlError("names_unresolved", "\(asked); \(bypass)", hint: ResolverAdvice.bypassHint)
    }
    return ControlError("names_unresolved", asked, hint: "resolvectl query \(proof.name)")
  }

  /// The section `names` of `status`.
  func status() -> JSONValue {
    proveAgainIfDue()
    var members: [String: JSONValue] = [
      "mode": .text(mode.description), "mechanism": .text(mechanism), "state": .text(stateWord),
      "stub": .text("[\(OverlayMapping.resolver)]:53"), "zone": "pilot", "error": JSONValue(problem?.message),
      "code": JSONValue(problem?.code), "hint": JSONValue(problem?.hint),
      "advice": .list(of: needsAdvice ? ResolverAdvice.lines : []), "proof": .null,
    ]
    if thread != nil { members["losses"] = JSONValue(report.losses) }
    if let proof {
      members["proof"] = [
        "name": .text(proof.name), "ok": JSONValue(proof.failure == nil), "error": JSONValue(proof.failure),
        "milliseconds": JSONValue(rounded: proof.milliseconds),
      ]
    }
    return .object(members)
  }

  private var mechanism: String {
    if mode == .off { return "off" }
    if file != nil { return "file" }
    return report.state == .configured ? "resolved" : "none"
  }

  private var stateWord: String {
    switch (mode, fileProblem) {
    case (.off, _): return "off"
    case (.file, .some): return "failed"
    case (.file, .none): return hasBegun ? "configured" : "starting"
    default: break
    }
    switch report.state {
    case .starting: return "starting"
    case .noBus: return "no-bus"
    case .absent: return "absent"
    case .elsewhere: return "elsewhere"
    case .configured: return "configured"
    case .failed: return "failed"
    }
  }
}
