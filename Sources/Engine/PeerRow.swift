// What a worker knows of a peer and of its sessions: rows in two mapped arrays, reached by index.

internal import Session
internal import Shim
internal import Wire

/// How frames leave for a peer, as the row holds it.
enum PathKind: UInt8 {
  case none = 0
  case direct = 1
  case relay = 2
}

/// One peer. All-zero bytes are an empty row, so that untouched pages of the array cost nothing.
struct PeerRow {
  var node: UInt32
  var isInUse: Bool
  var admission: Admission
  var refusal: Refusal
  var path: PathKind
  var takesRawIPv6: Bool
  /// Joins packets that come in two frames.
  var takesSplitPackets: Bool
  /// Control has told whether it does.
  var isKindKnown: Bool
  /// We dialed streams of it.
  var hasStreams: Bool
  /// Frames between it and others like it are relayed here.
  var isRelayedFor: Bool
  /// UDP_SEGMENT failed towards this peer; its frames go one by one.
  var isWithoutGSO: Bool
  /// Number of the socket that frames to `endpoint` leave by, 0: the worker's own (ExtraSockets).
  var socket: UInt8
  /// Consecutive frames that did not open.
  var failures: UInt32
  /// Where datagrams go: the peer, or the beacon when relayed.
  var endpoint: pt_endpoint
  /// Session rows plus one, 0 for none. `current` sends; all three receive.
  var current: UInt32
  var second: UInt32
  var third: UInt32
  // Limits of events to control, monotonic nanoseconds of the last one.
  var lastWanted: UInt64
  var lastMoved: UInt64
  var lastFailing: UInt64
  var lastUndecryptable: UInt64
  var lastTooBig: UInt64
  /// When the next inner frame for control may come, at 200 a second with a burst of a second.
  var innerDue: UInt64
  /// The same for segments of streams, at 60,000 a second with a burst of a tenth of a second.
  var streamDue: UInt64
  /// When the next frame may be relayed for it, by packets and by bytes (Worker+Relay).
  var relayPacketDue: UInt64
  var relayByteDue: UInt64
  var sentBytes: UInt64
  var sentPackets: UInt64
  var receivedBytes: UInt64
  var receivedPackets: UInt64
  var lastReceive: UInt64
  var lastSend: UInt64
  /// The last newest frame that came by the path that we use.
  var lastOnPath: UInt64
  /// Largest inner frame that the path takes; 0: the interface's MTU. Control reads it, too.
  var innerMTU: UInt64
  /// The relay behind a direct path, port 0: there is none; and which frames go through it as well, none while there is no
  /// relay or no direct path.
  var fallback: pt_endpoint
  var rested: RestedPath
}

/// One session of a peer: a key, the own nonce, the peer's nonces. All-zero bytes are a free row.
struct SessionRow {
  var peer: PeerIndex
  var id: SessionID
  var context: UnsafeMutableRawPointer?
  var sendPrefix: UInt32
  /// The peer's nonce prefix, learned from its first authentic frame.
  var receivePrefix: UInt32
  var hasReceivePrefix: Bool
  var isConfirmed: Bool
  var retiredPrefixCount: UInt8
  /// Prefixes that the peer used before under this key; a frame under one of them is a replay (wire/tunnel §9.8).
  var retiredPrefixes: (UInt32, UInt32, UInt32, UInt32)
  /// Counter of the last frame sent; the first one carries 1.
  var sendCounter: UInt64
  var window: ReplayWindow
}

/// The two arrays. Single owner: the worker; control reads the statistics words of a row with relaxed loads.
struct PeerStore: ~Copyable {
  let rows: UnsafeMutablePointer<PeerRow>
  let sessions: UnsafeMutablePointer<SessionRow>
  let capacity: Int
  let sessionCapacity: Int
  /// Free session rows are linked through `peer`; 0 ends the list. Row numbers plus one.
  private var firstFree: UInt32 = 0
  private var everUsed: UInt32 = 0

  init?(capacity: Int) {
    self.capacity = capacity
    // Two sessions for each peer on average: the third exists only for seconds around a rekey.
    sessionCapacity = capacity * 2
    guard let rowBase = pt_map(capacity * MemoryLayout<PeerRow>.stride) else { return nil }
    guard let sessionBase = pt_map(sessionCapacity * MemoryLayout<SessionRow>.stride) else {
      pt_unmap(rowBase, capacity * MemoryLayout<PeerRow>.stride)
      return nil
    }
    // SAFETY: both mappings are zeroed and aligned to a page; zero is a valid value of both structures.
    rows = rowBase.bindMemory(to: PeerRow.self, capacity: capacity)
    sessions = sessionBase.bindMemory(to: SessionRow.self, capacity: sessionCapacity)
  }

  /// A second view of the same arrays, for the thread that works on them.
  init(rows: UnsafeMutablePointer<PeerRow>, sessions: UnsafeMutablePointer<SessionRow>, capacity: Int) {
    self.rows = rows
    self.sessions = sessions
    self.capacity = capacity
    sessionCapacity = capacity * 2
  }

  func unmap() {
    pt_unmap(rows, capacity * MemoryLayout<PeerRow>.stride)
    pt_unmap(sessions, sessionCapacity * MemoryLayout<SessionRow>.stride)
  }

  /// A cleared session row (number plus one), or nil when all are taken.
  mutating func takeSession() -> UInt32? {
    let number: UInt32
    if firstFree != 0 {
      number = firstFree
      firstFree = sessions[Int(number) - 1].peer
    } else if Int(everUsed) < sessionCapacity {
      everUsed += 1
      number = everUsed
    } else {
      return nil
    }
    pt_wipe(sessions + (Int(number) - 1), MemoryLayout<SessionRow>.stride)
    return number
  }

  /// Wipes the key and frees the row.
  mutating func releaseSession(_ number: UInt32) {
    guard number != 0 else { return }
    let row = sessions + (Int(number) - 1)
    if let context = row.pointee.context { AEADContext(raw: context).release() }
    pt_wipe(row, MemoryLayout<SessionRow>.stride)
    row.pointee.peer = firstFree
    firstFree = number
  }

  /// Number of the peer's session with this id, or 0.
  func session(_ id: SessionID, of peer: PeerIndex) -> UInt32 {
    let row = rows[Int(peer)]
    for number in [row.current, row.second, row.third] where number != 0 {
      if sessions[Int(number) - 1].id == id { return number }
    }
    return 0
  }
}
