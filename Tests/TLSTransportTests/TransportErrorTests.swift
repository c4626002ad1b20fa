// Errors of the TLS transport are shown by `status` and `netcheck`: each has to say what to do.

import Testing

@testable import TLSTransport

@Suite("Errors of the TLS transport") struct TransportErrorTests {
  @Test("every code has a hint, also where the place that failed gives none", arguments: TransportError.Code.allCases)
  func hints(code: TransportError.Code) {
    #expect(TransportError(code, "it failed").hint?.isEmpty == false)
    #expect(TransportError(code, "it failed", hint: "its own").hint == "its own")
  }
}
