import Shim
import Testing

@testable import LinkIO

@Suite("User namespaces")
struct UserNamespaceTests {
  private func hint(_ number: Int32, stage: Int32 = PT_ENTER_UNSHARE, _ settings: [String: String] = [:]) -> String {
    UserNamespace.refusal(number: number, stage: stage) { settings[$0] ?? "" }.hint ?? ""
  }

  @Test("a refusal names the setting that is in the way, the limit before the policies")
  func refusals() {
    let limit = "/proc/sys/user/max_user_namespaces"
    let debian = "/proc/sys/kernel/unprivileged_userns_clone"
    let ubuntu = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
    #expect(hint(1, [limit: "0", debian: "0"]).contains("user.max_user_namespaces"))
    #expect(hint(28, [limit: "5"]).contains("user.max_user_namespaces"))
    #expect(hint(1, [limit: "9", debian: "0"]).contains("unprivileged_userns_clone=1"))
    #expect(hint(1, stage: PT_ENTER_MAP, [limit: "9", ubuntu: "1"]).contains("AppArmor"))
    #expect(hint(1, [limit: "9", debian: "1", ubuntu: "0"]).contains("container"))
    #expect(hint(22).contains("CONFIG_USER_NS"))
  }

  @Test("the call that failed is told")
  func call() {
    let map = UserNamespace.refusal(number: 1, stage: PT_ENTER_MAP) { _ in "" }
    #expect(map.message.contains("write(/proc/self/uid_map) failed with EPERM (1)"))
    #expect(map.code == "user_namespace_unavailable")
  }

  @Test("a process with several threads is refused, not moved")
  func severalThreads() {
    // The test runner has them.
    #expect(throws: LinkError.self) { try UserNamespace.enter() }
  }
}
