// Options that the verbs share, and the way to the running node.

import ArgumentParser
import Directory
import JSON
import TunControl

struct CommonOptions: ParsableArguments {
  @Flag(help: "One JSON object on stdout; failures as JSON on stderr.")
  var json = false

  @Option(help: "Control socket of the node (environment PILOT_TUN_CONTROL_SOCKET).")
  var controlSocket: String?

  @Option(help: "Configuration file that may name the control socket (environment PILOT_TUN_CONFIG).")
  var config: String?

  func client() throws -> ControlClient {
    ControlClient(
      path: try ControlSocketLocation.resolve(
        flag: controlSocket, configurationPath: config, environment: ProcessEnvironment.all))
  }

  /// Asks the node and prints the answer in the wanted form.
  func show(_ request: ControlRequest, timeout: Int = 15, _ form: (JSONValue) -> String) throws {
    Output.show(try client().call(request, timeout: timeout), isJSON: json, form)
  }
}
