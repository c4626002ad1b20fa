// What a restart by the service manager leaves open: the interface, the tunnel socket, the list of recent peers. The next
// run goes on with them, so that packets wait instead of being lost, and ports, addresses and routes stay. Used by
// NodeProgram.

import Glibc
import LinkIO
import Logging
import ServiceManager
import Shim
import Telemetry
import Wire

/// Each is taken from the manager when it fits, and made anew when it does not.
struct KeptDescriptors {
  private static let tunName = "tun"
  private static let socketName = "socket"
  private static let peersName = "peers"

  private var passed: PassedDescriptors
  /// What the manager holds already, and what it was told to forget.
  private var held: Set<String> = []
  private var forgotten: Set<String> = []
  private let notifier: ServiceNotifier
  private let logger: Logger

  init(_ passed: PassedDescriptors, notifier: ServiceNotifier, logger: Logger) {
    self.passed = passed
    self.notifier = notifier
    self.logger = logger
    for name in Set(passed.left).subtracting([Self.tunName, Self.socketName, Self.peersName]) {
      logger.notice("a descriptor of unknown use was passed to this node", metadata: ["name": "\(name)"])
    }
  }

  mutating func tun(name: String, disabled: Set<String>) throws(LinkError) -> TunDevice {
    while let descriptor = passed.take(Self.tunName) {
      let old = TunDevice.interfaceName(of: descriptor)
      do throws(LinkError) {
        let tun = try TunDevice(adopting: descriptor, name: name, disabled: disabled)
        held.insert(Self.tunName)
        logger.info("the interface of the last run is kept", metadata: ["interface": "\(name)"])
        return tun
      } catch {
        refuse(Self.tunName, error)
        if let old { Self.waitUntilGone(old) }
      }
    }
    return try TunDevice(name: name, disabled: disabled)
  }

  /// The manager closes what it was told to forget a little later; until then the old interface has our addresses and our
  /// route, and the new one cannot.
  private static func waitUntilGone(_ interface: String) {
    for _ in 0..<400 where pt_link_index(interface) >= 0 { usleep(5000) }
  }

  mutating func socket(_ listen: ListenAddress, disabled: Set<String>) throws(LinkError) -> UDPSocket {
    let wanted = Endpoint(address: listen.address, port: listen.port)
    while let descriptor = passed.take(Self.socketName) {
      do throws(LinkError) {
        let socket = try UDPSocket(
          adopting: descriptor, local: wanted, takesAnyPort: listen.isDefault || listen.port == 0, disabled: disabled)
        held.insert(Self.socketName)
        logger.info("the socket of the last run is kept", metadata: ["local": "\(socket.local)"])
        return socket
      } catch {
        refuse(Self.socketName, error)
      }
    }
    do throws(LinkError) {
      return try UDPSocket(local: wanted, disabled: disabled)
    } catch {
      guard listen.isDefault, error.kind == .udpPortTaken else { throw error }
      return try UDPSocket(port: 0, disabled: disabled)
    }
  }

  mutating func recentPeers() -> RecentPeers? {
    guard notifier.isManaged else { return nil }
    while let descriptor = passed.take(Self.peersName) {
      if let kept = RecentPeers(adopting: descriptor) {
        held.insert(Self.peersName)
        return kept
      }
      forget(Self.peersName)
    }
    return RecentPeers()
  }

  /// From now on the manager keeps them, also when this process is killed.
  func keep(tun: Int32, socket: Int32, peers: RecentPeers?) {
    let all: [(String, Int32?)] = [
      (Self.tunName, tun), (Self.socketName, socket), (Self.peersName, peers?.descriptor),
    ]
    for (name, descriptor) in all {
      guard let descriptor, !held.contains(name) || forgotten.contains(name) else { continue }
      notifier.keep(descriptor, as: name)
    }
  }

  /// The manager must let go of it, too: an interface lives as long as anybody holds it.
  private mutating func refuse(_ name: String, _ error: LinkError) {
    logger.notice("not kept from the last run", metadata: Logger.Metadata(describing: error))
    forget(name)
  }

  private mutating func forget(_ name: String) {
    forgotten.insert(name)
    notifier.forget(name)
  }
}
