// The TUN device in a network namespace of its own: opened, refused, given back.

import Glibc
import Shim
import Testing

@testable import LinkIO

@Suite struct TunDeviceTests {
  @Test func opensWithTheHeaderAndTheOffloadsOfThisKernel() throws {
    let seen = try inNamespace {
      let device = try TunDevice(name: "ptt0")
      return (device.name, device.index, device.hasVnetHeader, device.offloads, shell("ip -d link show ptt0"))
    }
    #expect(seen.0 == "ptt0")
    #expect(seen.1 > 0)
    #expect(seen.2)
    #expect(seen.3.map(\.name) == ["tun-vnet", "tun-csum", "tun-tso", "tun-uso"])
    #expect(seen.3.filter { $0.name != "tun-uso" }.allSatisfy { $0.isOn && $0.reason == nil })
    #expect(seen.4.contains("tun type tun pi off vnet_hdr on persist off"))
  }

  @Test func nothingIsLeftAfterClosing() throws {
    let links = try inNamespace {
      var links: [String] = []
      do {
        let device = try TunDevice(name: "ptt0")
        links.append(shell("ip -o link show \(device.name)"))
      }
      return links + [shell("ip -o link")]
    }
    #expect(links[0].contains("ptt0"))
    #expect(!links[1].contains("ptt0"))
  }

  @Test func anInterfaceThatWasKeptGoesOn() throws {
    let seen = try inNamespace { () -> (UInt32, UInt32, Bool, String, String) in
      var kept: Int32 = -1
      var index: UInt32 = 0
      do {
        let first = try TunDevice(name: "ptt0")
        _ = shell("ip link set ptt0 up && ip -6 address add fd50:494c:4f54::7/128 dev ptt0 nodad")
        index = first.index
        kept = dup(first.fd)
      }
      // The one who made it is gone; its copy keeps carrier and address.
      let between = shell("ip -o -6 address show dev ptt0; ip -o link show ptt0")
      let again = try TunDevice(adopting: kept, name: "ptt0")
      return (index, again.index, again.hasVnetHeader && again.isOn("tun-tso"), between, shell("ip -o link show ptt0"))
    }
    #expect(seen.0 == seen.1 && seen.2)
    #expect(seen.3.contains("fd50:494c:4f54::7") && seen.3.contains("LOWER_UP"), "\(seen.3)")
    #expect(seen.4.contains("LOWER_UP"), "\(seen.4)")
  }

  @Test func whatIsNoTunOrAnotherOneIsRefusedAndClosed() throws {
    let seen = try inNamespace { () -> [String] in
      var seen: [String] = []
      func refuse(_ descriptor: Int32, _ name: String, _ disabled: Set<String> = []) {
        let error = linkError { _ = try TunDevice(adopting: descriptor, name: name, disabled: disabled) }
        seen.append("\(error?.kind.rawValue ?? "taken") \(fcntl(descriptor, F_GETFD) < 0)")
      }
      refuse(open("/dev/null", O_RDWR), "ptt0")
      refuse(socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0), "ptt0")
      refuse(open("/dev/net/tun", O_RDWR), "ptt0")
      refuse(987, "ptt0")
      let named = try TunDevice(name: "ptt0")
      refuse(dup(named.fd), "ptt1")
      refuse(dup(named.fd), "ptt0", ["tun-vnet"])
      let many = try TunDevice(name: "ptt2", isMultiQueue: true)
      refuse(dup(many.fd), "ptt2")
      let gone = dup(try TunDevice(name: "ptt3").fd)
      _ = shell("ip link delete ptt3")
      refuse(gone, "ptt3")
      return seen
    }
    #expect(seen == Array(repeating: "descriptor_unusable true", count: 8))
  }

  @Test(arguments: [false, true]) func aTakenNameIsRefusedWithARemedy(isMultiQueue: Bool) throws {
    let error = try inNamespace { () -> LinkError? in
      let device = try TunDevice(name: "ptt0", isMultiQueue: isMultiQueue)
      return linkError { _ = try TunDevice(name: device.name, isMultiQueue: isMultiQueue) }
    }
    #expect(error?.kind == .interfaceNameTaken)
    #expect(error?.message == "Cannot create interface ptt0: ioctl(TUNSETIFF) failed with EBUSY (16)")
    #expect(error?.hint?.contains("ip link delete ptt0") == true)
  }

  @Test func theNameOfAnotherKindOfInterfaceIsTakenToo() throws {
    let error = try inNamespace { () -> LinkError? in
      return linkError { _ = try TunDevice(name: "lo") }
    }
    #expect(error?.kind == .interfaceNameTaken)
  }

  @Test(arguments: ["", "a-name-with-16-by", "a/b", "a b", "..", "pilot%d", "all"])
  func aNameThatCannotBeIsRefusedBeforeTheKernelSeesIt(name: String) {
    let error = linkError { _ = try TunDevice(name: name) }
    #expect(error?.kind == .interfaceNameInvalid)
  }

  @Test(arguments: [
    (["tun-uso"], ["tun-vnet", "tun-csum", "tun-tso"]), (["tun-tso"], ["tun-vnet", "tun-csum", "tun-uso"]),
    (["tun-csum"], ["tun-vnet"]), (["tun-vnet"], []),
  ])
  func offloadsCanBeForcedOff(disabled: [String], left: [String]) throws {
    let (offloads, hasHeader) = try inNamespace {
      let device = try TunDevice(name: "ptt0", disabled: Set(disabled))
      return (device.offloads, device.hasVnetHeader)
    }
    #expect(offloads.filter(\.isOn).map(\.name) == left)
    #expect(offloads.filter { !$0.isOn }.allSatisfy { $0.reason != nil })
    #expect(offloads.first { $0.name == disabled[0] }?.reason == "switched off by configuration")
    #expect(hasHeader == !disabled.contains("tun-vnet"))
  }

  @Test func anOffloadCanBeSwitchedOffWhileRunning() throws {
    let offloads = try inNamespace {
      var device = try TunDevice(name: "ptt0")
      device.disable("tun-tso", reason: "a write was refused")
      return device.offloads
    }
    #expect(offloads.contains(OffloadState(name: "tun-tso", isOn: false, reason: "a write was refused")))
    #expect(offloads.contains(OffloadState(name: "tun-csum", isOn: true)))
  }

  @Test func aFurtherQueueJoinsTheDevice() throws {
    let (same, link) = try inNamespace {
      let first = try TunDevice(name: "ptt0", isMultiQueue: true)
      let second = try TunDevice(furtherQueueOf: first)
      return (first.index == second.index && first.fd != second.fd, shell("ip -d link show ptt0"))
    }
    #expect(same)
    #expect(link.contains("multi_queue numqueues 2"))
  }

  @Test func withoutTheCapabilityTheRemedyNamesIt() {
    let error = TunDevice.openError(-1, stage: 2, name: "pilot0")
    #expect(error.kind == .netAdminMissing)
    #expect(error.hint?.contains("CAP_NET_ADMIN") == true)
  }

  @Test func withoutTheDeviceTheRemedyNamesTheModule() throws {
    let error = try inNamespace(mounts: true) { () -> LinkError? in
      let output = shell("mount -t tmpfs tmpfs /dev/net")
      guard output.isEmpty else { throw NamespaceError(description: output) }
      return linkError { _ = try TunDevice(name: "ptt0") }
    }
    #expect(error?.kind == .tunUnavailable)
    #expect(error?.message == "Cannot create interface ptt0: open(/dev/net/tun) failed with ENOENT (2)")
    #expect(error?.hint?.contains("modprobe tun") == true)
  }
}

@Suite struct TunOffloadPlanTests {
  /// A kernel that refuses any request with one of these bits.
  private func negotiate(refusing bits: UInt32, disabled: Set<String> = []) -> (TunOffloadPlan, Bool, [UInt32]) {
    var plan = TunOffloadPlan(disabled: disabled)
    var asked: [UInt32] = []
    let isAccepted = plan.negotiate { wanted in
      asked.append(wanted)
      return wanted & bits == 0 ? 0 : -ErrorNumber.invalid
    }
    return (plan, isAccepted, asked)
  }

  private let uso = PT_TUN_USO4 | PT_TUN_USO6
  private let tso = PT_TUN_TSO4 | PT_TUN_TSO6

  @Test func asksForEverythingFirst() {
    let (plan, isAccepted, asked) = negotiate(refusing: 0)
    #expect(isAccepted)
    #expect(asked == [PT_TUN_CSUM | tso | uso])
    #expect(plan.states.allSatisfy { $0.isOn })
  }

  @Test func givesUpUSOThenTSOThenChecksums() {
    #expect(negotiate(refusing: uso).2 == [PT_TUN_CSUM | tso | uso, PT_TUN_CSUM | tso])
    #expect(negotiate(refusing: tso).2.last == PT_TUN_CSUM)
    let (plan, isAccepted, asked) = negotiate(refusing: PT_TUN_CSUM)
    #expect(isAccepted)
    #expect(asked.last == 0)
    #expect(plan.states.map(\.isOn) == [true, false, false, false])
    #expect(plan.states[1].reason == "the kernel refused it: EINVAL (22)")
  }

  @Test func withoutAnyAnswerTheHeaderGoesToo() {
    var plan = TunOffloadPlan(disabled: [])
    let isAccepted = plan.negotiate { _ in -25 }
    #expect(!isAccepted)
    #expect(plan.states.allSatisfy { !$0.isOn && $0.reason != nil })
  }
}
