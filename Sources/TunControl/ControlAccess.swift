// Who may do what on the control socket. The decision is pure; the kernel vouches for the credentials (SO_PEERCRED,
// SO_PEERGROUPS, unix(7)). Used by ControlServer.

/// Who opened the connection, as the kernel saw it.
package struct PeerCredentials: Equatable, Sendable {
  package var user: UInt32
  /// Effective group and supplementary groups.
  package var groups: Set<UInt32>

  package init(user: UInt32, groups: Set<UInt32>) {
    self.user = user
    self.groups = groups
  }
}

package enum ControlAccess: Equatable, Sendable {
  case everything
  case statusOnly

  /// Root, the node's own user, and members of the operators' group may do everything.
  package static func of(_ peer: PeerCredentials, nodeUser: UInt32, operatorsGroup: UInt32?) -> ControlAccess {
    if peer.user == 0 || peer.user == nodeUser { return .everything }
    if let operatorsGroup, peer.groups.contains(operatorsGroup) { return .everything }
    return .statusOnly
  }

  package func check(_ verb: ControlVerb) throws(ControlError) {
    guard self == .statusOnly, !verb.isOpenToAll else { return }
    throw ControlError(
      "permission_denied", "this user may only read the status of the node",
      hint: "run it as root or as the node's user, or join the group pilot-tun (usermod -aG pilot-tun USER)")
  }

  /// `name:password:number:members`, group(5).
  package static func groupNumber(of name: String, in file: String) -> UInt32? {
    for line in file.split(separator: "\n") {
      let fields = line.split(separator: ":", omittingEmptySubsequences: false)
      if fields.count >= 3, fields[0] == name { return UInt32(fields[2]) }
    }
    return nil
  }

  package static let operatorsGroupName = "pilot-tun"

  /// The id of the operators' group, when the machine has one. Only `/etc/group` is read: the name service would load
  /// libraries into the node and may wait for a network that the node itself is to bring.
  package static func operatorsGroup(named name: String = operatorsGroupName) -> UInt32? {
    guard let bytes = try? SmallFile.read("/etc/group") else { return nil }
    return groupNumber(of: name, in: String(decoding: bytes, as: UTF8.self))
  }
}
