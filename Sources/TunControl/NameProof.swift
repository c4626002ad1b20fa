// Asks for a name the way programs do, getaddrinfo(3), and compares what comes back: `up` shows that names work, or why
// not. Used by HostNames.

import Glibc
import Wire

struct NameProof: Sendable, Equatable {
  var name: String
  /// nil: the name led to the right address.
  var failure: String?
  var milliseconds: Double

  /// Takes at most `limit`, whatever the system's resolver does; then its thread is left behind, until it is done.
  static func run(_ name: String, expects address: IPv6Address, within limit: Duration) async -> NameProof {
    let start = Clock.now()
    let (answers, answer) = AsyncStream<String?>.makeStream(bufferingPolicy: .bufferingOldest(1))
    do {
      try DedicatedThread.start("pilot-proof") {
        answer.yield(ask(name, expects: address))
        answer.finish()
      }
    } catch {
      answer.yield(error.message)
      answer.finish()
    }
    let timer = Task {
      guard (try? await Task.sleep(for: limit)) != nil else { return }
      answer.yield("no answer within \(limit.components.seconds) s")
      answer.finish()
    }
    defer { timer.cancel() }
    var failure: String? = "not asked"
    for await outcome in answers {
      failure = outcome
      break
    }
    return NameProof(name: name, failure: failure, milliseconds: Double(Clock.now() - start) / 1e6)
  }

  /// What is wrong with the answer, nil when nothing is. Blocks.
  private static func ask(_ name: String, expects address: IPv6Address) -> String? {
    var hints = addrinfo()
    hints.ai_family = AF_INET6
    hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    var list: UnsafeMutablePointer<addrinfo>?
    let status = getaddrinfo(name, nil, &hints, &list)
    guard status == 0 else { return gai_strerror(status).map { String(cString: $0) } ?? "error \(status)" }
    defer { freeaddrinfo(list) }
    var found: [IPv6Address] = []
    var next = list
    while let entry = next {
      // SAFETY: getaddrinfo fills ai_addr with the structure that its family names.
      if let raw = UnsafeRawPointer(entry.pointee.ai_addr), let address = IPv6Address(socketAddress: raw) {
        found.append(address)
      }
      next = entry.pointee.ai_next
    }
    guard !found.contains(address) else { return nil }
    let others = found.map(\.description).joined(separator: ", ")
    return "it leads to \(others.isEmpty ? "no address" : others) and not to \(address)"
  }
}
