// Host names of the registry and the beacon to addresses. Used by TunControl for the beacon.

import Glibc
package import NIOPosix
package import Wire

/// getaddrinfo, on NIO's blocking threads: it may take seconds and must not hold a thread of the cooperative pool.
package enum HostResolver {
  /// All addresses of `host` (a name, IPv4, or IPv6 with or without brackets) with `port`, in the system's order.
  package static func endpoints(
    host: String, port: UInt16, pool: NIOThreadPool = .singleton
  ) async throws(DirectoryError) -> [Endpoint] {
    let bare = host.hasPrefix("[") && host.hasSuffix("]") ? String(host.dropFirst().dropLast()) : host
    if let address = IPv6Address(bare) { return [Endpoint(address: address, port: port)] }
    let answer: Answer
    do {
      answer = try await pool.runIfActive { lookUp(bare) }
    } catch {
      answer = .failure("\(error)")
    }
    switch answer {
    case .addresses(let addresses): return addresses.map { Endpoint(address: $0, port: port) }
    case .failure(let text):
      throw DirectoryError(
        .registryUnreachable, "the host name \(bare) does not resolve: \(text)",
        hint: "check the name, or give the IP address")
    }
  }

  private enum Answer: Sendable {
    case addresses([IPv6Address])
    case failure(String)
  }

  private static func lookUp(_ host: String) -> Answer {
    var hints = addrinfo()
    hints.ai_family = AF_UNSPEC
    hints.ai_socktype = Int32(SOCK_DGRAM.rawValue)
    var list: UnsafeMutablePointer<addrinfo>?
    let result = getaddrinfo(host, nil, &hints, &list)
    guard result == 0 else { return .failure(String(cString: gai_strerror(result))) }
    defer { freeaddrinfo(list) }
    var addresses: [IPv6Address] = []
    var entry = list
    while let current = entry {
      // SAFETY: getaddrinfo fills ai_addr with the structure that its family names.
      if let raw = UnsafeRawPointer(current.pointee.ai_addr), let address = IPv6Address(socketAddress: raw) {
        addresses.append(address)
      }
      entry = current.pointee.ai_next
    }
    return addresses.isEmpty ? .failure("it has no address") : .addresses(addresses)
  }
}
