// The TUN device: opened with the virtio-net header, offloads asked for stepwise. Opened by control, owned by a worker.

import Shim

/// One queue of a TUN interface. Not persistent: the interface goes when the last descriptor closes, also on SIGKILL.
package struct TunDevice: ~Copyable {
  /// Non-blocking. Every read and write carries one packet, behind a virtio-net header when `hasVnetHeader`.
  package let fd: Int32
  /// As the kernel gave it.
  package let name: String
  package let index: UInt32
  /// Whether 10 bytes of virtio-net header (host order) stand before each packet.
  package let hasVnetHeader: Bool
  package private(set) var offloads: [OffloadState]
  private let isMultiQueue: Bool

  /// Creates the interface `name` (at most 15 bytes); one of that name must not exist.
  ///
  /// `disabled` holds names of `OffloadState` that are not asked for: `tun-csum` takes `tun-tso` and `tun-uso` with it,
  /// `tun-vnet` takes all. What the kernel refuses is given up step by step and told in `offloads`.
  package init(
    name: String, disabled: Set<String> = [], isMultiQueue: Bool = false
  ) throws(LinkError) {
    try Self.check(name: name)
    let mode = isMultiQueue ? PT_TUN_FIRST_QUEUE : PT_TUN_SINGLE_QUEUE
    var plan = TunOffloadPlan(disabled: disabled)
    if plan.wantsVnetHeader {
      do {
        let queue = try Self.open(name: name, vnetHeader: true, mode: mode)
        if plan.negotiate(queue.fd) {
          self = try TunDevice(queue: queue, hasVnetHeader: true, offloads: plan.states, isMultiQueue: isMultiQueue)
          return
        }
        pt_close(queue.fd)
      } catch {
        // Only the header itself may have been refused; every other cause would come again without it.
        guard error.kind == .kernelCallFailed, error.number == ErrorNumber.invalid else { throw error }
        plan.giveUpVnetHeader("the kernel refused the virtio-net header: \(ErrorNumber.text(error.number))")
      }
    }
    let queue = try Self.open(name: name, vnetHeader: false, mode: mode)
    self = try TunDevice(queue: queue, hasVnetHeader: false, offloads: plan.states, isMultiQueue: isMultiQueue)
  }

  /// Goes on with an interface that an earlier run made and left open: no carrier is lost, addresses and routes stay. The
  /// descriptor is this value's from now on; it is closed when it does not fit.
  ///
  /// Errors: `descriptorUnusable` when it is no TUN, or one of another name, or has the header although `disabled` says
  /// that it shall not, or its interface is gone.
  package init(adopting descriptor: Int32, name: String, disabled: Set<String> = []) throws(LinkError) {
    var final: (UInt64, UInt64) = (0, 0)
    var header: UInt32 = 0
    let result = withUnsafeMutableBytes(of: &final) {
      pt_tun_adopt(descriptor, $0.baseAddress?.assumingMemoryBound(to: CChar.self), &header)
    }
    let found = withUnsafeBytes(of: final) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    var plan = TunOffloadPlan(disabled: disabled)
    if result == 0, header == 0, plan.wantsVnetHeader {
      plan.giveUpVnetHeader("the interface was made without it, by an earlier run")
    }
    let isUsable = result == 0 && found == name && (header != 0) == plan.wantsVnetHeader
    guard isUsable, header == 0 || plan.negotiate(descriptor) else {
      pt_close(descriptor)
      throw LinkError(
        .descriptorUnusable, call: "ioctl(TUNGETIFF)", number: -result,
        context: result == 0 ? "The interface kept from the last run is \(found)" : "What was kept is no TUN interface",
        hint: LinkError.descriptorHint)
    }
    self = try TunDevice(
      queue: (descriptor, found), hasVnetHeader: header != 0, offloads: plan.states, isMultiQueue: false)
  }

  /// The interface of a descriptor; nil: it is no TUN interface.
  package static func interfaceName(of descriptor: Int32) -> String? {
    var final: (UInt64, UInt64) = (0, 0)
    var header: UInt32 = 0
    let result = withUnsafeMutableBytes(of: &final) {
      pt_tun_adopt(descriptor, $0.baseAddress?.assumingMemoryBound(to: CChar.self), &header)
    }
    guard result == 0 else { return nil }
    return withUnsafeBytes(of: final) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
  }

  /// A further queue of a device that was opened with `isMultiQueue`, with the same header and offloads.
  package init(furtherQueueOf first: borrowing TunDevice) throws(LinkError) {
    let queue = try Self.open(name: first.name, vnetHeader: first.hasVnetHeader, mode: PT_TUN_FURTHER_QUEUE)
    self = try TunDevice(
      queue: queue, hasVnetHeader: first.hasVnetHeader, offloads: first.offloads, isMultiQueue: true)
  }

  private init(
    queue: (fd: Int32, name: String), hasVnetHeader: Bool, offloads: [OffloadState], isMultiQueue: Bool
  ) throws(LinkError) {
    let index = pt_link_index(queue.name)
    guard index > 0 else {
      pt_close(queue.fd)
      throw LinkError.failed("ioctl(SIOCGIFINDEX)", index, "Interface \(queue.name) is gone right after its creation")
    }
    fd = queue.fd
    name = queue.name
    self.index = UInt32(index)
    self.hasVnetHeader = hasVnetHeader
    self.offloads = offloads
    self.isMultiQueue = isMultiQueue
  }

  deinit { pt_close(fd) }

  package func isOn(_ offload: String) -> Bool { offloads.contains { $0.name == offload && $0.isOn } }

  /// Switches one offload (and those that build on it) off while running. `tun-vnet` cannot go without reopening.
  package mutating func disable(_ offload: String, reason: String) {
    guard hasVnetHeader, offload != "tun-vnet" else { return }
    var off = Set(offloads.filter { !$0.isOn }.map(\.name))
    off.insert(offload)
    var plan = TunOffloadPlan(disabled: off)
    guard plan.negotiate(fd) else { return }
    let before = offloads
    offloads = plan.states.map { state in
      if !state.isOn, let old = before.first(where: { $0.name == state.name }), old.isOn {
        return OffloadState(name: state.name, isOn: false, reason: reason)
      }
      return before.first { $0.name == state.name && !$0.isOn } ?? state
    }
  }

  private static func check(name: String) throws(LinkError) {
    let bytes = Array(name.utf8)
    let isAllowed = bytes.allSatisfy { (33...126).contains($0) && !"/:%".utf8.contains($0) }
    guard (1...15).contains(bytes.count), isAllowed, name != ".", name != "..", name != "all", name != "default" else {
      throw LinkError(
        .interfaceNameInvalid, call: "ioctl(TUNSETIFF)", number: 0, context: "\"\(name)\" cannot name an interface",
        hint: "Use 1 to 15 letters, digits, '-', '_' or '.', for example pilot0.")
    }
  }

  private static func open(
    name: String, vnetHeader: Bool, mode: UInt32
  ) throws(LinkError) -> (fd: Int32, name: String) {
    var final: (UInt64, UInt64) = (0, 0)
    var stage: Int32 = 0
    let result = withUnsafeMutableBytes(of: &final) {
      pt_tun_open(name, vnetHeader ? 1 : 0, mode, $0.baseAddress?.assumingMemoryBound(to: CChar.self), &stage)
    }
    guard result >= 0 else { throw openError(result, stage: stage, name: name) }
    let finalName = withUnsafeBytes(of: final) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    return (result, finalName)
  }

  static func openError(_ result: Int32, stage: Int32, name: String) -> LinkError {
    let context = "Cannot create interface \(name)"
    switch (stage, -result) {
    case (1, ErrorNumber.notPermitted), (1, ErrorNumber.accessDenied):
      return LinkError(
        .tunUnavailable, call: "open(/dev/net/tun)", number: -result, context: context,
        hint: "The device is there but this process may not open it: run it as root, or let users open it "
          + "(`chmod 0666 /dev/net/tun`, as udev does; making interfaces takes other rights); in a container allow the "
          + "device (docker: --device /dev/net/tun --cap-add NET_ADMIN).")
    case (1, ErrorNumber.noEntry), (1, ErrorNumber.noDevice), (1, 6), (1, 20):
      return LinkError(
        .tunUnavailable, call: "open(/dev/net/tun)", number: -result, context: context,
        hint: "Load the module with `modprobe tun`; in a container pass the device in "
          + "(docker: --device /dev/net/tun --cap-add NET_ADMIN).")
    case (1, _):
      return LinkError.failed("open(/dev/net/tun)", result, context)
    case (2, ErrorNumber.busy):
      return LinkError(
        .interfaceNameTaken, call: "ioctl(TUNSETIFF)", number: -result, context: context,
        hint: "An interface of that name exists, perhaps of a node that is already running (`ip link show \(name)`). "
          + "Stop that node, remove the interface with `ip link delete \(name)`, or choose another one (--interface).")
    case (2, _):
      return LinkError.failed("ioctl(TUNSETIFF)", result, context)
    default:
      return LinkError.failed("ioctl(TUNSETVNETHDRSZ)", result, context)
    }
  }
}
