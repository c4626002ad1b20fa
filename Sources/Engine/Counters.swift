// The worker's counters: one word each, one writer, read by control with relaxed loads. docs/drops.md lists them.

internal import Shim

/// Why a packet or frame went no further. Each reason has its own counter; the name is what `status` and metrics show.
package enum DropReason: Int, CaseIterable, Sendable {
  // From the TUN.
  case tunMalformed
  case tunNotIPv6
  case tunMulticast
  case sourceNotOurs
  case destinationOutsideOverlay
  case destinationMalformed
  case destinationUnknown
  case destinationProhibited
  case destinationUnreachable
  case peerWithoutRawIPv6
  case flowUnknown
  case openingOverLimit
  case packetTooBig
  case stageFull
  case stageTooLarge
  case stageExpired
  // On the way out.
  case sendBufferFull
  case sendError
  case pathTooSmall
  case nonceExhausted
  // From the underlay.
  case datagramTruncated
  case frameUnknown
  case frameShort
  case framePlaintext
  case beaconMessageFromStranger
  case relayNested
  case relayNotAllowed
  case relaySourceElsewhere
  case relayWithoutPath
  case relayOverLimit
  case keyExchangeOverLimit
  case eventQueueFull
  case senderUnknown
  case sessionMissing
  case replayed
  case authenticationFailed
  case prefixRetired
  // Inside a sealed frame.
  case innerMalformed
  case innerReserved
  case innerOverLimit
  case partAlone
  case spoofedSource
  case wrongDestination
  case notTrusted
  case tunWriteFailed
  case icmpOverLimit

  /// Kebab case, stable.
  package var name: String {
    switch self {
    case .tunMalformed: "tun-malformed"
    case .tunNotIPv6: "tun-not-ipv6"
    case .tunMulticast: "tun-multicast"
    case .sourceNotOurs: "source-not-ours"
    case .destinationOutsideOverlay: "destination-outside-overlay"
    case .destinationMalformed: "destination-malformed"
    case .destinationUnknown: "destination-unknown"
    case .destinationProhibited: "destination-prohibited"
    case .destinationUnreachable: "destination-unreachable"
    case .peerWithoutRawIPv6: "peer-without-raw-ipv6"
    case .flowUnknown: "flow-unknown"
    case .openingOverLimit: "opening-over-limit"
    case .packetTooBig: "packet-too-big"
    case .stageFull: "stage-full"
    case .stageTooLarge: "stage-too-large"
    case .stageExpired: "stage-expired"
    case .sendBufferFull: "send-buffer-full"
    case .sendError: "send-error"
    case .pathTooSmall: "path-too-small"
    case .nonceExhausted: "nonce-exhausted"
    case .datagramTruncated: "datagram-truncated"
    case .frameUnknown: "frame-unknown"
    case .frameShort: "frame-short"
    case .framePlaintext: "frame-plaintext"
    case .beaconMessageFromStranger: "beacon-message-from-stranger"
    case .relayNested: "relay-nested"
    case .relayNotAllowed: "relay-not-allowed"
    case .relaySourceElsewhere: "relay-source-elsewhere"
    case .relayWithoutPath: "relay-without-path"
    case .relayOverLimit: "relay-over-limit"
    case .keyExchangeOverLimit: "key-exchange-over-limit"
    case .eventQueueFull: "event-queue-full"
    case .senderUnknown: "sender-unknown"
    case .sessionMissing: "session-missing"
    case .replayed: "replayed"
    case .authenticationFailed: "authentication-failed"
    case .prefixRetired: "prefix-retired"
    case .innerMalformed: "inner-malformed"
    case .innerReserved: "inner-reserved"
    case .innerOverLimit: "inner-over-limit"
    case .partAlone: "part-alone"
    case .spoofedSource: "spoofed-source"
    case .wrongDestination: "wrong-destination"
    case .notTrusted: "not-trusted"
    case .tunWriteFailed: "tun-write-failed"
    case .icmpOverLimit: "icmp-over-limit"
    }
  }
}

/// What a worker did, beyond drops.
package enum WorkerCounter: Int, CaseIterable, Sendable {
  case tunReads
  case tunReadPackets
  case tunWrites
  case tunWrittenSegments
  case sentTrains
  case sentFrames
  case sentTwice
  case sentPlainly
  case sendCalls
  case receiveCalls
  case receivedDatagrams
  case receivedFrames
  case relayedFrames
  case relayedPackets
  case relayedBytes
  case punches
  case stagedPackets
  case icmpAnswers
  case translatedPackets
  case splitPackets
  case joinedPackets
  case wakeUps

  package var name: String {
    switch self {
    case .tunReads: "tun-reads"
    case .tunReadPackets: "tun-read-packets"
    case .tunWrites: "tun-writes"
    case .tunWrittenSegments: "tun-written-segments"
    case .sentTrains: "sent-trains"
    case .sentFrames: "sent-frames"
    case .sentTwice: "sent-twice"
    case .sentPlainly: "sent-plainly"
    case .sendCalls: "send-calls"
    case .receiveCalls: "receive-calls"
    case .receivedDatagrams: "received-datagrams"
    case .receivedFrames: "received-frames"
    case .relayedFrames: "relayed-frames"
    case .relayedPackets: "relayed-packets"
    case .relayedBytes: "relayed-bytes"
    case .punches: "punches"
    case .stagedPackets: "staged-packets"
    case .icmpAnswers: "icmp-answers"
    case .translatedPackets: "translated-packets"
    case .splitPackets: "split-packets"
    case .joinedPackets: "joined-packets"
    case .wakeUps: "wake-ups"
    }
  }
}

/// The block of words.
///
/// SAFETY: `@unchecked Sendable` because one thread (the worker) writes and all accesses are relaxed atomics.
struct CounterBlock: @unchecked Sendable {
  private let words: UnsafeMutablePointer<UInt64>

  /// INVARIANT: the block lives as long as the engine; `Engine` frees it after the thread has ended.
  init() {
    let count = DropReason.allCases.count + WorkerCounter.allCases.count
    words = .allocate(capacity: count)
    words.initialize(repeating: 0, count: count)
  }

  func free() { words.deallocate() }

  @inline(__always)
  func drop(_ reason: DropReason, _ count: Int = 1) { add(reason.rawValue, count) }

  /// Counters stand behind the drops. (`allCases.count` would build an array for each packet.)
  @inline(__always)
  func count(_ counter: WorkerCounter, _ count: Int = 1) {
    add(DropReason.icmpOverLimit.rawValue &+ 1 &+ counter.rawValue, count)
  }

  @inline(__always)
  private func add(_ index: Int, _ count: Int) {
    // Single writer: a plain load and a relaxed store, no locked instruction.
    pt_store_relaxed(words + index, words[index] &+ UInt64(count))
  }

  func value(_ reason: DropReason) -> UInt64 { pt_load_relaxed(words + reason.rawValue) }
  func value(_ counter: WorkerCounter) -> UInt64 {
    pt_load_relaxed(words + DropReason.allCases.count + counter.rawValue)
  }
}
