// Errors of the TLS transport are shown by `status` and `netcheck`: each has to say what to do.

import Testing

@testable import TLSTransport

@Suite("Errors of the TLS transport") struct TransportErrorTests {
  @Test("every code has a hint, also where the place that failed gives none", arguments: TransportError.Code.allCases)
  func hints(code: TransportError.Code) {
    #expect(TransportError(code, "it failed").hint?.isEmpty == false)
    #expect(TransportError(code, "it failed", hint: "its own").hint == "its own")
  }

  @Test("authorities that are named have to be there; SSL_CERT_FILE is told and not used when it is not")
  func authorities() throws {
    var settings = TLSSettings(host: "hub.example.net", port: 443)
    #expect(try TLSDialer(settings).warnings == [])
    settings.environment = ["SSL_CERT_FILE": "/nonexistent.pem"]
    let warnings = try TLSDialer(settings).warnings
    #expect(warnings.count == 1 && warnings.first?.contains("/nonexistent.pem") == true)
    settings.authoritiesFile = "/nonexistent.pem"
    #expect(throws: TransportError.self) { try TLSDialer(settings) }
  }
}
