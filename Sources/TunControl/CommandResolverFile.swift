// The resolv.conf that the command of `pilot-tun run` sees: it names the node's resolver stub, which answers for .pilot
// and refuses every other name. Made and removed by WrappedCommand; Shim/namespace.c puts it in place.

import Glibc
import Logging
import Wire

struct CommandResolverFile: Sendable {
  let path: String
  /// The file that it stands in for: what /etc/resolv.conf leads to.
  let place: String

  static let content = """
    # Of pilot-tun run: names under .pilot. No other names, as there is no way to other machines from here.
    nameserver \(OverlayMapping.resolver)
    options timeout:2 attempts:2

    """

  /// nil, with a line in the log, when names have to do without.
  static func make(in folder: String, logger: Logger) -> CommandResolverFile? {
    guard let place = realpath("/etc/resolv.conf", nil) else {
      logger.warning("names do not resolve for the command: there is no /etc/resolv.conf to stand in for")
      return nil
    }
    defer { free(place) }
    let file = CommandResolverFile(path: folder + "/resolv.conf", place: String(cString: place))
    do {
      try SmallFile.write(Array(content.utf8), to: file.path)
    } catch {
      logger.warning("names do not resolve for the command: cannot write \(file.path): \(error.reason)")
      return nil
    }
    return file
  }

  func remove() { unlink(path) }
}
