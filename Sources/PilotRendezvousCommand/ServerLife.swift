// What `serve` and `beacon` share while they run: settings from all sources, the log, SIGHUP, the watchdog.

import FoundationEssentials
import Glibc
import Logging
import Rendezvous
import ServiceManager
import Settings
import Telemetry
import Wire

extension RendezvousSettings {
  /// File, then environment, then flags.
  static func read(config: String?, flags: [(String, String?)]) throws -> RendezvousSettings {
    let environment = ProcessInfo.processInfo.environment
    var settings = try RendezvousSettings.fromFile(named: config, environment: environment)
    try settings.readEnvironment(environment)
    for case (let name, let value?) in flags { try settings.set(name, [value]) }
    return settings
  }

  /// Tells the service manager that the server runs, and reads the settings again on SIGHUP, until a signal ends it.
  mutating func serve(
    _ status: String, until signals: Signals, _ logger: Logger, pulse: @escaping @Sendable () async -> Void,
    _ read: () throws -> RendezvousSettings
  ) async {
    let notifier = ServiceNotifier(environment: ProcessInfo.processInfo.environment, process: getpid())
    notifier.ready(status)
    let life = Task { await notifier.showLife(pulse) }
    for await signal in signals.numbers {
      guard signal == SIGHUP else {
        logger.info("stopping", metadata: ["signal": "\(signal)"])
        break
      }
      notifier.reloading()
      reload(logger, read)
      notifier.ready(status)
    }
    withExtendedLifetime(signals) {}
    notifier.stopping()
    life.cancel()
  }

  /// What changes takes effect or is said to need a restart; a source with a mistake changes nothing.
  mutating func reload(_ logger: Logger, _ read: () throws -> RendezvousSettings) {
    do {
      let new = try read()
      _ = try new.configuration()
      let level = try new.level()
      let changed = new.differences(from: self)
      if changed.isEmpty { logger.info("settings read again: nothing changed") }
      for name in changed {
        if name == "log-level" {
          LogOutput.change(level: level)
          take(name, from: new)
          logger.notice("setting changed", metadata: ["setting": "\(name)"])
        } else {
          logger.warning("setting needs a restart", metadata: ["setting": "\(name)"])
        }
      }
    } catch {
      let text = (error as? any ExplainedError)?.message ?? "\(error)"
      logger.error("the settings stay as they are: \(text)")
    }
  }

  func startLog() throws {
    let format = self["log_format"] ?? "auto"
    guard let form = LogFormat(rawValue: format) else { throw Self.invalid("log-format", format) }
    LogOutput.bootstrap(
      level: try level(), format: form, identifier: "pilot-rendezvous",
      environment: ProcessInfo.processInfo.environment)
  }

  private func level() throws -> Logger.Level {
    let name = self["log_level"] ?? "info"
    guard let level = Logger.Level(named: name) else { throw Self.invalid("log-level", name) }
    return level
  }

  private static func invalid(_ name: String, _ value: String) -> RendezvousError {
    RendezvousError(
      .invalidSetting, "“\(value)” is no value for \(name)",
      hint: "expected: \(declaration(name)?.kind.expected ?? "")")
  }
}

extension ServiceNotifier {
  /// The service manager's watchdog: a sign of life whenever all threads of the server have gone round.
  func showLife(_ pulse: () async -> Void) async {
    guard let limit = watchdogLimit else { return }
    while !Task.isCancelled {
      await pulse()
      alive()
      try? await Task.sleep(for: .nanoseconds(limit / 4))
    }
  }
}
