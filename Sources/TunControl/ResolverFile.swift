// `dns = file:PATH`: one more name server in a file like resolv.conf(5), for containers and network namespaces where
// nobody else can be told. The file is the operator's: three marked lines go in front, and they alone are taken out
// again, whatever happened to the rest meanwhile. Used by HostNames.

import Glibc
import Wire

struct ResolverFile: Sendable, Equatable {
  /// Symbolic links resolved.
  let path: String
  /// As the operator wrote it.
  private let named: String

  private static let limit = 64 * 1024
  /// The stub's refusals send programs on to the servers that stood there before.
  private static func block(isMade: Bool) -> [UInt8] {
    let what = isMade ? "this file was made by pilot-tun up" : "two lines for names of the overlay"
    let text = """
      # pilot-tun begin: \(what), gone when it ends
      nameserver \(OverlayMapping.resolver)
      # pilot-tun end

      """
    return Array(text.utf8)
  }

  /// Checks that the path can be written and is not someone else's.
  init(_ named: String) throws(ControlError) {
    guard named.hasPrefix("/"), !named.contains("\0") else { throw Self.unusable(named, "not a whole path") }
    self.named = named
    if let real = realpath(named, nil) {
      path = String(cString: real)
      free(real)
    } else {
      let name = named.split(separator: "/").last.map(String.init) ?? ""
      // A link that leads nowhere is not "a file that does not exist yet".
      var status = stat()
      guard lstat(named, &status) != 0, errno == ENOENT, let folder = realpath(SmallFile.directory(of: named), nil)
      else { throw Self.unusable(named, errorText(errno)) }
      path = String(cString: folder) + "/" + name
      free(folder)
    }
    guard !path.hasPrefix("/run/systemd/resolve/") else {
      throw ControlError(
        "resolver_file_refused", "\(named) belongs to systemd-resolved (\(path))",
        hint: "use --dns auto: systemd-resolved itself is told then", isUsage: true)
    }
    var status = stat()
    if stat(path, &status) == 0, status.st_mode & S_IFMT != S_IFREG {
      throw Self.unusable(named, "not a regular file")
    }
  }

  /// Puts our lines in front. Says whether they were missing.
  @discardableResult
  func install() throws(ControlError) -> Bool {
    guard SmallFile.exists(path) else {
      try write(Self.block(isMade: true), like: nil)
      return true
    }
    let content = try read()
    guard Self.without(content) == nil else { return false }
    try write(Self.block(isMade: false) + content, like: path)
    return true
  }

  /// Takes them out; a file that was made for them and has nothing else goes.
  func remove() throws(ControlError) {
    guard SmallFile.exists(path), let (rest, isMade) = Self.without(try read()) else { return }
    if isMade, rest.isEmpty {
      guard unlink(path) == 0 else { throw Self.unusable(named, "unlink: \(errorText(errno))") }
    } else {
      try write(rest, like: path)
    }
  }

  /// The content without our lines; nil when they are not in it, or were changed.
  static func without(_ content: [UInt8]) -> (rest: [UInt8], isMade: Bool)? {
    for isMade in [false, true] {
      let block = block(isMade: isMade)
      guard content.count >= block.count else { continue }
      for start in 0...(content.count - block.count) where content[start...].starts(with: block) {
        return (Array(content[..<start] + content[(start + block.count)...]), isMade)
      }
    }
    return nil
  }

  private func read() throws(ControlError) -> [UInt8] {
    do {
      return try SmallFile.read(path, limit: Self.limit)
    } catch {
      throw Self.unusable(named, error.reason)
    }
  }

  /// In one step, with owner and mode of the file before. A file that is a mount point of its own (containers) cannot be
  /// replaced, and is written over.
  private func write(_ content: [UInt8], like model: String?) throws(ControlError) {
    let temporary = path + ".pilot-tun"
    do {
      try SmallFile.write(content, to: temporary)
    } catch {
      // A read-only folder around a writable mounted file.
      guard model != nil, error.number == EROFS || error.number == EACCES else {
        throw Self.unusable(named, error.reason)
      }
      return try overwrite(content)
    }
    var status = stat()
    if let model, stat(model, &status) == 0 {
      _ = chown(temporary, status.st_uid, status.st_gid)
      _ = chmod(temporary, status.st_mode & 0o7777)
    }
    guard rename(temporary, path) != 0 else { return }
    let number = errno
    unlink(temporary)
    guard number == EBUSY else { throw Self.unusable(named, "rename: \(errorText(number))") }
    try overwrite(content)
  }

  private func overwrite(_ content: [UInt8]) throws(ControlError) {
    let descriptor = open(path, O_WRONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw Self.unusable(named, "open: \(errorText(errno))") }
    defer { close(descriptor) }
    guard Glibc.write(descriptor, content, content.count) == content.count, ftruncate(descriptor, content.count) == 0
    else { throw Self.unusable(named, "write: \(errorText(errno))") }
  }

  private static func unusable(_ path: String, _ reason: String) -> ControlError {
    ControlError(
      "resolver_file_unusable", "cannot use \(path) for --dns: \(reason)",
      hint: "name a file like resolv.conf(5) that this user may write", isUsage: true)
  }
}

/// The path of a file that has our lines, kept in the state directory until they are out again: a start after a crash
/// takes them out, also when another file, or none, is named then.
struct ResolverFileNote: Sendable {
  let path: String

  init(stateDirectory: String) { path = stateDirectory + "/resolver-file" }

  func write(_ file: ResolverFile) throws(FileFailure) {
    try SmallFile.write(Array(file.path.utf8), to: path, mode: 0o600)
  }

  /// The file of the last run, when it did not come to its end. A note that makes no sense is none.
  func read() -> ResolverFile? {
    guard let bytes = try? SmallFile.read(path, limit: 4096) else { return nil }
    return try? ResolverFile(String(decoding: bytes, as: UTF8.self))
  }

  func clear() { unlink(path) }
}
