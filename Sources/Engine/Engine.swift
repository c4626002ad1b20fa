// The data plane as control sees it: start, commands in, events out, counters. One worker thread for now; the node
// actor of TunControl owns it.

package import LinkIO
internal import Glibc
internal import Session
internal import Shim
internal import Synchronization
package import Wire

/// Why the data plane could not start.
package struct EngineError: ExplainedError {
  package let code: String
  package let message: String
  package let hint: String?
}

package struct EngineConfiguration: Sendable {
  /// MTU of the interface: larger inner packets are answered with Packet Too Big.
  package var mtu: Int
  /// Peers at most. Rows cost memory only once used.
  package var peerCapacity: Int

  package init(mtu: Int = 1400, peerCapacity: Int = 1 << 17) {
    self.mtu = mtu
    self.peerCapacity = peerCapacity
  }
}

package final class Engine: Sendable {
  /// Peers that may have a socket of their own (`EngineCommand.adoptSocket`).
  package static let extraSockets = ExtraSockets.limit
  private let tun: TunDevice
  private let socket: UDPSocket
  private let ports: WorkerPorts
  private let configuration: EngineConfiguration
  private let commands = Mailbox<EngineCommand>(limit: 16_384)
  private let events = Mailbox<EngineEvent>(limit: 8_192)
  private let streamEvents = Mailbox<StreamEvent>(limit: 8_192)
  private let counterBlock = CounterBlock()
  private let rows: Rows
  private let seed: UInt64
  private let thread = Mutex<pthread_t?>(nil)
  private let offloadStates: Mutex<[OffloadState]>

  /// SAFETY: rows are written by the worker; other threads read statistics words only, relaxed.
  private struct Rows: @unchecked Sendable {
    let rows: UnsafeMutablePointer<PeerRow>
    let sessions: UnsafeMutablePointer<SessionRow>
    let capacity: Int
  }

  package init(
    tun: consuming TunDevice, socket: consuming UDPSocket, configuration: EngineConfiguration
  ) throws(EngineError) {
    guard let store = PeerStore(capacity: configuration.peerCapacity) else {
      throw EngineError(
        code: "out_of_memory", message: "could not map the tables of \(configuration.peerCapacity) peers",
        hint: "lower the number of peers or raise the address space limit (ulimit -v)")
    }
    rows = Rows(rows: store.rows, sessions: store.sessions, capacity: store.capacity)
    let offloads = tun.offloads + socket.offloads
    func isOn(_ name: String) -> Bool { offloads.contains { $0.name == name && $0.isOn } }
    ports = WorkerPorts(
      tun: tun.fd, udp: socket.fd, family: socket.family, hasVirtioHeader: tun.hasVnetHeader,
      mayCoalesceTCP: tun.hasVnetHeader && isOn("tun-tso"), mayCoalesceUDP: tun.hasVnetHeader && isOn("tun-uso"),
      hasGSO: isOn("udp-gso"))
    offloadStates = Mutex(offloads)
    var seed: UInt64 = 0
    _ = withUnsafeMutableBytes(of: &seed) { pt_random($0.baseAddress!.assumingMemoryBound(to: UInt8.self), 8) }
    self.seed = seed
    self.configuration = configuration
    self.tun = tun
    self.socket = socket
  }

  deinit {
    counterBlock.free()
    pt_unmap(rows.rows, rows.capacity * MemoryLayout<PeerRow>.stride)
    pt_unmap(rows.sessions, rows.capacity * 2 * MemoryLayout<SessionRow>.stride)
  }

  // MARK: - Life

  /// Starts the thread. Commands may be submitted before; they are obeyed first.
  package func start() throws(EngineError) {
    let box = Unmanaged.passRetained(self)
    var handle = pthread_t()
    let result = pthread_create(
      &handle, nil,
      { argument in
        pt_thread_name("pilot-worker")
        Unmanaged<Engine>.fromOpaque(argument!).takeRetainedValue().runWorker()
        return nil
      }, box.toOpaque())
    guard result == 0 else {
      box.release()
      throw EngineError(
        code: "thread_unavailable", message: "pthread_create failed with errno \(result)",
        hint: "raise the limit of threads (TasksMax=, ulimit -u)")
    }
    thread.withLock { $0 = handle }
  }

  private func runWorker() {
    guard
      var worker = Worker(
        ports: ports, mtu: configuration.mtu,
        peers: PeerStore(rows: rows.rows, sessions: rows.sessions, capacity: rows.capacity), seed: seed,
        counters: counterBlock, commands: commands, events: events, streamEvents: streamEvents)
    else {
      _ = events.post(.stopped("could not map the worker's buffers"), always: true)
      return
    }
    let reason = worker.run()
    _ = events.post(.stopped(reason), always: true)
  }

  /// Waits for the thread after `.stop`.
  package func join() {
    let handle = thread.withLock { thread in
      let handle = thread
      thread = nil
      return handle
    }
    if let handle { pthread_join(handle, nil) }
  }

  // MARK: - Bridge

  /// False when the worker is 16,384 commands behind: the caller tries again later. What the worker has to know of a
  /// peer is taken all the same: it is told once.
  @discardableResult
  package func submit(_ command: EngineCommand) -> Bool { commands.post(command, always: command.isToldOnce) }

  /// The worker has much to do before what is submitted now.
  package var isBehind: Bool { commands.isBehind }

  /// The same for several, in order. Inner frames are lost when the worker is half as far behind; how many were.
  package func submit(_ many: [EngineCommand]) -> Int {
    commands.post(all: many) { if case .sendInner = $0 { true } else { false } }
  }

  /// Readable while events for the gateway wait.
  package var streamEventsDescriptor: Int32 { streamEvents.descriptor }

  package func takeStreamEvents() -> [StreamEvent] { streamEvents.takeAll() }

  /// Blocks the calling thread until events wait, `wake()` is called or the time is over. -1: no limit.
  package func waitForEvents(timeoutMilliseconds: Int32) -> [EngineEvent] {
    var descriptor = events.descriptor
    _ = pt_poll(&descriptor, 1, timeoutMilliseconds)
    let all = events.takeAll()
    for case .offloadDisabled(let name, let reason) in all {
      offloadStates.withLock { states in
        states.removeAll { $0.name == name }
        states.append(OffloadState(name: name, isOn: false, reason: reason))
      }
    }
    return all
  }

  package func wake() { events.wake() }

  /// Makes the worker go once round its loop, which `wakeUps` counts.
  package func nudge() { commands.wake() }

  /// How often the worker woke: as long as this goes on, it works. Read without a lock.
  package var wakeUps: UInt64 { counterBlock.value(.wakeUps) }

  // MARK: - State

  package var interfaceName: String { tun.name }
  package var interfaceIndex: UInt32 { tun.index }
  /// What keeps interface and port alive, for whoever shall hold them over a restart. Open as long as the engine.
  package var descriptors: (tun: Int32, socket: Int32) { (tun.fd, socket.fd) }
  /// Where the UDP socket is bound.
  package var localEndpoint: Endpoint { socket.local }
  package var offloads: [OffloadState] { offloadStates.withLock { $0 } }

  package func drops() -> [(reason: String, count: UInt64)] {
    DropReason.allCases.map { ($0.name, counterBlock.value($0)) }
  }

  package func counters() -> [(name: String, value: UInt64)] {
    WorkerCounter.allCases.map { ($0.name, counterBlock.value($0)) }
  }

  /// Messages that wait in each of the mailboxes.
  package var queueLengths: [(name: String, count: Int)] {
    [("commands", commands.count), ("events", events.count), ("streams", streamEvents.count)]
  }

  package func statistics(of index: PeerIndex) -> PeerStatistics {
    guard Int(index) < rows.capacity else { return PeerStatistics() }
    let row = rows.rows + Int(index)
    func word(_ path: KeyPath<PeerRow, UInt64>) -> UInt64 {
      // SAFETY: an aligned 64-bit word of a row that is never unmapped while the engine lives.
      let offset = MemoryLayout<PeerRow>.offset(of: path)!
      return pt_load_relaxed((UnsafeRawPointer(row) + offset).assumingMemoryBound(to: UInt64.self))
    }
    var statistics = PeerStatistics()
    statistics.sentBytes = word(\.sentBytes)
    statistics.sentPackets = word(\.sentPackets)
    statistics.receivedBytes = word(\.receivedBytes)
    statistics.receivedPackets = word(\.receivedPackets)
    statistics.lastReceive = word(\.lastReceive)
    statistics.lastSend = word(\.lastSend)
    statistics.lastOnPath = word(\.lastOnPath)
    statistics.innerMTU = word(\.innerMTU)
    return statistics
  }
}
