// The socket that stands for the beacon where UDP is blocked: what it holds, and that it gives it back.

import Glibc
import NIOCore
import Testing
import Wire

@testable import TunControl

@Suite("Relay detour", .timeLimit(.minutes(1)))
struct RelayDetourTests {
  /// Threads of event loops in this process.
  private static func threads() -> Int {
    guard let directory = opendir("/proc/self/task") else { return 0 }
    defer { closedir(directory) }
    var count = 0
    while let entry = readdir(directory) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
        pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      let text = (try? SmallFile.read("/proc/self/task/\(name)/comm")) ?? []
      if String(decoding: text, as: UTF8.self).hasPrefix("NIO-ELT") { count += 1 }
    }
    return count
  }

  /// Others may come and go meanwhile: ten of ours that stay are seen all the same.
  private static func returns(to before: Int) async throws -> Bool {
    for _ in 0..<200 {
      if threads() < before + 5 { return true }
      try await Task.sleep(for: .milliseconds(10))
    }
    return false
  }

  @Test("its thread ends with it")
  func closes() async throws {
    let worker = try #require(Endpoint("127.0.0.1:9"))
    let before = Self.threads()
    var detours: [RelayDetour] = []
    for _ in 0..<10 { detours.append(try await RelayDetour.open(worker: worker)) }
    #expect(Self.threads() >= before + 5)
    #expect(Set(detours.map(\.endpoint)).count == 10)
    for detour in detours { await detour.close() }
    #expect(try await Self.returns(to: before))
  }

  @Test("and when it cannot be opened")
  func fails() async throws {
    // Without SO_BROADCAST the kernel connects nothing to that.
    let nowhere = try #require(Endpoint("255.255.255.255:9"))
    let before = Self.threads()
    for _ in 0..<10 { await #expect(throws: (any Error).self) { try await RelayDetour.open(worker: nowhere) } }
    #expect(try await Self.returns(to: before))
  }
}
