// `pilot-tun run` as a user without rights: the command has the overlay, the machine is left alone, nothing stays behind.

import Foundation
import Testing

extension KernelTests {
  @Suite("Rootless")
  struct RootlessTests {
    /// A machine of a fleet with an ordinary user on it.
    struct Desk {
      static let user: UInt32 = 54711
      let namespace: Namespace
      let home: String
      let runtime: String
      var socket: String { runtime + "/pilot-tun/control.sock" }

      init(_ fleet: Fleet, _ name: String = "desk") throws {
        namespace = try fleet.lab.namespace(name)
        _ = try fleet.connect(namespace)
        home = fleet.lab.directory + "/\(name)-home"
        runtime = fleet.lab.directory + "/\(name)-run"
        for folder in [home, runtime] {
          try FileManager.default.createDirectory(
            atPath: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
          #expect(chown(folder, Self.user, Self.user) == 0)
        }
      }

      /// The user's command line; `before` is what root does to the machine first.
      func asUser(_ arguments: [String], before: String = "true") -> [String] {
        [
          "sh", "-c", before + " && exec \"$@\"", "sh", "setpriv", "--reuid", "\(Self.user)", "--regid",
          "\(Self.user)", "--clear-groups", "env", "PATH=/usr/bin:/bin", "HOME=\(home)", "XDG_RUNTIME_DIR=\(runtime)",
        ] + arguments
      }

      func run(_ command: [String], before: String = "true") -> [String] {
        let flags = ["--hostname", "guest", "--rendezvous", Fleet.rendezvousAddress, "--public"]
        return asUser([Tools.tun, "run"] + flags + ["--"] + command, before: before)
      }

      /// The process of `pilot-tun run` itself: everything before it became it by exec.
      func isGone(_ program: Program) -> Bool {
        !program.isRunning && !FileManager.default.fileExists(atPath: socket)
          && !FileManager.default.fileExists(atPath: home + "/.local/state/pilot-tun/resolv.conf")
      }
    }

    @Test("a user's command reaches a node by name and nothing else, and its exit status comes through")
    func reaches() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha")
        let server = try fleet.lab.start(in: alpha.namespace, Tools.python("http_serve", "::", "80", "from alpha"))
        try server.waitForLine(containing: "ready")
        let desk = try Desk(fleet)
        let before = try FileMark(desk.namespace.resolverFile)
        let script = """
          id -u; curl -sS -m 20 http://alpha.pilot/ && ping -c 1 -W 5 alpha.pilot >/dev/null && echo pinged
          \(Tools.tun) status --json | grep -o '"hostname":"guest"' | head -n 1
          curl -sS -m 5 http://\(Fleet.rendezvousAddress):9000/ 2>/dev/null; echo "outside $?"
          grep CapEff /proc/self/status; ip link set pilot0 down 2>/dev/null || echo "no rights"; exit 7
          """
        let outcome = try desk.namespace.run(desk.run(["sh", "-c", script]), within: 60)
        #expect(outcome.status == 7, "\(outcome)")
        for line in [
          "\(Desk.user)", "from alpha", "pinged", "\"hostname\":\"guest\"", "outside 7", "CapEff:\t0000000000000000",
          "no rights",
        ] {
          #expect(outcome.output.split(separator: "\n").contains { $0 == line }, "\(line) is missing: \(outcome)")
        }
        #expect(!FileManager.default.fileExists(atPath: desk.socket))
        #expect(try desk.namespace.command("ip link").contains("pilot0") == false, "the machine has no such interface")
        #expect(try FileMark(desk.namespace.resolverFile) == before, "and keeps its resolv.conf")

        // The identity stays: the next command is the same node.
        let again = try desk.namespace.run(desk.run([Tools.tun, "status", "--json"]), within: 60).orThrow()
        #expect(try JSON(parsing: again.output)["data"]["hostname"].text == "guest")
      }
    }

    @Test("a user's server is reached at its own port by name; signals go to it, and nothing is left after it")
    func serves() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha")
        let desk = try Desk(fleet)
        // A second process stays in the background, in a session of its own, when the server ends.
        let script = "readlink /proc/self/ns/net; setsid sleep 1000 & exec \"$@\""
        let program = try fleet.lab.start(
          in: desk.namespace,
          desk.run(["sh", "-c", script, "sh"] + Tools.python("http_serve", "::", "80", "from the guest")))
        try program.waitForLine(containing: "ready", within: 40)
        #expect(
          try alpha.run(["curl", "-sS", "-m", "20", "http://guest.pilot/"]).orThrow().output == "from the guest\n")
        let status = try desk.namespace.run(desk.asUser([Tools.tun, "status", "--json"])).orThrow()
        let data = try JSON(parsing: status.output)["data"]
        #expect(data["hostname"].text == "guest", "from outside, too")
        #expect(data["interface_in"].text == "command", "where there is no pilot0")
        let shown = try desk.namespace.run(desk.asUser([Tools.tun, "status"])).orThrow().output
        #expect(shown.contains("on pilot0 in the command's own network"), "\(shown)")
        let help = try desk.namespace.run(desk.asUser([Tools.tun, "run", "--help"])).orThrow().output
        #expect(help.contains("~/.config/pilot-tun/config.toml") && !help.contains("/var/lib/pilot-tun"), "\(help)")
        let network = try program.waitForLine(containing: "net:[")
        program.send(SIGTERM)
        let end = try program.wait(within: 20)
        #expect(end.status == 128 + SIGTERM, "the server's end by the signal: \(end)")
        #expect(desk.isGone(program))
        let left = try Lab.host("sh", "-c", "readlink /proc/[0-9]*/ns/net | grep -cxF '\(network)'")
        #expect(left.output == "0\n", "\(left)")
      }
    }

    @Test("a node that is killed takes its command along, and `down` ends both")
    func ends() throws {
      try Fleet.with { fleet in
        let desk = try Desk(fleet)
        for isKilled in [true, false] {
          let mark = fleet.lab.directory + "/desk-home/ended"
          try? FileManager.default.removeItem(atPath: mark)
          let script = "trap 'echo over > \(mark); exit 9' TERM; echo up; while :; do sleep 0.1; done"
          let program = try fleet.lab.start(in: desk.namespace, desk.run(["sh", "-c", script]))
          try program.waitForLine(containing: "up", within: 40)
          if isKilled {
            program.send(SIGKILL)
          } else {
            try desk.namespace.run(desk.asUser([Tools.tun, "down"])).orThrow()
            #expect(try program.wait(within: 20).status == 9)
          }
          _ = try eventually("the command's end") { FileManager.default.fileExists(atPath: mark) ? true : nil }
          _ = try eventually("the socket's end") { desk.isGone(program) ? true : nil }
        }
      }
    }

    @Test("names resolve on a machine where systemd-resolved owns resolv.conf and answers libraries itself")
    func besideResolved() throws {
      try Fleet.with { fleet in
        let alpha = try fleet.node("alpha")
        let desk = try Desk(fleet)
        // The layout of such machines, in the mount namespace of this program alone: /run and /etc are copies.
        let layout = """
          umount /etc/resolv.conf && mount -t tmpfs run /run && mkdir -p /run/systemd/resolve /run/nscd && \
          echo 'nameserver 127.0.0.53' > /run/systemd/resolve/stub-resolv.conf && \
          mount -t tmpfs etc /mnt && cp -a /etc/. /mnt/ && rm -f /mnt/resolv.conf && \
          ln -s ../run/systemd/resolve/stub-resolv.conf /mnt/resolv.conf && mount --move /mnt /etc
          """
        let outcome = try desk.namespace.run(
          desk.run(["sh", "-c", "getent ahosts alpha.pilot; ls /run/nscd /run/systemd/resolve"], before: layout),
          within: 60)
        #expect(outcome.output.contains(alpha.ipv6), "\(outcome)")
        #expect(outcome.output.contains("stub-resolv.conf"), "\(outcome)")
      }
    }

    @Test("what keeps it from starting is explained, and its exit status is not the command's")
    func refusals() throws {
      try Fleet.with { fleet in
        let desk = try Desk(fleet)
        func refused(_ arguments: [String], _ status: Int32, _ text: String) throws {
          let outcome = try desk.namespace.run(arguments, within: 40)
          #expect(outcome.status == status && outcome.errors.contains(text), "\(outcome)")
        }
        try refused(desk.run(["no-such-command"]), 127, "cannot execute no-such-command")
        try refused(desk.run(["/etc/passwd"]), 126, "cannot execute /etc/passwd")
        try refused(desk.asUser([Tools.tun, "run", "--rendezvous", "10.77.1.2"]), 125, "command")
        let device = "mount -t tmpfs t /dev/net && mknod -m 0600 /dev/net/tun c 10 200"
        try refused(desk.run(["true"], before: device), 125, "chmod 0666 /dev/net/tun")
        try refused(desk.run(["true"], before: "mount -t tmpfs t /dev/net"), 125, "modprobe tun")
        // The limit of a user namespace holds for those in it; this one is the test's own.
        let limited = [
          "unshare", "-Ur", "sh", "-c", "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$@\"", "sh", "env",
          "HOME=/nonexistent", Tools.tun, "run", "--state-dir", fleet.lab.directory + "/limited", "--", "true",
        ]
        try refused(limited, 125, "sysctl user.max_user_namespaces")
      }
    }
  }
}
