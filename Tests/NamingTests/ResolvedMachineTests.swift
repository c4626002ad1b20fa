// When systemd-resolved is told what, in virtual time.
import Naming
import Testing

@Suite struct ResolvedMachineTests {
  private static let second: UInt64 = 1_000_000_000

  /// A machine that has set the link, at time 0.
  private func configured() -> ResolvedMachine {
    var machine = ResolvedMachine()
    #expect(machine.begin() == .open)
    let steps = [ResolvedMachine.Event.opened, .found(.here), .applied].map { machine.take($0, now: 0) }
    #expect(steps == [.find, .apply, .wait(until: ResolvedMachine.recheck)])
    #expect(machine.state == .configured)
    return machine
  }

  @Test("a resolved that restarts is told again at once, and one that is away is waited for without asking")
  func restart() {
    var machine = configured()
    let gone = [machine.take(.ownerChanged, now: 1), machine.take(.found(.nobody), now: 2)]
    #expect(gone == [.find, .wait(until: .max)])
    #expect(machine.state == .absent)
    let back = [machine.take(.ownerChanged, now: 3), machine.take(.found(.here), now: 4)]
    #expect(back == [.find, .apply])
  }

  @Test("a link that resolved has not heard of yet is tried again soon, and is no failure")
  func lateLink() {
    var machine = ResolvedMachine()
    let problem = ResolvedMachine.Problem(name: "org.freedesktop.resolve1.NoSuchLink", text: "no link")
    _ = machine.take(.opened, now: 0)
    _ = machine.take(.found(.here), now: 0)
    let wait = machine.take(.callFailed(problem), now: 0)
    #expect(wait == .wait(until: ResolvedMachine.firstRetry))
    #expect(machine.state == .starting)
    let again = machine.take(.due, now: ResolvedMachine.firstRetry)
    #expect(again == .apply)
    // It never comes: that is one.
    for step in 1...5 as ClosedRange<UInt64> { _ = machine.take(.callFailed(problem), now: step * Self.second) }
    #expect(machine.state == .failed(problem))
  }

  @Test("settings that another program takes away are set again, after the burst of changes")
  func reverted() {
    var machine = configured()
    let now = 10 * Self.second
    let first = machine.take(.settingsChanged, now: now)
    let second = machine.take(.settingsChanged, now: now + 1)
    #expect(first == .wait(until: now + ResolvedMachine.settling) && second == first, "one look for a burst")
    let look = machine.take(.due, now: now + ResolvedMachine.settling)
    let set = machine.take(.compared(isOurs: false), now: now + ResolvedMachine.settling)
    #expect(look == .compare && set == .apply)
    #expect(machine.losses == 1)
  }

  @Test("our own changes lead to one look and to nothing else")
  func ownChanges() {
    var machine = configured()
    _ = machine.take(.settingsChanged, now: 1)
    let look = machine.take(.due, now: 1 + ResolvedMachine.settling)
    let rest = machine.take(.compared(isOurs: true), now: Self.second)
    #expect(look == .compare && rest == .wait(until: Self.second + ResolvedMachine.recheck))
    #expect(machine.losses == 0)
  }

  @Test("a program that keeps taking the settings away is answered ever less, and is reported")
  func contested() {
    var machine = configured()
    var applies = 0
    var now = Self.second
    while now < 60 * Self.second {
      var action = machine.take(.settingsChanged, now: now)
      if case .wait(let until) = action {
        now = min(until, 60 * Self.second)
        action = machine.take(.due, now: now)
      }
      if action == .compare { action = machine.take(.compared(isOurs: false), now: now) }
      if action == .apply {
        applies += 1
        _ = machine.take(.applied, now: now)
      }
    }
    #expect((5...9).contains(applies), "\(applies) times in a minute")
  }

  @Test("without a bus it is tried ever more slowly; a refusal is reported and tried again")
  func failures() {
    var machine = ResolvedMachine()
    var now: UInt64 = 0
    var tries = 0
    while now < 600 * Self.second {
      guard case .wait(let until) = machine.take(.openFailed("No such file"), now: now) else { break }
      let action = machine.take(.due, now: until)
      #expect(action == .open)
      now = until
      tries += 1
    }
    #expect((10...20).contains(tries), "\(tries) in ten minutes")
    #expect(machine.state == .noBus("No such file"))
    let denied = ResolvedMachine.Problem(name: "org.freedesktop.DBus.Error.AccessDenied", text: "no")
    _ = machine.take(.opened, now: now)
    _ = machine.take(.found(.here), now: now)
    guard case .wait = machine.take(.callFailed(denied), now: now) else {
      Issue.record("no wait")
      return
    }
    #expect(machine.state == .failed(denied))
    let lost = machine.take(.lost, now: now)
    #expect(lost != .open, "a bus that breaks at once is not asked in a loop")
  }

  @Test("the domains are ours alone, and no short name is completed unless asked for")
  func domains() {
    #expect(ResolvedSettings.domains(isSearched: false) == ["~pilot", "~4.5.f.4.c.4.9.4.0.5.d.f.ip6.arpa"])
    #expect(ResolvedSettings.domains(isSearched: true).first == "pilot")
  }
}
