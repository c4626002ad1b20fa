// Whether the rendezvous is reached by TLS. Part of `pilot-tun netcheck`.

import NIOCore
import NIOPosix
import TLSTransport

extension Netcheck {
  /// A whole handshake and one request: what a node would begin with.
  static func secureReport(_ settings: TLSSettings?) async -> NetcheckReport.Secure? {
    guard let settings else { return nil }
    var report = NetcheckReport.Secure(target: settings.authority, proxy: settings.effectiveProxy?.description)
    do throws(TransportError) {
      let dialer = try TLSDialer(settings)
      let start = Clock.now()
      try await CompatLink.check(dialer, on: MultiThreadedEventLoopGroup.singleton.next())
      report.duration = Clock.now() - start
    } catch {
      report.problem = ControlError(error)
    }
    return report
  }
}
