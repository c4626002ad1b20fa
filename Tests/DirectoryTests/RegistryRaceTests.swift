// The registry's own port against the detour: who wins, who is not waited for, and what is said when neither works.

import NIOCore
import NIOPosix
import Synchronization
import Testing
import Wire

@testable import Directory

@Suite("Two ways to a registry", .timeLimit(.minutes(1)))
struct RegistryRaceTests {
  private static let eventLoop = MultiThreadedEventLoopGroup.singleton.next()

  /// Something open that can be closed.
  private static func channel() async throws -> any Channel {
    try await DatagramBootstrap(group: eventLoop).bind(host: "127.0.0.1", port: 0).get()
  }

  private struct Refused: ExplainedError, Equatable {
    var code = "certificate_untrusted"
    var message = "nobody signed it"
    var hint: String? = "tls-ca-file = FILE"
  }

  /// A dial that does not hear of its cancellation, as one in a resolver or a command does not.
  private final class Deaf: Sendable {
    private let waiting = Mutex<CheckedContinuation<Void, Never>?>(nil)
    private let isLetGo = Atomic<Bool>(false)
    let channel: any Channel
    init(_ channel: any Channel) { self.channel = channel }

    func dial() async throws -> any Channel {
      await withCheckedContinuation { continuation in
        waiting.withLock { $0 = continuation }
        if isLetGo.load(ordering: .sequentiallyConsistent) { letGo() }
      }
      return channel
    }

    func letGo() {
      isLetGo.store(true, ordering: .sequentiallyConsistent)
      waiting.withLock { $0.take() }?.resume()
    }
  }

  @Test("the winner is there at once, and the loser's connection is closed when it comes")
  func loser() async throws {
    let deaf = Deaf(try await Self.channel())
    let good = try await Self.channel()
    let winner = try await RegistryRace.run(
      headStart: .zero, plain: { try await deaf.dial() }, detour: { good }, on: Self.eventLoop)
    #expect(winner.isDetour && winner.channel === good && deaf.channel.isActive)
    deaf.letGo()
    try await deaf.channel.closeFuture.get()
    #expect(good.isActive)
    try await good.close()
  }

  @Test("who waits is not held up when he does not want to wait any more")
  func cancelled() async throws {
    let (plain, detour) = (Deaf(try await Self.channel()), Deaf(try await Self.channel()))
    let race = Task {
      try await RegistryRace.run(
        headStart: .zero, plain: { try await plain.dial() }, detour: { try await detour.dial() }, on: Self.eventLoop)
    }
    race.cancel()
    await #expect(throws: CancellationError.self) { try await race.value }
    for deaf in [plain, detour] {
      deaf.letGo()
      // One that was cancelled before it began has nothing to close.
      _ = try? await deaf.channel.close()
    }
  }

  @Test("a registry's port that connects and says nothing, twice, is left out for a while")
  func mute() throws {
    var timing = DetourTiming()
    let detour = RegistryDetour(isOnly: false) { _ in throw CancellationError() }
    let now = ContinuousClock.now
    timing.connected(byDetour: false)
    timing.plainWasMute(now: now)
    #expect(!timing.isPlainMute(now: now) && timing.headStart(detour, now: now) == .seconds(1), "once is nothing")
    timing.connected(byDetour: false)
    timing.plainSpoke()
    timing.plainWasMute(now: now)
    #expect(!timing.isPlainMute(now: now), "not in a row")
    timing.plainWasMute(now: now)
    #expect(timing.isPlainMute(now: now) && timing.headStart(detour, now: now) == .zero)
    timing.connected(byDetour: true)
    #expect(timing.isPlainMute(now: now + .seconds(500)) && !timing.isPlainMute(now: now + .seconds(601)))
    timing.failed(now: now)
    #expect(!timing.isPlainMute(now: now), "the detour leads nowhere either")
  }

  @Test("the detour waits for its turn, or for the failure of the plain way")
  func headStart() async throws {
    let good = try await Self.channel()
    let first = try await RegistryRace.run(
      headStart: .seconds(30), plain: { good }, detour: { throw Refused() }, on: Self.eventLoop)
    #expect(!first.isDetour)
    let second = try await RegistryRace.run(
      headStart: .seconds(30), plain: { throw Refused() }, detour: { good }, on: Self.eventLoop)
    #expect(second.isDetour)
    let deaf = Deaf(try await Self.channel())
    let third = try await RegistryRace.run(
      headStart: .milliseconds(50), plain: { try await deaf.dial() }, detour: { good }, on: Self.eventLoop)
    #expect(third.isDetour)
    deaf.letGo()
    try await deaf.channel.closeFuture.get()
    try await good.close()
  }

  @Test("an error tells of the ways that were tried: by TLS alone its own code and hint, and no word of port 9000")
  func errors() async throws {
    let client = RegistryClient(
      host: "home.example", port: 9000, detour: RegistryDetour(isOnly: true) { _ in throw Refused() })
    let error = await #expect(throws: DirectoryError.self) { try await client.connect() }
    #expect(error?.reason == .registryUnreachable && error?.code == "certificate_untrusted")
    #expect(error?.message == "no connection to the registry by TLS: nobody signed it")
    #expect(error?.hint == "tls-ca-file = FILE; the node keeps trying")
    await client.shutdown()

    let both = RegistryConnection.unreachable(
      RaceFailure(plain: ChannelError.connectTimeout(.seconds(1)), detour: Refused()), host: "home.example", port: 9000)
    #expect(both.code == "registry_unreachable")
    #expect(both.message.contains("home.example port 9000: no answer in time; by TLS: nobody signed it"))
    #expect(both.hint?.contains("TCP 9000") == true && both.hint?.contains("tls-ca-file") == true)
    let plain = RegistryConnection.unreachable(
      RaceFailure(plain: ChannelError.connectTimeout(.seconds(1))), host: "home.example", port: 9000)
    #expect(plain.code == "registry_unreachable" && plain.hint?.contains("TLS") == false)
  }
}
