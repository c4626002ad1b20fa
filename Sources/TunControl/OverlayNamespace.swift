// The network namespace that holds the overlay's interface when it is not the machine's: that of `pilot-tun run`. The
// node's sockets to other machines stay outside; what belongs to the overlay is made by threads that step in.
// Made by WrappedCommand; used by NodeProgram (TUN), Node (interface, gateway, resolver stub).

import Glibc
import LinkIO
import Naming
import Shim
import Synchronization
import Wire

package final class OverlayNamespace: Sendable {
  private let descriptor: Int32

  /// Makes it; the process must have the rights for that (`UserNamespace.enter`).
  init() throws(LinkError) {
    descriptor = try Self.onThread { () throws(LinkError) in try NetworkNamespace.make() }
  }

  deinit { close(descriptor) }

  /// Moves the calling thread in, for good: only for threads of one's own.
  func enter() throws(LinkError) { try NetworkNamespace.enter(descriptor) }

  /// Runs the closure on a thread inside and returns what it gave. Blocks meanwhile: for short calls to the kernel.
  func inside<Value: Sendable>(
    _ body: @escaping @Sendable () throws(LinkError) -> Value
  ) throws(LinkError) -> Value {
    try Self.onThread { [self] () throws(LinkError) in
      try enter()
      return try body()
    }
  }

  /// What /proc/PID/ns/net of a process inside links to.
  var identity: String {
    var status = stat()
    return fstat(descriptor, &status) == 0 ? "net:[\(status.st_ino)]" : ""
  }

  private static func onThread<Value: Sendable>(
    _ body: @escaping @Sendable () throws(LinkError) -> Value
  ) throws(LinkError) -> Value {
    let call = ThreadCall<Value>()
    do {
      try DedicatedThread.start("pilot-inside") {
        do throws(LinkError) {
          call.finish(.success(try body()))
        } catch {
          call.finish(.failure(error))
        }
      }
    } catch {
      throw LinkError.failed("pthread_create", -EAGAIN, error.message)
    }
    return try call.wait().get()
  }
}

/// The result of a closure on another thread, and the wait for it.
private final class ThreadCall<Value: Sendable>: Sendable {
  private let result = Mutex<Result<Value, LinkError>?>(nil)
  private let done = pt_eventfd()

  deinit { pt_close(done) }

  func finish(_ value: Result<Value, LinkError>) {
    result.withLock { $0 = value }
    pt_eventfd_signal(done)
  }

  func wait() -> Result<Value, LinkError> {
    while true {
      if let value = result.withLock({ $0 }) { return value }
      var descriptor = done
      // Out of descriptors there is no event to wait for: then by turns.
      _ = pt_poll(&descriptor, 1, done < 0 ? 1 : -1)
    }
  }
}

// MARK: What is made inside

extension OverlayNamespace {
  /// The TUN device, in the namespace or, without one, here.
  static func openTun(
    _ name: String, disabled: Set<String>, in namespace: OverlayNamespace?
  ) throws(LinkError) -> TunDevice {
    guard let namespace else { return try TunDevice(name: name, disabled: disabled) }
    let made = Made<TunDevice>()
    try namespace.inside { () throws(LinkError) in
      let device = try TunDevice(name: name, disabled: disabled)
      made.keep(device)
    }
    guard let device = made.take() else { fatalError("the device was made") }
    return device
  }

  /// The resolver stub's sockets, bound inside.
  func resolverSockets(_ endpoint: Endpoint) throws(StubServer.SocketFailure) -> (datagrams: Int32, streams: Int32) {
    do {
      return try inside { () throws(LinkError) in
        let datagrams = pt_socket_bound(endpoint.address.bytes, endpoint.port, 0)
        guard datagrams >= 0 else { throw LinkError.failed("bind", datagrams, "") }
        let streams = pt_socket_bound(endpoint.address.bytes, endpoint.port, 1)
        guard streams >= 0 else {
          pt_close(datagrams)
          throw LinkError.failed("bind", streams, "")
        }
        return (datagrams, streams)
      }
    } catch {
      throw StubServer.SocketFailure(number: error.number)
    }
  }
}

/// Hands a value that cannot be copied from one thread to another.
private final class Made<Value: ~Copyable & Sendable>: Sendable {
  private let value = Mutex<Value?>(nil)

  func keep(_ new: consuming Value) {
    var new: Value? = new
    value.withLock { swap(&$0, &new) }
  }

  func take() -> Value? { value.withLock { $0.take() } }
}
