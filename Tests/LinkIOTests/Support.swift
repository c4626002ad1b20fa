// Helpers of these tests: bytes, a shell command, and a thread in a network namespace of its own.

import Dispatch
import Foundation
import Glibc
import Shim
import Testing

@testable import LinkIO

func unhex(_ text: String) -> [UInt8] {
  let digits = text.compactMap(\.hexDigitValue)
  return stride(from: 0, to: digits.count - 1, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}

func hex(_ bytes: some Sequence<UInt8>) -> String {
  bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
}

/// Output (both streams) of a shell command, run in the calling thread's namespaces.
func shell(_ command: String) -> String {
  guard let stream = popen("{ \(command) ; } 2>&1", "r") else { return "popen failed" }
  defer { pclose(stream) }
  var output: [UInt8] = []
  var chunk = [UInt8](repeating: 0, count: 4096)
  while true {
    let count = fread(&chunk, 1, chunk.count, stream)
    if count == 0 { break }
    output += chunk.prefix(count)
  }
  return String(decoding: output, as: UTF8.self)
}

/// What `body` throws, when that is a LinkError.
func linkError(_ body: () throws -> Void) -> LinkError? {
  do {
    try body()
    return nil
  } catch {
    return error as? LinkError
  }
}

struct NamespaceError: Error, CustomStringConvertible {
  var description: String
}

/// Runs `body` on a thread of its own in a fresh network namespace with `lo` up; the namespace dies with the thread.
/// `body` reports by its value: expectations belong to the caller, as the thread is outside of the test's task.
func inNamespace<Value: Sendable>(
  mounts: Bool = false, _ body: @escaping @Sendable () throws -> Value
) throws -> Value {
  guard geteuid() == 0 else {
    throw NamespaceError(
      description: "This test makes a network namespace and a TUN interface: run it as root (sudo scripts/test).")
  }
  let job = NamespaceJob {
    let result = pt_unshare_network(mounts ? 1 : 0)
    guard result == 0 else { throw NamespaceError(description: "unshare(CLONE_NEWNET) failed: \(-result)") }
    let output = shell((mounts ? "mount --make-rprivate / && " : "") + "ip link set lo up")
    guard output.isEmpty else { throw NamespaceError(description: "cannot prepare the namespace: \(output)") }
    return try body()
  }
  job.run()
  return try job.outcome().get()
}

private final class NamespaceJob<Value: Sendable>: @unchecked Sendable {
  private let body: () throws -> Value
  private var result: Result<Value, any Error>?

  init(_ body: @escaping () throws -> Value) { self.body = body }

  func run() {
    let thread = Thread { [self] in
      result = Result { try body() }
      done.signal()
    }
    thread.start()
    done.wait()
  }

  private let done = DispatchSemaphore(value: 0)

  func outcome() throws -> Result<Value, any Error> {
    guard let result else { throw NamespaceError(description: "the namespace thread did not answer") }
    return result
  }
}
