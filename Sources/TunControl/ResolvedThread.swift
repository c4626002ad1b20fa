// The thread that talks to systemd-resolved over the system bus: does what ResolvedMachine says, and may block. Started
// and ended by HostNames.

import Glibc
import Naming
import Shim
import Synchronization
import SystemBus
import Wire

final class ResolvedThread: Sendable {
  /// How resolved is doing, and how often it lost our settings.
  struct Report: Sendable, Equatable {
    var state = ResolvedMachine.State.starting
    var losses: UInt64 = 0
  }

  /// Each change; ends with the thread.
  let reports: AsyncStream<Report>
  private let wake: Int32
  private let isStopping = Atomic(false)

  /// - Parameters:
  ///   - index: of our interface, which has carrier and its addresses.
  ///   - insists: also when it cannot be told whether resolved serves this network namespace.
  /// - Throws: `thread_unavailable`.
  init(index: UInt32, domains: [String], insists: Bool) throws(ControlError) {
    wake = pt_eventfd()
    let (stream, continuation) = AsyncStream<Report>.makeStream(bufferingPolicy: .bufferingNewest(64))
    reports = stream
    try DedicatedThread.start("pilot-resolved") { [self] in
      var link = ResolvedLink(index: index, domains: domains, insists: insists)
      run(&link) { continuation.yield($0) }
      link.takeBack()
      continuation.finish()
    }
  }

  /// The network changed: perhaps the settings went with it.
  func look() { pt_eventfd_signal(wake) }

  /// Has the settings taken back. `reports` ends when they are.
  func stop() {
    isStopping.store(true, ordering: .releasing)
    pt_eventfd_signal(wake)
  }

  private func run(_ link: inout ResolvedLink, _ report: (Report) -> Void) {
    var machine = ResolvedMachine()
    var last = Report()
    var action = machine.begin()
    while true {
      let event: ResolvedMachine.Event
      switch action {
      case .open: event = link.open()
      case .find: event = link.find()
      case .apply: event = link.apply()
      case .compare: event = link.compare()
      case .wait(let time): event = link.wait(until: time, wake: wake)
      }
      if isStopping.load(ordering: .acquiring) { return }
      action = machine.take(event, now: Clock.now())
      let now = Report(state: machine.state, losses: machine.losses)
      if now != last { report(now) }
      last = now
    }
  }
}

/// One connection and one link: outcomes of calls as events of the machine.
private struct ResolvedLink {
  let index: UInt32
  let domains: [String]
  let insists: Bool
  private var bus: OpaquePointer?
  private var isApplied = false

  init(index: UInt32, domains: [String], insists: Bool) {
    self.index = index
    self.domains = domains
    self.insists = insists
  }

  mutating func open() -> ResolvedMachine.Event {
    close()
    var problem = pt_bus_problem()
    bus = pt_bus_open(&problem)
    return bus == nil ? .openFailed(Self.explain(problem).text) : .opened
  }

  func find() -> ResolvedMachine.Event {
    var problem = pt_bus_problem()
    var process: UInt32 = 0
    var user: UInt32 = 0
    switch pt_resolved_find(bus, &process, &user, &problem) {
    case 0: return .found(.nobody)
    case 1: return .found(ResolvedPlace.find(process: process, user: user, insists: insists))
    default: return .callFailed(Self.explain(problem))
    }
  }

  mutating func apply() -> ResolvedMachine.Event {
    var problem = pt_bus_problem()
    // Also when it fails halfway there is something to take back.
    isApplied = true
    let result = OverlayMapping.resolver.bytes.withUnsafeBufferPointer {
      pt_resolved_apply(bus, index, $0.baseAddress, domains.joined(separator: " "), &problem)
    }
    return result == 0 ? .applied : .callFailed(Self.explain(problem))
  }

  func compare() -> ResolvedMachine.Event {
    var problem = pt_bus_problem()
    var link = pt_resolved_link()
    guard pt_resolved_read(bus, index, &link, &problem) == 0 else { return .callFailed(Self.explain(problem)) }
    let server = withUnsafeBytes(of: link.server) { IPv6Address($0.baseAddress.unsafelyUnwrapped, at: 0) }
    let present = Self.text(of: link.domains).split(separator: " ").map(String.init)
    return .compared(
      isOurs: link.server_count == 1 && server == OverlayMapping.resolver && link.is_default_route == 0
        && Set(present) == Set(domains))
  }

  mutating func wait(until time: UInt64, wake: Int32) -> ResolvedMachine.Event {
    let now = Clock.now()
    // Rounded up: a wait that ends before its time is one more turn.
    let milliseconds = time == .max ? -1 : time > now ? Int32(clamping: (time - now) / 1_000_000 + 1) : 0
    let seen = pt_bus_wait(bus, wake, milliseconds)
    if seen & PT_BUS_WOKEN != 0 { pt_eventfd_drain(wake) }
    if seen & PT_BUS_LOST != 0 {
      close()
      return .lost
    }
    if seen & PT_BUS_OWNER != 0 { return .ownerChanged }
    return seen & (PT_BUS_SETTINGS | PT_BUS_WOKEN) != 0 ? .settingsChanged : .due
  }

  /// Takes the settings back, and ends.
  mutating func takeBack() {
    var problem = pt_bus_problem()
    // A resolved that went took them along.
    if isApplied, bus != nil { _ = pt_resolved_revert(bus, index, &problem) }
    close()
  }

  private mutating func close() {
    pt_bus_close(bus)
    bus = nil
  }

  private static func explain(_ problem: pt_bus_problem) -> ResolvedMachine.Problem {
    ResolvedMachine.Problem(name: text(of: problem.name), text: text(of: problem.text))
  }

  /// A C array of characters with a zero in it.
  private static func text<Characters>(of characters: Characters) -> String {
    withUnsafeBytes(of: characters) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
  }
}
