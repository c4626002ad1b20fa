// One data-plane thread: it owns a TUN queue, a UDP socket, the peers' rows and every buffer. Rules of this room:
// the thread blocks only in poll; no await, lock, allocation, reference counting or log for a packet; packets are
// ranges of buffers made at start. Started by Engine; control reaches it by mailboxes (EngineInterface.swift).

internal import LinkIO
internal import Session
internal import Shim
internal import Wire

/// What the thread needs to know of its descriptors; plain values, the owners live in `Engine`.
struct WorkerPorts: Sendable {
  var tun: Int32
  var udp: Int32
  /// 4 or 6: the family of the UDP socket.
  var family: Int32
  /// Each packet on the TUN has a virtio-net header in front.
  var hasVirtioHeader: Bool
  /// TCP superpackets may be written to the TUN.
  var mayCoalesceTCP: Bool
  /// UDP superpackets may be written to the TUN.
  var mayCoalesceUDP: Bool
  var hasGSO: Bool
}

struct Worker: ~Copyable {
  /// Without UDP_GRO a buffer holds one datagram, so this many can be joined; untouched pages cost nothing.
  static let receiveBuffers = 32
  static let receiveBufferSize = 65_536
  /// TUN packets read before the other descriptors get their turn.
  static let tunBurst = 64
  static let udpBurst = 4
  static let second: UInt64 = 1_000_000_000

  var ports: WorkerPorts
  let mtu: Int
  let counters: CounterBlock
  let commands: Mailbox<EngineCommand>
  let events: Mailbox<EngineEvent>
  let streamEvents: Mailbox<StreamEvent>

  var extras = ExtraSockets()
  var table: PeerTable
  var store: PeerStore
  var stage: Stage
  var trains: SendTrains
  var coalescer: Coalescer
  var rejoiner: Rejoiner
  var flows: FlowTable
  var translations: TranslationTable
  /// Datagrams of peers are told to the gateway, too.
  var tapsDatagrams = false

  /// One packet from the TUN with its virtio-net header.
  let tunBuffer: UnsafeMutableRawPointer
  static let tunBufferSize = 65_536 + 64
  let receiveMemory: UnsafeMutableRawPointer
  let receiveSlots: UnsafeMutablePointer<pt_receive>
  /// A second copy of a frame, for the rare one that may have to be tried under several keys; and ICMPv6 answers.
  let scratch: UnsafeMutableRawPointer
  let answer: UnsafeMutableRawPointer

  var node: UInt32 = 0
  var localAddresses: InlineArray<16, IPv6Address>
  var localAddressCount = 0
  /// Where wrapped frames may come from: beacons first, then nodes that relay.
  var relays: InlineArray<16, pt_endpoint>
  var relayCount = 0
  var beaconCount = 0
  /// What a relayed packet, and 1024 relayed bytes, cost of a peer's time in nanoseconds; 0: nothing is relayed here.
  var relayPacketCost: UInt64 = 0
  var relayByteCost: UInt64 = 0
  var now: UInt64 = 0
  var isRunning = true

  /// Nodes that control was asked for lately: `node << 32 | seconds`, direct mapped.
  var wanted: InlineArray<64, UInt64>
  /// Limits on what strangers can make us do.
  var keyExchangeBudget = TokenBucket(rate: 2000, burst: 2000)
  var keyExchangeDue: InlineArray<1024, UInt64>
  var strangerDue: InlineArray<1024, UInt64>
  let seed: UInt64
  var strangerBudget = TokenBucket(rate: 200, burst: 200)
  var beaconBudget = TokenBucket(rate: 200, burst: 200)
  /// Answers to local programs, and those to peers: neither starves the other.
  var icmpBudget = TokenBucket(rate: 200, burst: 200)
  var peerAnswerBudget = TokenBucket(rate: 200, burst: 200)
  /// SYNs of local programs to official agents.
  var openingBudget = TokenBucket(rate: 4000, burst: 4000)

  init?(
    ports: WorkerPorts, mtu: Int, peers: consuming PeerStore, seed: UInt64, counters: CounterBlock,
    commands: Mailbox<EngineCommand>, events: Mailbox<EngineEvent>, streamEvents: Mailbox<StreamEvent>
  ) {
    guard let table = PeerTable(capacity: peers.capacity, seed: seed), let stage = Stage(),
      let trains = SendTrains(), let rejoiner = Rejoiner(), let translations = TranslationTable(seed: seed),
      let memory = pt_map(
        Self.tunBufferSize + (Self.receiveBuffers + 1) * Self.receiveBufferSize + 2048)
    else { return nil }
    self.ports = ports
    self.mtu = mtu
    self.counters = counters
    self.commands = commands
    self.events = events
    self.streamEvents = streamEvents
    self.translations = translations
    self.table = table
    self.store = peers
    self.stage = stage
    self.trains = trains
    coalescer = Coalescer()
    self.rejoiner = rejoiner
    flows = FlowTable(seed: seed)
    // The buffers live as long as the process' data plane; one mapping, never freed before the thread ends.
    tunBuffer = memory
    receiveMemory = memory + Self.tunBufferSize
    scratch = receiveMemory + Self.receiveBuffers * Self.receiveBufferSize
    answer = scratch + Self.receiveBufferSize
    receiveSlots = .allocate(capacity: Self.receiveBuffers)
    receiveSlots.initialize(repeating: pt_receive(), count: Self.receiveBuffers)
    for index in 0..<Self.receiveBuffers {
      receiveSlots[index].data = receiveMemory + index * Self.receiveBufferSize
      receiveSlots[index].capacity = UInt32(Self.receiveBufferSize)
    }
    relays = InlineArray(repeating: pt_endpoint())
    localAddresses = InlineArray(repeating: IPv6Address(high: 0, low: 0))
    wanted = InlineArray(repeating: 0)
    keyExchangeDue = InlineArray(repeating: 0)
    strangerDue = InlineArray(repeating: 0)
    self.seed = seed
  }

  deinit {
    receiveSlots.deallocate()
    pt_unmap(
      tunBuffer, Self.tunBufferSize + (Self.receiveBuffers + 1) * Self.receiveBufferSize + 2048)
  }

  /// Runs until `stop` or until the TUN is gone; returns the reason, nil after `stop`.
  mutating func run() -> String? {
    let first = ExtraSockets.firstDescriptor
    let descriptors = UnsafeMutablePointer<Int32>.allocate(capacity: first + ExtraSockets.limit)
    defer { descriptors.deallocate() }
    descriptors.initialize(repeating: -1, count: first + ExtraSockets.limit)
    descriptors[0] = ports.tun
    descriptors[1] = ports.udp
    descriptors[2] = commands.descriptor
    while isRunning {
      let others = extras.end
      var index = 0
      while index < others {
        descriptors[first &+ index] = extras.descriptor(index &+ 1)
        index &+= 1
      }
      let ready = pt_poll(descriptors, Int32(first &+ others), -1)
      guard ready >= 0 else { return "poll failed with errno \(-ready)" }
      now = pt_monotonic()
      counters.count(.wakeUps)
      if ready & 4 != 0 {
        obeyCommands()
        flushTrains()
      }
      if ready & 2 != 0 { receiveDatagrams(ports.udp) }
      index = 0
      // Those that were there when poll was asked, and still are.
      while index < min(others, extras.end) {
        let fd = extras.descriptor(index &+ 1)
        if ready & (8 << Int32(index)) != 0, fd >= 0 { receiveDatagrams(fd) }
        index &+= 1
      }
      if ready & 1 != 0 {
        let result = readTun()
        flushTrains()
        if result < 0 { return "the TUN device is gone (errno \(-result))" }
      }
    }
    return nil
  }

  // MARK: - What all parts use

  @inline(__always)
  func isLocal(_ address: IPv6Address) -> Bool {
    var index = 0
    while index < localAddressCount {
      if localAddresses[index] == address { return true }
      index &+= 1
    }
    return false
  }

  /// Cold: an event allocates. The functions that call it are kept out of line, so that the loops around them
  /// stay free of reference counting (scripts/check-hot-path looks at the emitted code).
  @inline(never)
  func tell(_ event: EngineEvent) {
    // One `confirmed` for each session, one `socketRefused` for each socket: they come once, so they may not get lost.
    let comesOnce =
      switch event {
      case .confirmed, .socketRefused: true
      default: false
      }
    if !events.post(event, always: comesOnce) { counters.drop(.eventQueueFull) }
  }

  /// Bytes that a path puts before a frame.
  @inline(__always)
  func wrapLength(_ kind: PathKind) -> Int { kind == .relay ? RelayHeader.relaySize : 0 }
}

/// A token bucket in whole tokens; time is the worker's.
struct TokenBucket {
  let rate: UInt64
  let burst: UInt64
  private var tokens: UInt64
  private var last: UInt64 = 0

  init(rate: UInt64, burst: UInt64) {
    self.rate = rate
    self.burst = burst
    tokens = burst
  }

  mutating func take(now: UInt64) -> Bool {
    let elapsed = now &- last
    let earned = elapsed > 1_000_000_000 ? burst : elapsed &* rate / 1_000_000_000
    if earned > 0 {
      tokens = min(burst, tokens + earned)
      last = now
    }
    guard tokens > 0 else { return false }
    tokens -= 1
    return true
  }
}
