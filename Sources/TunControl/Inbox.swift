// Keeps what peers send to port 1001, on a thread of its own: disks are slow, and the gateway must not wait for them.
// Made by Node when official clients are served.

import Engine
import Gateway
import Glibc
import Services
import Shim
import Wire

/// Where the inbox is, and who is not a stranger.
struct InboxSettings: Sendable {
  var path: String
  var quota = InboxFolder.Quota()
  var isTrusted: @Sendable (UInt32) -> Bool
  /// Nanoseconds since 1970.
  var wall: @Sendable () -> UInt64
  /// Something of the folder's is wrong that its user has to mend.
  var complain: @Sendable (String) -> Void
  /// Tells the gateway what became of a job.
  var answer: @Sendable (UInt64, ExchangeResult) -> Void
}

final class Inbox: Sendable {
  /// Each stream has one job under way at most, and there are fewer streams than this.
  private let jobs = Mailbox<InboxJob?>(limit: 4096)

  /// Errors: `thread_unavailable`.
  init(_ settings: InboxSettings) throws(ControlError) {
    try DedicatedThread.start("pilot-inbox") { [jobs] in
      var keeper = InboxKeeper(settings)
      while true {
        var waiting = pollfd(fd: jobs.descriptor, events: Int16(POLLIN), revents: 0)
        _ = poll(&waiting, 1, -1)
        for job in jobs.takeAll() {
          guard let job else { return keeper.close() }
          keeper.work(job)
        }
      }
    }
  }

  func post(_ job: InboxJob) { jobs.post(job, always: true) }

  /// Jobs before it are still done.
  func stop() { jobs.post(nil, always: true) }
}

/// What the inbox's thread does with each job.
struct InboxKeeper {
  struct Transfer {
    let id: TransferID
    let offer: FileOffer
    let part: String
    let descriptor: Int32
    var offset: UInt64
  }

  /// Ids of messages that are remembered, of all peers.
  static let mostIdentifiers = 4096
  /// Unfinished files of one stream.
  static let mostTransfers = 4

  let settings: InboxSettings
  var folder: InboxFolder
  private var transfers: [UInt64: [Transfer]] = [:]
  /// In the order in which they came.
  private var identifiers: [String] = []
  private var known: Set<String> = []
  /// Wall clock of the last search for files that nobody goes on with.
  private var clearedAt: UInt64?
  private static let hour: UInt64 = 3_600_000_000_000

  init(_ settings: InboxSettings) {
    self.settings = settings
    folder = InboxFolder(path: settings.path, quota: settings.quota)
  }

  mutating func work(_ job: InboxJob) {
    switch job {
    case .ended(let stream):
      for transfer in transfers.removeValue(forKey: stream) ?? [] { pt_close(transfer.descriptor) }
    case .keep(let request, let job, let stream, let from): settings.answer(job, keep(request, stream, from))
    }
  }

  mutating func close() {
    for stream in Array(transfers.keys) { work(.ended(stream: stream)) }
  }

  mutating func keep(_ request: ExchangeRequest, _ stream: UInt64, _ from: PilotAddress) -> ExchangeResult {
    let isStranger = !settings.isTrusted(from.node)
    let wall = settings.wall()
    if clearedAt.map({ wall &- $0 > Self.hour }) ?? true {
      clearedAt = wall
      folder.clearParts(now: Int(wall / 1_000_000_000))
    }
    do throws(FileFailure) {
      switch request {
      case .message(let type, let bytes, let tag):
        guard !isKnown(tag, from) else { return .kept(isRepeated: true) }
        try folder.keep(type, bytes, tag, from: from, isStranger: isStranger, wall: wall)
        remember(tag, from)
      case .file(let name, let content, let tag):
        guard !isKnown(tag, from) else { return .kept(isRepeated: true) }
        try folder.keep(name: name, content, isStranger: isStranger, wall: wall)
        remember(tag, from)
      case .fileStream(let request): return try work(request, stream, from, isStranger)
      }
      return .kept(isRepeated: false)
    } catch {
      if error.number != 0 { settings.complain(error.reason) }
      return .failed(error.reason)
    }
  }

  // MARK: Repeated messages

  private func isKnown(_ tag: MessageTag, _ from: PilotAddress) -> Bool {
    tag.id.map { known.contains("\(from.node) \($0)") } ?? false
  }

  private mutating func remember(_ tag: MessageTag, _ from: PilotAddress) {
    guard let id = tag.id else { return }
    if identifiers.count >= Self.mostIdentifiers {
      for old in identifiers.prefix(Self.mostIdentifiers / 2) { known.remove(old) }
      identifiers.removeFirst(Self.mostIdentifiers / 2)
    }
    identifiers.append("\(from.node) \(id)")
    known.insert("\(from.node) \(id)")
  }

  // MARK: Files in pieces

  private mutating func work(
    _ request: FileStreamRequest, _ stream: UInt64, _ from: PilotAddress, _ isStranger: Bool
  ) throws(FileFailure) -> ExchangeResult {
    let index = transfers[stream]?.firstIndex { $0.id == request.transfer }
    switch request {
    case .malformed(_, let reason): return .failed(reason)
    case .begin(let id, let offer):
      guard index == nil, (transfers[stream]?.count ?? 0) < Self.mostTransfers else {
        return .failed("too many files at once")
      }
      let transfer = try begin(id, offer, from, isStranger)
      transfers[stream, default: []].append(transfer)
      return .fileStream(.begins(at: transfer.offset))
    case .chunk(_, let offset, let bytes):
      guard let index, let transfer = transfers[stream]?[index] else {
        return .fileStream(.aborted("unknown transfer"))
      }
      // Sent once more: it is there.
      guard offset >= transfer.offset else { return .fileStream(.has(upTo: transfer.offset)) }
      guard offset == transfer.offset, offset + UInt64(bytes.count) <= transfer.offer.size else {
        give(up: index, stream)
        return .fileStream(.aborted("a piece is missing, or they are more than announced"))
      }
      do throws(FileFailure) {
        try write(bytes, transfer)
      } catch {
        give(up: index, stream)
        throw error
      }
      transfers[stream]?[index].offset += UInt64(bytes.count)
      return .fileStream(.has(upTo: offset + UInt64(bytes.count)))
    case .done:
      guard let index, let transfer = transfers[stream]?.remove(at: index) else { return .failed("unknown transfer") }
      defer { pt_close(transfer.descriptor) }
      guard transfer.offset == transfer.offer.size else { return .failed("the file is not whole") }
      guard try digest(of: transfer) == transfer.offer.digest else {
        unlink(transfer.part)
        return .failed("the file's SHA-256 is another")
      }
      try folder.place(part: transfer.part, name: transfer.offer.name, wall: settings.wall())
      return .fileStream(.complete)
    case .abort:
      guard let index, let transfer = transfers[stream]?.remove(at: index) else { return .noted }
      pt_close(transfer.descriptor)
      unlink(transfer.part)
      return .noted
    }
  }

  /// What there is of it stays: the sender may go on with it.
  private mutating func give(up index: Int, _ stream: UInt64) {
    if let transfer = transfers[stream]?.remove(at: index) { pt_close(transfer.descriptor) }
  }

  /// The same content of the same peer goes on where it stopped.
  private mutating func begin(
    _ id: TransferID, _ offer: FileOffer, _ from: PilotAddress, _ isStranger: Bool
  ) throws(FileFailure) -> Transfer {
    let digest = offer.digest.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    let part = "\(folder.folder(.parts))/\(from.node)-\(digest)"
    guard !transfers.values.contains(where: { $0.contains { $0.part == part } }) else {
      throw FileFailure(number: 0, call: "the same file is on its way already")
    }
    guard let size = Int(exactly: offer.size) else { throw FileFailure(number: EFBIG, call: "open") }
    try folder.makeFolder(.parts)
    var information = stat()
    let kept = stat(part, &information) == 0 ? Int(information.st_size) : 0
    let promised = transfers.values.joined().reduce(0) { $0 + $1.offer.size - $1.offset }
    try folder.checkRoom(
      .files, size - min(kept, size), promised: promised, isStranger: isStranger, wall: settings.wall())
    let descriptor = open(part, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw FileFailure(number: errno, call: "open") }
    if kept > size { ftruncate(descriptor, 0) }
    return Transfer(
      id: id, offer: offer, part: part, descriptor: descriptor, offset: kept > size ? 0 : UInt64(kept))
  }

  private func write(_ bytes: [UInt8], _ transfer: Transfer) throws(FileFailure) {
    var done = 0
    while done < bytes.count {
      let count = bytes.withUnsafeBytes {
        pwrite(transfer.descriptor, $0.baseAddress! + done, bytes.count - done, off_t(transfer.offset) + off_t(done))
      }
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { throw FileFailure(number: errno, call: "write") }
      done += count
    }
  }

  private func digest(of transfer: Transfer) throws(FileFailure) -> [UInt8] {
    var state = pt_sha256_state()
    pt_sha256_begin(&state)
    var buffer = [UInt8](repeating: 0, count: 256 << 10)
    var offset: off_t = 0
    while true {
      let count = pread(transfer.descriptor, &buffer, buffer.count, offset)
      if count < 0, errno == EINTR { continue }
      guard count >= 0 else { throw FileFailure(number: errno, call: "read") }
      guard count > 0 else { break }
      pt_sha256_add(&state, buffer, count)
      offset += off_t(count)
    }
    var digest = [UInt8](repeating: 0, count: 32)
    pt_sha256_end(&state, &digest)
    return digest
  }
}
