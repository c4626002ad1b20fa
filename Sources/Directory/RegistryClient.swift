// The client side of the registry protocol: one connection, dialled when needed, requests pipelined. Used by
// Directory; programs that need one request and no service may use it alone. Requests: RegistryRequests*.swift.

package import JSON
package import NIOCore
import NIOPosix
package import Session
import Wire

/// A registry at one address. Calls from many tasks share one connection.
package actor RegistryClient {
  package nonisolated let host: String
  package nonisolated let port: UInt16
  /// One element whenever an established connection ended, with the reason. One consumer.
  package nonisolated let closes: AsyncStream<DirectoryError>

  private let timing: DirectoryTiming
  private let group: any EventLoopGroup
  private let detour: RegistryDetour?
  private var detourTiming = DetourTiming()
  private let closed: AsyncStream<DirectoryError>.Continuation
  private var connection: RegistryConnection?
  private var dial: (number: UInt64, task: Task<Result<RegistryConnection, DirectoryError>, Never>)?
  private var dials: UInt64 = 0
  /// Number of the dial that made `connection`, and dials whose connection ended before it was taken over.
  private var currentNumber: UInt64 = 0
  private var endedEarly: Set<UInt64> = []
  /// The registry said something on the present connection.
  private var hasSpoken = false
  private var isShutDown = false
  /// Whose key proves itself to a registry that gives nonces.
  private let identity: (@Sendable () -> Identity)?
  /// The registry gave one with its last registration: it is one of ours, and knows what official ones do not.
  private(set) var givesNonces = false

  package init(
    host: String, port: UInt16, identity: (@Sendable () -> Identity)? = nil,
    timing: DirectoryTiming = DirectoryTiming(), detour: RegistryDetour? = nil,
    group: any EventLoopGroup = .singletonMultiThreadedEventLoopGroup
  ) {
    self.host = host.hasPrefix("[") && host.hasSuffix("]") ? String(host.dropFirst().dropLast()) : host
    self.port = port
    self.identity = identity
    self.timing = timing
    self.group = group
    self.detour = detour
    (closes, closed) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(4))
  }

  /// Dials unless connected.
  package func connect() async throws(DirectoryError) {
    _ = try await current()
  }

  /// The present connection goes by the detour.
  package var isByDetour: Bool { connection != nil && detourTiming.isPreferred }

  /// Number of the present connection, counted up from 1; nil without one.
  package var connectionNumber: UInt64? { connection == nil ? nil : currentNumber }

  /// Drops the connection; unanswered calls fail. The next call dials again.
  package func disconnect() async {
    let old = connection
    connection = nil
    await old?.close()
  }

  /// Drops the connection for good.
  package func shutdown() async {
    isShutDown = true
    dial?.task.cancel()
    await disconnect()
    closed.finish()
  }

  /// One request, one reply. A connection that the registry closed silently (wire/registry §1.3) is replaced and
  /// the request repeated once: every operation of the protocol is safe to repeat.
  package func call(
    _ type: String, _ members: [String: JSONValue] = [:]
  ) async throws(DirectoryError) -> JSONValue {
    var request = members
    request["type"] = .text(type)
    let isReused = connection != nil
    let started = ContinuousClock.now
    let link = try await current()
    do {
      let reply = try await link.call(.object(request), operation: type)
      if !hasSpoken { noteWord() }
      return reply
    } catch {
      if error.reason != .registryUnreachable, !hasSpoken { noteWord() }
      guard error.reason == .registryUnreachable else {
        if error.reason == .badReply { await drop(link) }
        throw error
      }
      await drop(link)
      guard isReused, ContinuousClock.now - started < .seconds(2) else { throw error }
    }
    return try await current().call(.object(request), operation: type)
  }

  private func noteWord() {
    hasSpoken = true
    if !detourTiming.isPreferred { detourTiming.plainSpoke() }
  }

  func note(registration reply: JSONValue) { givesNonces = reply["nonce"]?.text != nil }

  private func drop(_ link: RegistryConnection) async {
    if connection === link { connection = nil }
    await link.close()
  }

  private func current() async throws(DirectoryError) -> RegistryConnection {
    guard !isShutDown else { throw DirectoryError(.registryUnreachable, "the directory service has stopped") }
    if let connection { return connection }
    if let dial { return try await dial.task.value.get() }
    dials += 1
    let number = dials
    let task = Task { await open(number: number) }
    dial = (number, task)
    return try await task.value.get()
  }

  private func open(number: UInt64) async -> Result<RegistryConnection, DirectoryError> {
    let result: Result<RegistryConnection, DirectoryError>
    let headStart = detourTiming.headStart(detour, now: .now)
    do throws(DirectoryError) {
      let (link, isDetour) = try await RegistryConnection.open(
        host: host, port: port, timing: timing, group: group, detour: detour, headStart: headStart,
        isPlainMute: detourTiming.isPlainMute(now: .now), identity: identity
      ) {
        [weak self] error in
        guard let self else { return }
        Task { await self.ended(number: number, error) }
      }
      if isShutDown {
        await link.close()
        throw DirectoryError(.registryUnreachable, "the directory service has stopped")
      }
      detourTiming.connected(byDetour: isDetour)
      hasSpoken = false
      if endedEarly.remove(number) == nil { connection = link }
      currentNumber = number
      result = .success(link)
    } catch {
      if headStart != nil { detourTiming.failed(now: .now) }
      result = .failure(error)
    }
    if dial?.number == number { dial = nil }
    return result
  }

  private func ended(number: UInt64, _ error: DirectoryError) {
    if dial?.number == number {
      endedEarly.insert(number)
    } else if currentNumber == number {
      connection = nil
      if detour != nil, !hasSpoken, !detourTiming.isPreferred { detourTiming.plainWasMute(now: .now) }
    }
    closed.yield(error)
  }
}
