// One entry point for the parsers of TLSTransport: proxies as they are written, what a credentials command prints, and the
// texts of the authentication. TLSTransportTests replays the corpus and seeded mutations of it.

import TLSTransport
import Wire

typealias RoomEntry = TransportEntry

/// The parsers, by the name of their corpus folder.
enum TransportEntry: String, CaseIterable {
  case transport

  /// Of each seed, in the room's tests.
  static let mutations = 20_000

  /// Gives the bytes to each of them. nil: it held what it promises; else the promise that was broken.
  func violation(_ bytes: [UInt8]) -> String? {
    let text = String(decoding: bytes, as: UTF8.self)
    if let address = try? ProxyAddress(parsing: text) {
      guard !address.host.isEmpty, address.port != 0 else { return "a proxy without host or port" }
      guard let again = try? ProxyAddress(parsing: address.description) else { return "what is shown is not read" }
      guard again.host == address.host, again.port == address.port, again.credentials == nil else {
        return "what is shown is another proxy"
      }
    }
    if let credentials = ProxyCredentials(printed: text), "\(credentials)" != "proxy credentials" {
      return "credentials are shown"
    }
    let exceptions = ProxyExceptions(text)
    guard exceptions.contains("localhost", port: 1), exceptions.contains("::1", port: 1) else {
      return "this machine is reached through the proxy"
    }
    if let message = CompatAuthentication(bytes) {
      guard CompatAuthentication(Array(message.text.utf8)) == message else { return "what is written is not read" }
    }
    return nil
  }
}
