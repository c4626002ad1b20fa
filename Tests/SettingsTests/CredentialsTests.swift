// Files with secrets: what the hint says when one cannot be opened.

import Glibc
import Testing

@testable import Settings

@Suite("Files with secrets")
struct CredentialsTests {
  @Test("a file of another user's names the service manager as the way, a missing one does not")
  func hints() {
    let path = "/etc/pilot-rendezvous/ops"
    let refused = Credentials.hint(opening: path, failed: EACCES)
    #expect(refused.contains("LoadCredential=ops:\(path)") && refused.contains("chown"))
    let fault = #expect(throws: SecretFault.self) { try Credentials().secret(at: "/nonexistent/token") }
    #expect(fault?.message.contains("/nonexistent/token cannot be used: No such file") == true)
    #expect(fault?.hint.contains("LoadCredential") == false)
  }
}
