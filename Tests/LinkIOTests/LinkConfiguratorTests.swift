// Interface configuration in a network namespace of its own, judged by what the kernel and iproute2 say afterwards.

import Shim
import Testing
import Wire

@testable import LinkIO

@Suite struct LinkConfiguratorTests {
  private static let prefix = IPv6Address(high: 0xfd50_494c_4f54_0000, low: 0)
  private static let own = IPv6Address(high: 0xfd50_494c_4f54_0000, low: 0x0001)
  private static let resolver = IPv6Address(high: 0xfd50_494c_4f54_ffff, low: 0x53)

  private static func settings(_ device: borrowing TunDevice) -> LinkSettings {
    LinkSettings(
      name: device.name, index: device.index, mtu: 1400, transmitQueueLength: 250, addresses: [own, resolver],
      routePrefix: prefix)
  }

  /// What `configure` throws for a fresh device, after `prepare` ran in the namespace.
  private static func failure(
    mounts: Bool = false, _ prepare: @escaping @Sendable () throws -> Void
  ) throws -> LinkError? {
    try inNamespace(mounts: mounts) {
      try prepare()
      let device = try TunDevice(name: "ptt0")
      let configurator = try LinkConfigurator()
      return linkError { _ = try configurator.configure(settings(device)) }
    }
  }

  private static func require(_ output: String) throws {
    guard output.isEmpty else { throw NamespaceError(description: output) }
  }

  @Test func theInterfaceIsUpWithMTUAddressesAndRoute() throws {
    let seen = try inNamespace {
      let device = try TunDevice(name: "ptt0")
      let warnings = try LinkConfigurator().configure(Self.settings(device))
      return (
        warnings, shell("ip link show ptt0"), shell("ip -6 address show ptt0"),
        shell("cat /proc/thread-self/net/if_inet6"),
        shell("ip -6 route show fd50:494c:4f54::/48"), shell("ping -6 -c 1 -W 2 fd50:494c:4f54:ffff::53"),
        shell("ip -6 route get fd50:494c:4f54::9")
      )
    }
    #expect(seen.0.isEmpty)
    #expect(seen.1.contains("UP") && seen.1.contains("mtu 1400") && seen.1.contains("qlen 250"))
    #expect(seen.2.contains("inet6 fd50:494c:4f54::1/128 scope global nodad noprefixroute"))
    #expect(seen.2.contains("inet6 fd50:494c:4f54:ffff::53/128"))
    #expect(!seen.2.contains("tentative") && !seen.2.contains("fe80"))
    #expect(seen.3.contains("fd50494c4f5400000000000000000001"))
    #expect(seen.4.contains("dev ptt0 proto static src fd50:494c:4f54::1"))
    #expect(seen.5.contains("1 received"))
    #expect(seen.6.contains("dev ptt0") && seen.6.contains("src fd50:494c:4f54::1"))
  }

  @Test func allOfItGoesWithTheDevice() throws {
    let left = try inNamespace {
      do {
        let device = try TunDevice(name: "ptt0")
        _ = try LinkConfigurator().configure(Self.settings(device))
      }
      return shell("ip -6 route show table all; ip -6 address")
    }
    #expect(!left.contains("fd50"))
    #expect(!left.contains("ptt0"))
  }

  @Test func addressesComeAndGo() throws {
    let added = IPv6Address(high: 0xfd50_494c_4f54_0007, low: 2)
    let seen = try inNamespace {
      let device = try TunDevice(name: "ptt0")
      let configurator = try LinkConfigurator()
      _ = try configurator.configure(Self.settings(device))
      try configurator.add(added, index: device.index, name: device.name)
      try configurator.add(added, index: device.index, name: device.name)
      let with = shell("ip -6 address show ptt0")
      try configurator.remove(added, index: device.index, name: device.name)
      try configurator.remove(added, index: device.index, name: device.name)
      return (with, shell("ip -6 address show ptt0"))
    }
    #expect(seen.0.contains("fd50:494c:4f54:7::2/128"))
    #expect(!seen.1.contains("fd50:494c:4f54:7::2"))
    #expect(seen.1.contains("fd50:494c:4f54::1/128"))
  }

  @Test func configuringAgainKeepsWhatStands() throws {
    let seen = try inNamespace {
      let device = try TunDevice(name: "ptt0")
      let configurator = try LinkConfigurator()
      _ = try configurator.configure(Self.settings(device))
      _ = try configurator.configure(Self.settings(device))
      try Self.require(shell("ip -6 route del fd50:494c:4f54::/48 dev ptt0"))
      _ = try configurator.configure(Self.settings(device))
      return shell("ip -6 route show dev ptt0")
    }
    #expect(seen.split(separator: "\n").filter { $0.contains("fd50:494c:4f54::/48") }.count == 1)
  }

  @Test func anAddressOnAnotherInterfaceIsInUse() throws {
    let error = try Self.failure {
      try Self.require(shell("ip -6 address add fd50:494c:4f54:ffff::53/128 dev lo"))
    }
    #expect(error?.kind == .addressInUse)
    #expect(error?.message.contains("fd50:494c:4f54:ffff::53 is already on interface number 1") == true)
    #expect(error?.hint != nil)
  }

  @Test func aRouteOfAnotherInterfaceIsTold() throws {
    let error = try Self.failure {
      try Self.require(
        shell(
          "ip link add veth0 type veth peer name veth1 && ip link set veth0 up && ip link set veth1 up && "
            + "ip -6 route add fd50:494c:4f54::/48 dev veth0 metric 1024"))
    }
    #expect(error?.kind == .routeTaken)
    #expect(error?.message.contains("EEXIST (17)") == true)
  }

  @Test func disabledIPv6IsEnabledForOurInterfaceAlone() throws {
    let seen = try inNamespace {
      try Self.require(shell("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"))
      try Self.require(shell("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"))
      let device = try TunDevice(name: "ptt0")
      let before = shell("cat /proc/sys/net/ipv6/conf/ptt0/disable_ipv6")
      let warnings = try LinkConfigurator().configure(Self.settings(device))
      return (
        before, warnings, shell("cat /proc/sys/net/ipv6/conf/ptt0/disable_ipv6"),
        shell("cat /proc/sys/net/ipv6/conf/lo/disable_ipv6"), shell("ip -6 address show ptt0")
      )
    }
    #expect(seen.0 == "1\n")
    #expect(seen.2 == "0\n")
    #expect(seen.3 == "1\n", "what is not ours stays as it was")
    #expect(seen.4.contains("fd50:494c:4f54::1/128"))
    #expect(seen.1.map(\.kind) == [.ipv6Disabled], "lo without IPv6 is worth a warning")
    #expect(seen.1.first?.hint?.contains("net.ipv6.conf.lo.disable_ipv6=0") == true)
  }

  @Test func disabledIPv6ThatCannotBeEnabledIsExplained() throws {
    let error = try Self.failure(mounts: true) {
      try Self.require(shell("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"))
      try Self.require(shell("mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys"))
    }
    #expect(error?.kind == .ipv6Disabled)
    #expect(error?.message.contains("EROFS (30)") == true)
    #expect(error?.hint?.contains("disable_ipv6=0") == true)
  }

  @Test func aKernelWithoutIPv6IsExplained() throws {
    let error = try Self.failure(mounts: true) {
      try Self.require(shell("mount -t tmpfs tmpfs /proc/sys/net"))
    }
    #expect(error?.kind == .ipv6Disabled)
    #expect(error?.message.contains("IPv6 is off in this kernel") == true)
    #expect(error?.hint?.contains("ipv6.disable=1") == true)
  }

  @Test func anMTUBelowTheLeastOfIPv6IsRefused() throws {
    let error = try inNamespace { () -> LinkError? in
      let device = try TunDevice(name: "ptt0")
      var settings = Self.settings(device)
      settings.mtu = 1279
      return linkError { _ = try LinkConfigurator().configure(settings) }
    }
    #expect(error?.message.contains("1280") == true)
  }

  @Test func theWatcherTellsWhatChanged() throws {
    let seen = try inNamespace { () -> [LinkWatcher.Changes] in
      let watcher = try LinkWatcher()
      var changes: [LinkWatcher.Changes] = [try watcher.drain()]
      for command in [
        "ip link add veth0 type veth peer name veth1", "ip address add 10.9.8.7/32 dev lo",
        "ip route add blackhole 10.1.1.0/24",
      ] {
        try Self.require(shell(command))
        var fd = watcher.fd
        guard pt_poll(&fd, 1, 5000) == 1 else { throw NamespaceError(description: "nothing was told of \(command)") }
        changes.append(try watcher.drain())
      }
      return changes
    }
    #expect(seen[0].isEmpty)
    #expect(seen[1].contains(.link) && !seen[1].contains(.address))
    #expect(seen[2].contains(.address))
    #expect(seen[3] == .route)
  }
}
