// The Unix socket over which operators' tools reach the node. Made by Node after the state directory's lock is held.
// Connections live on a NIO event loop and each request in a task, so that no client can hold up the node.

import Glibc
package import JSON
import LinkIO
package import Logging
package import NIOCore
import NIOPosix
import Synchronization

/// Answers one request. `emit` sends a part of a streamed answer and returns when the client has taken it.
package protocol ControlService: Sendable {
  func answer(
    _ request: ControlRequest, emit: @escaping @Sendable (JSONValue) async throws -> Void
  ) async throws -> JSONValue
}

package final class ControlServer: Sendable {
  package let path: String
  private let channel: any Channel
  private let connections = Mutex<Int>(0)

  /// More than any operator needs; the next one is told to come back.
  static let connectionLimit = 64

  /// Who is on the other side; the tests put other users there.
  package typealias CredentialSource = @Sendable (any Channel) -> EventLoopFuture<PeerCredentials>

  /// Takes the path (a stale socket file there is removed) and listens.
  ///
  /// Errors: `already_running` when something answers at the path, `control_socket_taken` when a file that is no
  /// socket stands there, `control_socket_failed` for everything the system refuses.
  package init(
    path: String, group: any EventLoopGroup, logger: Logger, service: any ControlService,
    credentials: @escaping CredentialSource = ControlServer.kernelCredentials
  ) async throws(ControlError) {
    self.path = path
    try Self.clear(path)
    let operatorsGroup = ControlAccess.operatorsGroup()
    let nodeUser = geteuid()
    let admission = Admitter()
    // The file must not be open to others for an instant: the umask covers the moment before chmod. It holds for the
    // whole process, so it leaves the owner what other threads may make folders with meanwhile.
    let oldMask = umask(0o077)
    defer { umask(oldMask) }
    do {
      channel = try await ServerBootstrap(group: group)
        .serverChannelOption(.backlog, value: 16)
        .childChannelInitializer { channel in
          guard admission.enter() else { return channel.close() }
          channel.closeFuture.whenComplete { _ in admission.leave() }
          return credentials(channel).flatMap { peer in
            let access = ControlAccess.of(peer, nodeUser: nodeUser, operatorsGroup: operatorsGroup)
            return channel.eventLoop.makeCompletedFuture {
              let handler = ControlConnection(access: access, service: service, logger: logger)
              try channel.pipeline.syncOperations.addHandler(handler)
            }
          }
        }
        .childChannelOption(.autoRead, value: true)
        .bind(unixDomainSocketPath: path).get()
    } catch {
      throw ControlError(
        "control_socket_failed", "cannot listen on \(path): \(error)",
        hint: "choose another --control-socket, or run as a user that may write there")
    }
    chmod(path, 0o660)
    if let operatorsGroup { _ = chown(path, uid_t.max, operatorsGroup) }
  }

  /// Stops listening and removes the socket file.
  package func close() async {
    try? await channel.close()
    unlink(path)
  }

  /// Removes what a killed node left at the path; makes the directory.
  private static func clear(_ path: String) throws(ControlError) {
    do {
      try SmallFile.makeDirectories(SmallFile.directory(of: path))
    } catch {
      throw ControlError(
        "control_socket_failed", "cannot make the directory of \(path): \(error.reason)",
        hint: "choose another --control-socket, or run as a user that may write there")
    }
    var status = stat()
    guard lstat(path, &status) == 0 else { return }
    guard status.st_mode & S_IFMT == S_IFSOCK else {
      throw ControlError(
        "control_socket_taken", "\(path) exists and is not a socket", hint: "choose another --control-socket")
    }
    if UnixSocket.isAnswering(path) {
      throw ControlError(
        "already_running", "a node already answers on \(path)",
        hint: "stop it with `pilot-tun down`, or give this one its own --control-socket and --state-dir")
    }
    unlink(path)
  }

  package static let kernelCredentials: CredentialSource = { channel in
    guard let provider = channel as? any SocketOptionProvider else {
      return channel.eventLoop.makeFailedFuture(ChannelError.operationUnsupported)
    }
    let level = NIOBSDSocket.OptionLevel(rawValue: SOL_SOCKET)
    let credentials: EventLoopFuture<KernelCredentials> = provider.unsafeGetSocketOption(
      level: level, name: NIOBSDSocket.Option(rawValue: SO_PEERCRED))
    return credentials.flatMap { credentials in
      let more: EventLoopFuture<SupplementaryGroups> = provider.unsafeGetSocketOption(
        level: level, name: NIOBSDSocket.Option(rawValue: 59))  // SO_PEERGROUPS, asm-generic/socket.h
      return more.map { Set($0.values) }.recover { _ in [] }.map { groups in
        PeerCredentials(user: credentials.user, groups: groups.union([credentials.group]))
      }
    }
  }
}

/// `struct ucred` of socket(7); the C library shows it to GNU sources only.
private struct KernelCredentials {
  var process: Int32 = 0
  var user: UInt32 = .max
  var group: UInt32 = .max
}

/// Room for the groups of a process; someone in more than 64 groups counts by the effective one alone.
private struct SupplementaryGroups {
  var storage: InlineArray<64, UInt32> = .init(repeating: 0)
  /// Unused places are zero, as is root's group; members of root's group are no operators for that.
  var values: [UInt32] { storage.indices.map { storage[$0] }.filter { $0 != 0 } }
}

private final class Admitter: Sendable {
  private let count = Mutex(0)

  func enter() -> Bool {
    count.withLock { count in
      guard count < ControlServer.connectionLimit else { return false }
      count += 1
      return true
    }
  }

  func leave() { count.withLock { $0 -= 1 } }
}
