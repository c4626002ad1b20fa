// Which TUN offloads to ask for, in which order to give them up, and what to tell about it. Used by TunDevice.

import Shim

/// The ladder of `TUNSETOFFLOAD`: everything, without USO (kernels before 6.2), checksums only, nothing.
struct TunOffloadPlan {
  private(set) var states: [OffloadState]

  init(disabled: Set<String>) {
    let off = "switched off by configuration"
    var above: String?
    states = ["tun-vnet", "tun-csum", "tun-tso", "tun-uso"].map { name in
      let reason: String? = disabled.contains(name) ? off : above.map { "needs \($0)" }
      // Segmentation builds on checksums, checksums on the header; USO does not build on TSO.
      if reason != nil, name == "tun-vnet" || name == "tun-csum" { above = above ?? name }
      return OffloadState(name: name, isOn: reason == nil, reason: reason)
    }
  }

  var wantsVnetHeader: Bool { isOn("tun-vnet") }

  /// Asks the kernel, from the most to the least. False: even asking for nothing is refused, reopen without header.
  mutating func negotiate(_ fd: Int32) -> Bool {
    negotiate { pt_tun_set_offload(fd, $0) }
  }

  /// As above, with the call given by the caller.
  mutating func negotiate(_ ask: (UInt32) -> Int32) -> Bool {
    while true {
      let result = ask(bits)
      if result == 0 { return true }
      let reason = "the kernel refused it: \(ErrorNumber.text(-result))"
      if let next = ["tun-uso", "tun-tso", "tun-csum"].first(where: { isOn($0) }) {
        giveUp(next, reason)
      } else {
        giveUpVnetHeader(reason)
        return false
      }
    }
  }

  mutating func giveUpVnetHeader(_ reason: String) {
    for name in ["tun-uso", "tun-tso", "tun-csum"] { giveUp(name, "needs tun-vnet") }
    giveUp("tun-vnet", reason)
  }

  private var bits: UInt32 {
    var bits: UInt32 = 0
    if isOn("tun-csum") { bits |= PT_TUN_CSUM }
    if isOn("tun-tso") { bits |= PT_TUN_TSO4 | PT_TUN_TSO6 }
    if isOn("tun-uso") { bits |= PT_TUN_USO4 | PT_TUN_USO6 }
    return bits
  }

  private func isOn(_ name: String) -> Bool { states.contains { $0.name == name && $0.isOn } }

  private mutating func giveUp(_ name: String, _ reason: String) {
    for index in states.indices where states[index].name == name && states[index].isOn {
      states[index].isOn = false
      states[index].reason = reason
    }
  }
}
