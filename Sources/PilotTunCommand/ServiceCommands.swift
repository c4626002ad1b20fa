// Verbs for service managers: `reload` has the running node read its settings again, `wait-online` waits for the overlay.

import ArgumentParser
import Glibc
import JSON
import TunControl

struct Reload: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Have the running node read its settings again.",
    discussion: """
      Says for each changed setting whether it took effect, needs a restart, or failed. A source with a mistake changes \
      nothing. SIGHUP does the same and tells it in the log.
      """)
  @OptionGroup var common: CommonOptions

  func run() throws {
    let data = try common.client().call(ControlRequest(.reload), timeout: 60)
    Output.show(data, isJSON: common.json, ReloadedSetting.text)
  }
}

struct WaitOnline: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "wait-online",
    abstract: "Wait until the node is registered and its addresses can be used.",
    discussion: "Also waits for a node that is being started. For units: order them after pilot-tun-online.target.")
  @OptionGroup var common: CommonOptions
  @Option(help: ArgumentHelp("Give up after this time.", valueName: "seconds"))
  var timeout = 60

  func validate() throws {
    guard (1...86_400).contains(timeout) else { throw ValidationError("--timeout takes 1 to 86400 seconds") }
  }

  func run() throws {
    let client = try common.client()
    let end = ContinuousClock.now + .seconds(timeout)
    while true {
      let left = max(1, Int((end - .now).components.seconds))
      let request = ControlRequest(.waitOnline, ["timeout_seconds": JSONValue(left)])
      do throws(ControlError) {
        let data = try client.call(request, timeout: left + 5)
        return Output.show(data, isJSON: common.json) { "online: \($0.string("address"))" }
      } catch {
        // It may be about to start, or be started again. Nothing tells of it but the socket.
        let mayCome = error.code == "not_running" || error.code == "connection_failed"
        guard mayCome, ContinuousClock.now + .milliseconds(200) < end else { throw error }
        usleep(200_000)
      }
    }
  }
}
