// A user namespace for a process without rights: inside it may make network namespaces and interfaces, outside it stays
// what it was. Entered by TunControl's WrappedCommand, once, before the process has a second thread.

import Shim

package enum UserNamespace {
  /// Moves this process into a user namespace of its own, in which its user and group keep their numbers
  /// (user_namespaces(7)). The process must have one thread.
  package static func enter() throws(LinkError) {
    var stage: Int32 = 0
    let result = pt_user_namespace_enter(&stage)
    guard result == 0 else { throw refusal(number: -result, stage: stage) { KernelSetting(path: $0).read().text } }
  }

  /// Why the kernel refused, as far as its settings tell. `setting` reads a file under /proc/sys; "" when there is none.
  static func refusal(number: Int32, stage: Int32, setting: (String) -> String) -> LinkError {
    let call = stage == PT_ENTER_UNSHARE ? "unshare(CLONE_NEWUSER)" : "write(/proc/self/uid_map)"
    let hint: String
    if setting("/proc/sys/user/max_user_namespaces") == "0" || number == ErrorNumber.noSpace {
      hint =
        "The limit of user namespaces is reached or 0: `sysctl user.max_user_namespaces=16384` as root allows them."
    } else if setting("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
      hint = "This system keeps them from users: `sysctl kernel.unprivileged_userns_clone=1` as root allows them."
    } else if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
      hint =
        "AppArmor keeps them from programs without a profile: give pilot-tun the profile in docs/rootless.md, "
        + "or `sysctl kernel.apparmor_restrict_unprivileged_userns=0` as root allows them to all."
    } else if number == ErrorNumber.invalid || number == ErrorNumber.notImplemented {
      hint = "This kernel is built without them (CONFIG_USER_NS): run the node as root, `pilot-tun up`."
    } else {
      hint =
        "Inside a container its policy (seccomp) or a chroot may keep them away: run `pilot-tun run` outside, "
        + "or give the container NET_ADMIN and /dev/net/tun and use `pilot-tun up`."
    }
    return LinkError(
      .userNamespaceUnavailable, call: call, number: number,
      context: "This user cannot have a network of its own (a user namespace)", hint: hint)
  }
}

/// A network namespace of our own, made and entered by threads.
package enum NetworkNamespace {
  /// Moves the calling thread into a new one, with `lo` up, and returns its descriptor. Programs in there may listen on
  /// any port and ping: nobody else's ports are there, and the rights for it are those of this namespace alone.
  package static func make() throws(LinkError) -> Int32 {
    let made = pt_unshare_network(0)
    guard made == 0 else { throw refusal(made, "unshare(CLONE_NEWNET)") }
    let descriptor = pt_network_namespace_open()
    guard descriptor >= 0 else { throw refusal(descriptor, "open(/proc/thread-self/ns/net)") }
    do {
      try LinkConfigurator().raiseLoopback()
    } catch {
      pt_close(descriptor)
      throw error
    }
    // Comfort: without these only root's ports, or ping, are missing inside.
    _ = KernelSetting(path: "/proc/sys/net/ipv4/ip_unprivileged_port_start").write("0")
    let group = pt_effective_group()
    _ = KernelSetting(path: "/proc/sys/net/ipv4/ping_group_range").write("\(group) \(group)")
    return descriptor
  }

  /// Moves the calling thread into it, for good.
  package static func enter(_ descriptor: Int32) throws(LinkError) {
    let result = pt_network_namespace_enter(descriptor)
    guard result == 0 else { throw refusal(result, "setns(CLONE_NEWNET)") }
  }

  private static func refusal(_ result: Int32, _ call: String) -> LinkError {
    let limit = "The limit of network namespaces is reached: `sysctl user.max_net_namespaces=16384` as root raises it."
    return LinkError(
      .userNamespaceUnavailable, call: call, number: -result,
      context: "This user cannot have a network of its own (a network namespace)",
      hint: -result == ErrorNumber.noSpace
        ? limit : UserNamespace.refusal(number: -result, stage: 0) { KernelSetting(path: $0).read().text }.hint)
  }
}
