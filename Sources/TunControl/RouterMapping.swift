// UPnP calls, which block for seconds, each on a thread of its own. Called by Node+PortMapping and netcheck.

import PortMapping
import UPnPClient
import Wire

enum RouterMapping {
  static func map(_ request: UPnPRequest, at network: MappingNetwork) async -> UPnPAnswer {
    guard let gateway = network.server.address.mappedIPv4, let local = network.local.mappedIPv4 else {
      return .failed("UPnP needs IPv4")
    }
    let call = { @Sendable () -> UPnPAnswer in
      switch request {
      case .map(let internalPort, let externalPort, _, let lifetime):
        var port = externalPort
        var address: UInt32 = 0
        var problem = ProblemText()
        let result = problem.fill { text, size in
          pt_upnp_map(gateway, local, internalPort, lifetime, &address, &port, text, size)
        }
        guard result == 0 else { return .failed(TextForms.plain(problem.text)) }
        return .mapped(Endpoint(address: IPv6Address(mappedIPv4: address), port: port))
      case .unmap(let externalPort):
        return pt_upnp_unmap(gateway, local, externalPort) == 0 ? .failed("given back") : .failed("not given back")
      }
    }
    do {
      return try await DedicatedThread.run("pilot-upnp", call)
    } catch {
      return .failed(error.message)
    }
  }

  /// nil: there is such a router; else why not.
  static func problem(at network: MappingNetwork) async -> String? {
    guard let gateway = network.server.address.mappedIPv4, let local = network.local.mappedIPv4 else {
      return "no IPv4"
    }
    do {
      return try await DedicatedThread.run("pilot-upnp") { () -> String? in
        var problem = ProblemText()
        let result = problem.fill { text, size in pt_upnp_find(gateway, local, text, size) }
        return result == 0 ? nil : problem.text
      }
    } catch {
      return error.message
    }
  }

  /// Room for a text that C writes.
  private struct ProblemText {
    private var bytes = [CChar](repeating: 0, count: 128)

    mutating func fill(_ body: (UnsafeMutablePointer<CChar>?, Int) -> Int32) -> Int32 {
      bytes.withUnsafeMutableBufferPointer { body($0.baseAddress, $0.count) }
    }

    var text: String { String(decoding: bytes.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self) }
  }
}
