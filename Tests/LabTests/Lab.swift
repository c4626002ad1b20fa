// The laboratory: network namespaces with a router between them, made and removed by the test itself. Names start
// with a prefix of this process, so that what a killed run left behind is found and removed by the next one.

import Foundation
import Glibc
import Synchronization

/// One network namespace: a machine of its own as far as programs can tell.
struct Namespace: Sendable {
  let name: String

  /// What programs inside see as /etc/resolv.conf (ip-netns(8) binds it there).
  var resolverFile: String { "/etc/netns/\(name)/resolv.conf" }

  /// Starts a program inside.
  func start(_ arguments: [String], environment: [String: String] = [:]) throws -> Program {
    try Program(["ip", "netns", "exec", name] + arguments, environment: environment)
  }

  /// Runs a program inside to its end.
  func run(_ arguments: [String], environment: [String: String] = [:], within seconds: Double = 30) throws -> Outcome {
    try start(arguments, environment: environment).wait(within: seconds)
  }

  /// Runs a command line of blank-separated words that must succeed.
  @discardableResult
  func command(_ line: String) throws -> String {
    try run(line.split(separator: " ").map(String.init)).orThrow().output
  }

  /// Runs the closure with the calling thread inside; sockets made there stay there.
  func inside<Result>(_ body: () throws -> Result) throws -> Result {
    let home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)
    let there = open("/run/netns/\(name)", O_RDONLY | O_CLOEXEC)
    defer {
      close(home)
      close(there)
    }
    guard home >= 0, there >= 0, Self.enter(there) else { throw LabError("setns \(name): errno \(errno)") }
    defer { if !Self.enter(home) { fatalError("the thread cannot leave namespace \(name)") } }
    return try body()
  }

  /// setns(2), which Swift's Glibc module does not show.
  private static func enter(_ descriptor: Int32) -> Bool {
    typealias Setns = @convention(c) (Int32, Int32) -> Int32
    guard let symbol = dlsym(nil, "setns") else { return false }
    let newNet: Int32 = 0x4000_0000
    return unsafeBitCast(symbol, to: Setns.self)(descriptor, newNet) == 0
  }
}

/// Namespaces, programs and files of one test. `close` (or leaving `Lab.with`) removes all of it.
final class Lab {
  let directory: String
  let prefix: String
  private var namespaces: [Namespace] = []
  private var programs: [Program] = []

  private static let counter = Atomic<Int>(0)
  private static let family = "ptlab"

  static func with(_ body: (Lab) throws -> Void) throws {
    let lab = try Lab()
    defer { lab.close() }
    try body(lab)
  }

  init() throws {
    guard geteuid() == 0 else {
      throw LabError(
        "the kernel tests make network namespaces: run sudo scripts/test, or scripts/test --unit without them")
    }
    guard access("/dev/net/tun", R_OK | W_OK) == 0 else {
      throw LabError("/dev/net/tun does not exist: load the module (modprobe tun) or give the container the device")
    }
    let number = Self.counter.add(1, ordering: .relaxed).newValue
    if number == 1 { Self.sweep() }
    prefix = "\(Self.family)\(getpid())-\(number)-"
    directory = "/tmp/\(Self.family)\(getpid())-\(number)"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
  }

  /// Makes a namespace whose programs ask the node's own resolver.
  func namespace(_ name: String) throws -> Namespace {
    let namespace = Namespace(name: prefix + name)
    try Self.host("ip", "netns", "add", namespace.name).orThrow()
    try keep(namespace)
    try namespace.command("ip link set lo up")
    return namespace
  }

  /// A namespace with this laboratory's prefix that a program has made.
  func adopt(_ name: String) throws -> Namespace {
    let namespace = Namespace(name: prefix + name)
    try keep(namespace)
    return namespace
  }

  /// It is removed at the end, and its programs ask the node's own resolver.
  private func keep(_ namespace: Namespace) throws {
    namespaces.append(namespace)
    let files = "/etc/netns/\(namespace.name)"
    try FileManager.default.createDirectory(atPath: files, withIntermediateDirectories: true)
    try "nameserver fd50:494c:4f54:ffff::53\noptions timeout:2 attempts:2\n"
      .write(toFile: namespace.resolverFile, atomically: false, encoding: .utf8)
    try "hosts: files dns\n".write(toFile: files + "/nsswitch.conf", atomically: false, encoding: .utf8)
  }

  /// A cable between two namespaces, both ends up.
  func cable(_ a: Namespace, _ aName: String, _ b: Namespace, _ bName: String) throws {
    try Self.host(
      "ip", "link", "add", aName, "netns", a.name, "type", "veth", "peer", "name", bName, "netns", b.name
    ).orThrow()
    try a.command("ip link set \(aName) up")
    try b.command("ip link set \(bName) up")
  }

  /// Starts a program that ends with the laboratory at the latest.
  func start(
    in namespace: Namespace, _ arguments: [String], environment: [String: String] = [:]
  ) throws -> Program {
    let program = try namespace.start(arguments, environment: environment)
    programs.append(program)
    return program
  }

  func close() {
    for program in programs { program.send(SIGTERM) }
    for program in programs { program.end() }
    for namespace in namespaces { Self.remove(namespace.name) }
    try? FileManager.default.removeItem(atPath: directory)
    programs = []
    namespaces = []
  }

  deinit { close() }

  @discardableResult
  static func host(_ arguments: String...) throws -> Outcome { try Program(arguments).wait(within: 20) }

  /// Ends what still runs in the namespace, and removes it.
  private static func remove(_ name: String) {
    if let pids = try? host("ip", "netns", "pids", name) {
      for pid in pids.output.split(separator: "\n") {
        if let pid = pid_t(pid) { kill(pid, SIGKILL) }
      }
    }
    _ = try? host("ip", "netns", "delete", name)
    try? FileManager.default.removeItem(atPath: "/etc/netns/\(name)")
    rmdir("/etc/netns")
  }

  /// Removes what laboratories of processes that no longer exist have left.
  private static func sweep() {
    func owner(_ name: String) -> pid_t? {
      guard name.hasPrefix(family) else { return nil }
      return pid_t(String(name.dropFirst(family.count).prefix { $0.isNumber }))
    }
    for folder in ["/run/netns", "/tmp"] {
      for name in (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? [] {
        guard let pid = owner(name), kill(pid, 0) != 0 else { continue }
        if folder == "/tmp" {
          try? FileManager.default.removeItem(atPath: "/tmp/\(name)")
        } else {
          remove(name)
        }
      }
    }
  }
}

/// A file as it is now. Whoever writes or replaces it, even by the same content, changes the mark.
struct FileMark: Equatable {
  private let content: Data
  private let inode: UInt64
  private let modified: [Int]

  init(_ path: String) throws {
    var status = stat()
    guard stat(path, &status) == 0 else { throw LabError("stat \(path): errno \(errno)") }
    inode = UInt64(status.st_ino)
    modified = [status.st_mtim.tv_sec, status.st_mtim.tv_nsec, status.st_ctim.tv_sec, status.st_ctim.tv_nsec]
    content = try Data(contentsOf: URL(fileURLWithPath: path))
  }
}

/// Asks again until the closure gives a value, at most for the given time.
func eventually<Value>(
  _ what: String, within seconds: Double = 10, _ body: () throws -> Value?
) throws -> Value {
  let deadline = ContinuousClock.now + .seconds(seconds)
  while true {
    if let value = try body() { return value }
    if ContinuousClock.now > deadline { throw LabError("not within \(seconds) s: \(what)") }
    usleep(50_000)
  }
}
