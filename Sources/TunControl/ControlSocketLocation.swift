// Where the control socket is, for tools that talk to a running node: flag, environment, file, default.

import Glibc

package enum ControlSocketLocation {
  /// - flag: `--control-socket`.
  /// - configurationPath: `--config`, or nil for the default file. A default file that this user may not read counts
  ///   as absent; one that is wrong is an error, as it is for the node.
  package static func resolve(
    flag: String?, configurationPath: String? = nil, environment: [String: String]
  ) throws(ControlError) -> String {
    var layers = ConfigurationLayers(flags: flag.map { [.controlSocket: [$0]] } ?? [:], environment: environment)
    if layers.value(of: .controlSocket) == nil {
      do {
        layers.file = try ConfigurationFile.load(named: configurationPath, environment: environment)
      } catch {
        let isNamed = configurationPath != nil || environment[ConfigurationFile.environmentName] != nil
        guard error.code == "configuration_unreadable", !isNamed else { throw error }
      }
    }
    var path = NodeConfiguration().controlSocket
    // A user's own node (`pilot-tun run`) before the machine's.
    if geteuid() != 0, let own = UserPaths.controlSocket(environment), SmallFile.exists(own) { path = own }
    try SettingReader(layers: layers).path(.controlSocket, into: &path)
    return path
  }
}
