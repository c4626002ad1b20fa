// When to tell systemd-resolved what: connect to the bus, look who serves there, set our link's names, look again, set
// them again. Driven by TunControl's ResolvedThread. Pure: each event gives the one thing to do next, whose outcome is
// the next event.

import Wire

/// Keeps our link's settings in systemd-resolved as they should be.
///
/// - resolved may start later than the node, end, or be replaced: the settings follow it (`ownerChanged`).
/// - Others may take the settings away (`resolvectl revert`, a network manager): they are set again, but ever more slowly
///   when that goes on, so that two programs do not keep each other busy.
/// - Nothing is asked of resolved while nothing happens, but for one look every `recheck`: it does not announce changes of
///   domains.
package struct ResolvedMachine: Sendable {
  /// What someone who asks is told.
  package enum State: Equatable, Sendable {
    /// Nothing is known yet.
    case starting
    /// No system bus, for this reason.
    case noBus(String)
    /// There is a bus, and resolved is not on it.
    case absent
    /// resolved serves another network namespace, or that cannot be told.
    case elsewhere(String)
    case configured
    case failed(Problem)
  }

  /// Why a call failed. `name` is the D-Bus name of the error, empty when there was none.
  package struct Problem: Equatable, Sendable {
    package var name: String
    package var text: String
    package init(name: String, text: String) {
      self.name = name
      self.text = text
    }
  }

  package enum Place: Equatable, Sendable {
    case nobody
    case elsewhere(String)
    case here
  }

  package enum Event: Equatable, Sendable {
    case opened
    case openFailed(String)
    case found(Place)
    case applied
    case compared(isOurs: Bool)
    /// `find`, `apply` or `compare` ended this way.
    case callFailed(Problem)
    /// resolved came or went.
    case ownerChanged
    /// resolved says that something changed; or the network did.
    case settingsChanged
    case lost
    /// The time that `wait` named has come.
    case due
  }

  package enum Action: Equatable, Sendable {
    /// Make a new connection to the bus; close the old one.
    case open
    case find
    case apply
    /// Read the link's settings.
    case compare
    /// Until something happens, or until this time (nanoseconds of the clock of `now`).
    case wait(until: UInt64)
  }

  package private(set) var state = State.starting
  /// How often the settings were there and then were not.
  package private(set) var losses: UInt64 = 0

  private enum Plan { case open, find, compare, apply }
  private var plan = Plan.open
  private var planned: UInt64 = .max
  private var retry: UInt64 = 0
  /// Time of the last losses, the newest last.
  private var recentLosses: [UInt64] = []

  private static let second: UInt64 = 1_000_000_000
  package static let firstRetry = second / 4
  package static let lastRetry = 60 * second
  /// Settings change in bursts: ours are seven calls.
  package static let settling = second / 5
  package static let recheck = 60 * second
  /// So many losses within `recheck` are set right at once.
  private static let patience = 5

  package init() {}

  /// What to do first.
  package func begin() -> Action { .open }

  package mutating func take(_ event: Event, now: UInt64) -> Action {
    switch event {
    case .opened: return .find
    case .openFailed(let reason):
      state = .noBus(reason)
      return again(.open, now)
    case .found(.nobody):
      state = .absent
      return idle()
    case .found(.elsewhere(let reason)):
      state = .elsewhere(reason)
      return idle()
    case .found(.here): return .apply
    case .applied:
      state = .configured
      retry = 0
      return wait(.compare, until: now &+ Self.recheck)
    case .compared(true): return wait(.compare, until: now &+ Self.recheck)
    case .compared(false): return lose(now)
    case .callFailed(let problem): return fail(problem, now)
    case .ownerChanged:
      retry = 0
      return .find
    case .settingsChanged:
      guard state == .configured, plan == .compare else { return .wait(until: planned) }
      return wait(.compare, until: min(planned, now &+ Self.settling))
    case .lost:
      state = .noBus("the system bus closed the connection")
      return again(.open, now)
    case .due:
      guard now >= planned else { return .wait(until: planned) }
      planned = .max
      switch plan {
      case .open: return .open
      case .find: return .find
      case .compare: return .compare
      case .apply: return .apply
      }
    }
  }

  private mutating func wait(_ next: Plan, until time: UInt64) -> Action {
    plan = next
    planned = time
    return .wait(until: time)
  }

  /// Only a change of owner, or of the bus, wakes us.
  private mutating func idle() -> Action {
    retry = 0
    return wait(.find, until: .max)
  }

  private mutating func again(_ next: Plan, _ now: UInt64) -> Action {
    retry = min(max(retry * 2, Self.firstRetry), Self.lastRetry)
    return wait(next, until: now &+ retry)
  }

  private mutating func lose(_ now: UInt64) -> Action {
    losses += 1
    recentLosses = recentLosses.filter { now < $0 &+ Self.recheck }
    recentLosses.append(now)
    guard recentLosses.count > Self.patience else { return .apply }
    recentLosses.removeFirst()
    state = .failed(
      Problem(name: "", text: "another program keeps changing the settings of our interface in systemd-resolved"))
    return wait(.apply, until: now &+ Self.recheck / 4)
  }

  private mutating func fail(_ problem: Problem, _ now: UInt64) -> Action {
    switch problem.name {
    case "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner":
      // It went between two calls; its return will be told.
      state = .absent
      return idle()
    case "org.freedesktop.resolve1.NoSuchLink" where retry < Self.second:
      // resolved hears of links from the kernel, perhaps a moment after us.
      return again(.apply, now)
    default:
      state = .failed(problem)
      return again(.find, now)
    }
  }
}

/// Names of the stub itself.
package enum NamingZone {
  /// Leads to the address that it answers on.
  package static let serverName = String(Zone.server.description.dropLast())
}

/// Settings of our link, as resolved has them or should have them.
package enum ResolvedSettings {
  /// Domains for which resolved asks our stub: `~` marks those that names are not completed with.
  ///
  /// - Parameter isSearched: short names are completed with `.pilot`, too.
  package static func domains(isSearched: Bool) -> [String] {
    let backward = Zone.backward.description.dropLast()
    return [isSearched ? "pilot" : "~pilot", "~\(backward)"]
  }
}
