// Messages and files of peers on disk, where the official `pilotctl inbox` and `received` look for them (wire/cli §6).
// Bounded: what does not fit is refused. Owned by Inbox, on its thread.

import Directory
import Glibc
import JSON
import Services
import Wire

struct InboxFolder {
  /// What may lie in the folder; strangers together fill half of it.
  struct Quota: Sendable {
    var messages = 10_000
    var messageBytes: UInt64 = 256 << 20
    var files = 1_000
    var fileBytes: UInt64 = 4 << 30
    /// Bytes that stay free on the disk.
    var spare: UInt64 = 64 << 20
  }

  struct Usage: Equatable {
    var count = 0
    var bytes: UInt64 = 0
  }

  enum Kind: String {
    case messages = "inbox"
    case files = "received"
    /// Files that are not whole yet.
    case parts = "partial"
  }

  let path: String
  let quota: Quota
  private var number = 0
  private var counted: [Kind: (usage: Usage, at: UInt64)] = [:]

  init(path: String, quota: Quota = Quota()) {
    self.path = path
    self.quota = quota
  }

  func folder(_ kind: Kind) -> String { "\(path)/\(kind.rawValue)" }

  // MARK: Keeping

  /// - wall: nanoseconds since 1970.
  mutating func keep(
    _ type: ExchangeType, _ bytes: [UInt8], _ tag: MessageTag, from: PilotAddress, isStranger: Bool, wall: UInt64
  ) throws(FileFailure) {
    try checkRoom(.messages, bytes.count, isStranger: isStranger, wall: wall)
    var members: [String: JSONValue] = [
      "bytes": JSONValue(bytes.count), "from": .text(from.description),
      "received_at": .text(Self.timestamp(wall)), "type": .text(type.label),
    ]
    if let id = tag.id { members["message_id"] = .text(id) }
    if let replyTo = tag.replyTo { members["reply_to"] = .text(replyTo) }
    if type != .binary, let text = String(validating: bytes, as: UTF8.self) {
      members["data"] = .text(text)
      members["data_encoding"] = "utf8"
    } else {
      members["data_b64"] = .text(Base64.encode(bytes))
      members["data_encoding"] = "base64"
    }
    let part = try newPart()
    try SmallFile.write(JSONValue.object(members).encoded, to: part, mode: 0o600)
    try place(part, in: .messages, type.label, ".json", wall)
  }

  mutating func keep(
    name: String, _ content: [UInt8], isStranger: Bool, wall: UInt64
  ) throws(FileFailure) {
    try checkRoom(.files, content.count, isStranger: isStranger, wall: wall)
    let part = try newPart()
    try SmallFile.write(content, to: part, mode: 0o600)
    try place(part: part, name: name, wall: wall)
  }

  /// Gives a whole file its place.
  mutating func place(part: String, name: String, wall: UInt64) throws(FileFailure) {
    // `NAME-TIME.EXT` for `NAME.EXT`; a point in front is part of the name.
    let dot = name.dropFirst().lastIndex(of: ".") ?? name.endIndex
    var (stem, suffix) = (name[..<dot], name[dot...])
    while suffix.utf8.count > 32 { suffix.removeLast() }
    while stem.utf8.count + suffix.utf8.count > 220 { stem.removeLast() }
    try place(part, in: .files, String(stem), String(suffix), wall)
  }

  private mutating func place(
    _ part: String, in kind: Kind, _ stem: String, _ suffix: String, _ wall: UInt64
  ) throws(FileFailure) {
    try makeFolder(kind)
    for _ in 0..<1000 {
      number = (number + 1) % 1_000_000
      let name = "\(stem)-\(Self.stamp(wall))-\(Self.digits(number, 6))\(suffix)"
      // Linked and not renamed: what is there already stays.
      if link(part, "\(folder(kind))/\(name)") == 0 {
        unlink(part)
        return
      }
      guard errno == EEXIST else { break }
    }
    let failure = FileFailure(number: errno, call: "link")
    unlink(part)
    throw failure
  }

  private mutating func newPart() throws(FileFailure) -> String {
    try makeFolder(.parts)
    number = (number + 1) % 1_000_000
    return "\(folder(.parts))/new-\(getpid())-\(number)"
  }

  func makeFolder(_ kind: Kind) throws(FileFailure) { try SmallFile.makeDirectories(folder(kind), mode: 0o700) }

  // MARK: Room

  /// - promised: bytes of files under way that are not on the disk yet; what is asked for here joins them and is counted
  ///   by the caller. Nil: it is written at once.
  mutating func checkRoom(
    _ kind: Kind, _ bytes: Int, promised: UInt64? = nil, isStranger: Bool, wall: UInt64
  ) throws(FileFailure) {
    try makeFolder(kind)
    let isMessage = kind == .messages
    let (count, size) =
      isMessage ? (quota.messages, quota.messageBytes) : (quota.files, quota.fileBytes)
    let share = isStranger ? 2 : 1
    let usage = usage(kind, wall)
    let parts = isMessage ? Usage() : self.usage(.parts, wall)
    let wanted = UInt64(bytes) + (promised ?? 0)
    guard usage.count < count / share, usage.bytes + parts.bytes + wanted <= size / UInt64(share) else {
      throw FileFailure(number: 0, call: isMessage ? "the inbox is full" : "the folder for files is full")
    }
    if promised == nil {
      counted[kind]?.usage.count += 1
      counted[kind]?.usage.bytes += UInt64(bytes)
    }
    var disk = statvfs()
    if statvfs(path, &disk) == 0, UInt64(disk.f_bavail) * UInt64(disk.f_frsize) < quota.spare + wanted {
      throw FileFailure(number: 0, call: "the disk is full")
    }
  }

  /// What lies there. Users clear the folder as they like: counted anew, but not more often than once a second.
  private mutating func usage(_ kind: Kind, _ wall: UInt64) -> Usage {
    if let known = counted[kind], wall &- known.at < 1_000_000_000 { return known.usage }
    var usage = Usage()
    forEachFile(kind) { _, _, information in
      usage.count += 1
      usage.bytes += UInt64(max(0, information.st_size))
    }
    counted[kind] = (usage, wall)
    return usage
  }

  /// Removes unfinished files that nobody went on with for a day, and what a killed node left.
  func clearParts(now: Int) {
    forEachFile(.parts) { list, name, information in
      guard information.st_mtim.tv_sec < now - (name.hasPrefix("new-") ? 3600 : 86_400) else { return }
      unlinkat(list, name, 0)
    }
  }

  private func forEachFile(_ kind: Kind, _ body: (Int32, String, stat) -> Void) {
    guard let list = opendir(folder(kind)) else { return }
    defer { closedir(list) }
    while let entry = readdir(list) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      var information = stat()
      guard fstatat(dirfd(list), name, &information, AT_SYMLINK_NOFOLLOW) == 0,
        information.st_mode & S_IFMT == S_IFREG
      else { continue }
      body(dirfd(list), name, information)
    }
  }

  // MARK: Forms

  static func digits(_ value: some BinaryInteger, _ count: Int) -> String {
    let text = String(value)
    return String(repeating: "0", count: max(0, count - text.utf8.count)) + text
  }

  private static func parts(_ wall: UInt64) -> tm {
    var seconds = time_t(wall / 1_000_000_000)
    var parts = tm()
    gmtime_r(&seconds, &parts)
    return parts
  }

  /// RFC 3339 with nanoseconds, UTC.
  static func timestamp(_ wall: UInt64) -> String {
    let time = parts(wall)
    return "\(time.tm_year + 1900)-\(digits(time.tm_mon + 1, 2))-\(digits(time.tm_mday, 2))T"
      + "\(digits(time.tm_hour, 2)):\(digits(time.tm_min, 2)):\(digits(time.tm_sec, 2))."
      + "\(digits(wall % 1_000_000_000, 9))Z"
  }

  /// `YYYYMMDD-HHMMSS.mmm`, UTC.
  static func stamp(_ wall: UInt64) -> String {
    let time = parts(wall)
    return "\(time.tm_year + 1900)\(digits(time.tm_mon + 1, 2))\(digits(time.tm_mday, 2))-"
      + "\(digits(time.tm_hour, 2))\(digits(time.tm_min, 2))\(digits(time.tm_sec, 2))."
      + "\(digits(wall / 1_000_000 % 1000, 3))"
  }
}
