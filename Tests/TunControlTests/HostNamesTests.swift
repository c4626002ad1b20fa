// Telling the machine who answers names: the file of `dns = file:PATH`, what is read of the system, what is said.

import Foundation
import Glibc
import Naming
import Testing
import Wire

@testable import TunControl

@Suite("Names on this machine")
struct HostNamesTests {
  /// Runs with a folder of its own.
  private func inFolder(_ body: (String) throws -> Void) throws {
    let folder = NSTemporaryDirectory() + "pilot-names-\(getpid())-\(UInt32.random(in: 0...(.max)))"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    try body(folder)
  }

  private func write(_ text: String, _ path: String) throws { try SmallFile.write(Array(text.utf8), to: path) }
  private func read(_ path: String) throws -> String { String(decoding: try SmallFile.read(path), as: UTF8.self) }

  @Test(
    "a file gets our server in front and is byte for byte as before afterwards",
    arguments: ["nameserver 192.0.2.1\n", "search x\nnameserver 192.0.2.1", "", "\n\n# only\r\ncomments"])
  func roundTrip(before: String) throws {
    try inFolder { folder in
      let path = folder + "/resolv.conf"
      try write(before, path)
      chmod(path, 0o640)
      let file = try ResolverFile(path)
      #expect(try file.install())
      #expect(try !file.install(), "once is enough")
      let during = try read(path)
      let servers = during.split(separator: "\n").filter { $0.hasPrefix("nameserver") }
      #expect(servers.first == "nameserver fd50:494c:4f54:ffff::53" && during.hasSuffix(before))
      try file.remove()
      #expect(try read(path) == before)
      var status = stat()
      #expect(stat(path, &status) == 0 && status.st_mode & 0o7777 == 0o640, "owner and mode stay")
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["resolv.conf"], "and nothing beside it")
    }
  }

  @Test("a file that was not there goes again, unless someone put something into it")
  func made() throws {
    try inFolder { folder in
      let path = folder + "/resolv.conf"
      let file = try ResolverFile(path)
      try file.install()
      #expect(try read(path).contains("made by pilot-tun"))
      try file.remove()
      #expect(!SmallFile.exists(path))
      try file.install()
      try write(try read(path) + "nameserver 192.0.2.1\n", path)
      try file.remove()
      #expect(try read(path) == "nameserver 192.0.2.1\n")
    }
  }

  @Test("what others write meanwhile stays; lines of ours that they changed are theirs")
  func edited() throws {
    try inFolder { folder in
      let path = folder + "/resolv.conf"
      try write("nameserver 192.0.2.1\n", path)
      let file = try ResolverFile(path)
      try file.install()
      try write("# dhcp\n" + (try read(path)) + "options edns0\n", path)
      try file.remove()
      #expect(try read(path) == "# dhcp\nnameserver 192.0.2.1\noptions edns0\n")
      try file.install()
      let mine = try read(path).replacing("ffff::53", with: "ffff::54")
      try write(mine, path)
      try file.remove()
      #expect(try read(path) == mine)
    }
  }

  @Test("links lead to the file they name; folders, links to nowhere and resolved's own file are refused")
  func refused() throws {
    try inFolder { folder in
      try write("nameserver 192.0.2.1\n", folder + "/real")
      symlink("real", folder + "/link")
      symlink("nothing", folder + "/dangling")
      symlink("/run/systemd/resolve/stub-resolv.conf", folder + "/stub")
      #expect(try ResolverFile(folder + "/link").path.hasSuffix("/real"))
      try ResolverFile(folder + "/link").install()
      #expect(try FileManager.default.destinationOfSymbolicLink(atPath: folder + "/link") == "real")
      for wrong in [folder, folder + "/dangling", folder + "/no/such"] {
        let error = #expect(throws: ControlError.self) { try ResolverFile(wrong) }
        #expect(error?.code == "resolver_file_unusable" && error?.isUsage == true && error?.hint != nil)
      }
      if SmallFile.exists("/run/systemd/resolve/stub-resolv.conf") {
        let error = #expect(throws: ControlError.self) { try ResolverFile(folder + "/stub") }
        #expect(error?.code == "resolver_file_refused")
      }
    }
  }

  @Test("after a crash the note in the state directory leads to the file; one that makes no sense does not")
  func note() throws {
    try inFolder { folder in
      let note = ResolverFileNote(stateDirectory: folder)
      #expect(note.read() == nil)
      let path = folder + "/resolv.conf"
      try write("nameserver 192.0.2.1\n", path)
      let file = try ResolverFile(path)
      try note.write(file)
      #expect(note.read()?.path == file.path)
      note.clear()
      #expect(note.read() == nil)
      for wrong in ["", "resolv.conf\0", folder, String(repeating: "/x", count: 3000)] {
        try write(wrong, note.path)
        #expect(note.read() == nil, "\(wrong.prefix(20))")
      }
    }
  }

  @Test("the setting names a way or a file with its whole path")
  func setting() {
    let known: [(String, DNSMode)] = [
      ("auto", .auto), ("Resolved", .resolved), ("off", .off), ("file:/etc/resolv.conf", .file("/etc/resolv.conf")),
    ]
    for (text, mode) in known {
      #expect(DNSMode(text) == mode)
      #expect(DNSMode(mode.description) == mode)
    }
    for wrong in ["", "file:", "file:resolv.conf", "file:/etc/", "file", "/etc/resolv.conf", "on"] {
      #expect(DNSMode(wrong) == nil, "\(wrong)")
    }
  }

  @Test("resolved's sockets are found by their user in the kernel's list, whatever else is in it")
  func sockets() {
    let head = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    func list(_ user: String) -> [UInt8] {
      Array(
        (head + " 4787: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   \(user)        0 61\n")
          .utf8)
    }
    #expect(ResolvedPlace.holdsSocket(user: 989, list: list("989")))
    #expect(!ResolvedPlace.holdsSocket(user: 989, list: list("990")))
    #expect(!ResolvedPlace.holdsSocket(user: 0, list: list("0")), "root's could be anyone's")
    for wrong in ["", head, head + "1 2 3\n", head + "989 989 989 989 989 989 989 x\n"] {
      #expect(!ResolvedPlace.holdsSocket(user: 989, list: Array(wrong.utf8)))
    }
  }

  @Test("it is seen that programs do not ask resolved")
  func bypass() {
    func bypass(_ resolvConf: String, _ nsswitch: String) -> String? {
      ResolverAdvice.bypass(resolvConf: Array(resolvConf.utf8), nsswitch: Array(nsswitch.utf8))
    }
    #expect(bypass("# x\nnameserver\t127.0.0.53\n", "hosts: files dns") == nil)
    #expect(bypass("nameserver 192.0.2.1\n", "hosts:  files resolve [!UNAVAIL=return] dns\n") == nil)
    #expect(bypass("nameserver 192.0.2.1\n", "hosts: files dns")?.contains("192.0.2.1") == true)
    #expect(bypass("", "")?.contains("nobody") == true)
  }

  @Test("a refusal says who stands in the way and what to do")
  func explanations() {
    func explain(_ name: String, _ text: String = "no", hasPolkit: Bool = true) -> ControlError? {
      ResolverAdvice.explain(.failed(.init(name: name, text: text)), interface: "pilot0", hasPolkit: hasPolkit)
    }
    #expect(ResolverAdvice.explain(.configured, interface: "pilot0") == nil)
    let denied = "org.freedesktop.DBus.Error.AccessDenied"
    #expect(explain(denied)?.hint?.contains("50-pilot-tun.rules") == true)
    #expect(explain(denied, hasPolkit: false)?.hint?.contains("install polkitd") == true)
    #expect(explain("org.freedesktop.resolve1.LinkBusy")?.hint?.contains("Unmanaged=yes") == true)
    #expect(explain("", "another program keeps changing")?.hint?.contains("NetworkManager") == true)
    #expect(explain("org.freedesktop.DBus.Error.Timeout")?.code == "resolved_refused")
    for state in [.absent, .noBus("no such file"), .elsewhere("serves another one")] as [ResolvedMachine.State] {
      let error = ResolverAdvice.explain(state, interface: "pilot0")
      #expect(error?.code == "resolved_unavailable" && error?.hint != nil, "\(state)")
    }
    #expect(explain("org.freedesktop.DBus.Error.Timeout")?.hint != nil)
  }
}
