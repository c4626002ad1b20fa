import Testing

@testable import LinkIO

@Suite struct LinkErrorTests {
  @Test func namesTheCallTheErrorNumberAndTheRemedy() {
    let error = LinkError.failed("ioctl(TUNSETIFF)", Int32(-1), "Cannot create interface pilot0")
    #expect(error.code == "net_admin_missing")
    #expect(error.message == "Cannot create interface pilot0: ioctl(TUNSETIFF) failed with EPERM (1)")
    #expect(error.hint?.contains("CAP_NET_ADMIN") == true)
  }

  @Test func anUnusualErrorNumberHasItsNameAndAHint() {
    let error = LinkError.failed("bind", Int32(-105), "Cannot bind")
    #expect(error.code == "kernel_call_failed")
    #expect(error.message.contains("ENOBUFS (105)"))
    #expect(error.hint?.contains("bugreport") == true)
    #expect(ErrorNumber.text(4000) == "errno 4000")
  }
}
