// What the tests of this room share: things to wait for, temporary state directories, nodes.

import Glibc
import Logging
import Synchronization
import Testing

@testable import Directory

/// Elements as they come, and a way to wait for one of them.
final class Watch<Element: Sendable>: Sendable {
  private struct Waiting {
    var number: Int
    var matches: @Sendable (Element) -> Bool
    var resume: CheckedContinuation<Element?, Never>
  }

  private struct State {
    var elements: [Element] = []
    var waiting: [Waiting] = []
    var numbers = 0
  }

  private let state = Mutex(State())

  func add(_ element: Element) {
    // A predicate may count: it sees every element once.
    let ready = state.withLock { state in
      state.elements.append(element)
      var ready: [Waiting] = []
      var waiting: [Waiting] = []
      for item in state.waiting {
        if item.matches(element) { ready.append(item) } else { waiting.append(item) }
      }
      state.waiting = waiting
      return ready
    }
    for item in ready { item.resume.resume(returning: element) }
  }

  var all: [Element] { state.withLock { $0.elements } }

  /// The first element from number `start` on that matches, now or later; nil when the test's time is over.
  @discardableResult
  func first(after start: Int = 0, where matches: @escaping @Sendable (Element) -> Bool) async -> Element? {
    let number = state.withLock { state in
      state.numbers += 1
      return state.numbers
    }
    return await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let (isDone, found) = state.withLock { state -> (Bool, Element?) in
          if let found = state.elements.dropFirst(start).first(where: matches) { return (true, found) }
          if Task.isCancelled { return (true, nil) }
          state.waiting.append(Waiting(number: number, matches: matches, resume: continuation))
          return (false, nil)
        }
        if isDone { continuation.resume(returning: found) }
      }
    } onCancel: {
      let waiting = state.withLock { state in
        defer { state.waiting.removeAll { $0.number == number } }
        return state.waiting.filter { $0.number == number }
      }
      for item in waiting { item.resume.resume(returning: nil) }
    }
  }
}

/// A directory below /tmp that is removed at the end.
final class TemporaryDirectory: Sendable {
  let path: String

  init() {
    var template = Array("/tmp/directory-tests-XXXXXX".utf8CString)
    path = template.withUnsafeMutableBufferPointer { mkdtemp($0.baseAddress!).map { String(cString: $0) } ?? "" }
  }

  deinit {
    remove(path)
  }

  private func remove(_ path: String) {
    if let directory = opendir(path) {
      while let entry = readdir(directory) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) {
          $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        if name != ".", name != ".." { remove(path + "/" + name) }
      }
      closedir(directory)
      rmdir(path)
    } else {
      unlink(path)
    }
  }
}

/// For what no event tells of: asks again until the condition holds, and fails by name when it does not within 20 s.
func eventually(
  _ what: String, location: SourceLocation = #_sourceLocation, _ condition: () async throws -> Bool
) async throws {
  let deadline = ContinuousClock.now + .seconds(20)
  while try await !condition() {
    guard ContinuousClock.now < deadline else {
      Issue.record("not within 20 s: \(what)", sourceLocation: location)
      throw NeverHappened(what: what)
    }
    try await Task.sleep(for: .milliseconds(10))
  }
}

struct NeverHappened: Error {
  var what: String
}

extension Directory {
  /// Makes every cached answer older, so that no test waits for one to expire.
  func age(by duration: Duration) {
    for (node, answer) in records {
      records[node] = Cached(
        value: answer.value, fetched: answer.fetched - duration, expires: answer.expires - duration)
    }
    for (name, answer) in names {
      names[name] = Cached(
        value: answer.value, fetched: answer.fetched - duration, expires: answer.expires - duration)
    }
  }
}

let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// A directory service with its own state, running until `stop`.
final class TestNode: Sendable {
  let directory: Directory
  let events = Watch<DirectoryEvent>()
  private let service: Task<Void, Never>
  private let listening: Task<Void, Never>

  init(
    _ temporary: TemporaryDirectory, named folder: String = "node", port: UInt16, host: String = "127.0.0.1",
    change: (inout DirectoryConfiguration) -> Void = { _ in }
  ) throws {
    let store = try NodeStore(directory: temporary.path + "/" + folder, logger: quiet)
    var configuration = DirectoryConfiguration(registryHost: host, registryPort: port)
    configuration.timing.pollGap = .milliseconds(20)
    configuration.timing.busyPoll = .milliseconds(50)
    change(&configuration)
    let directory = Directory(
      configuration: configuration, store: store, announcement: Announcement(listenAddress: "127.0.0.1:4000"),
      logger: quiet)
    self.directory = directory
    service = Task { await directory.run() }
    let events = events
    listening = Task { for await event in directory.events { events.add(event) } }
  }

  /// The id of the next registration after the first `start` events.
  @discardableResult
  func registered(after start: Int = 0) async -> UInt32 {
    guard case .registered(let node, _, _) = await events.first(after: start, where: \.isRegistered) else { return 0 }
    return node
  }

  func connected(after start: Int = 0) async {
    await events.first(after: start) { if case .stateChanged(.connected) = $0 { true } else { false } }
  }

  /// Returns when the registry was found unreachable for the `number`th time: once when the connection is lost, then
  /// with each dial that fails.
  func unreachable(after start: Int = 0, number: Int = 1) async {
    let seen = Mutex(0)
    await events.first(after: start) { event in
      guard case .stateChanged(.unreachable) = event else { return false }
      return seen.withLock { seen in
        seen += 1
        return seen == number
      }
    }
  }

  /// Returns when the service has ended and the state is on disk.
  func stop() async {
    service.cancel()
    await service.value
    await listening.value
    directory.store.close()
  }
}

extension DirectoryEvent {
  var isRegistered: Bool { if case .registered = self { true } else { false } }
}
