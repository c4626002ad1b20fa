// Settings that change while the node runs: on SIGHUP and by `pilot-tun reload` all sources are read again, and each
// setting that is another one than before either takes effect or is told to need a restart.

import Directory
package import JSON
import Logging
import ServiceManager
import Settings
import TLSTransport
import Telemetry

/// What became of one changed setting.
package struct ReloadedSetting: Equatable, Sendable {
  package enum Outcome: Equatable, Sendable {
    case applied
    /// Read at start only.
    case needsRestart
    /// It was tried; the old value is still in force. Reloading tries again.
    case failed(ControlError)
  }

  package var setting: Setting
  package var outcome: Outcome
}

/// Which settings differ between two configurations.
enum ConfigurationChange {
  /// In the order of `Setting`. A rendezvous shows as registry and beacon.
  static func between(_ old: NodeConfiguration, _ new: NodeConfiguration) -> [Setting] {
    Setting.allCases.filter { isChanged($0, old, new) }
  }

  private static func isChanged(_ setting: Setting, _ old: NodeConfiguration, _ new: NodeConfiguration) -> Bool {
    func differs<Value: Equatable>(_ value: KeyPath<NodeConfiguration, Value>) -> Bool {
      old[keyPath: value] != new[keyPath: value]
    }
    return switch setting {
    case .stateDirectory: differs(\.stateDirectory)
    case .controlSocket: differs(\.controlSocket)
    case .ipc: differs(\.ipcSocket)
    case .inbox: differs(\.inbox)
    case .adminTokenFile: differs(\.adminTokenFile)
    case .hostname: differs(\.hostname)
    case .rendezvous: false
    case .registry: differs(\.registry)
    case .beacon: differs(\.beacons)
    case .interface: differs(\.interface)
    case .mtu: differs(\.mtu)
    case .listen: differs(\.listen)
    case .advertise: differs(\.advertise)
    case .portMapping: differs(\.portMapping)
    case .hardNAT: differs(\.hardNAT)
    case .isPublic: differs(\.isPublic)
    case .trustAutoApprove: differs(\.trustAutoApprove)
    case .networks: differs(\.networks)
    case .tags: differs(\.tags)
    case .relayOnly: differs(\.isRelayOnly)
    case .relay: differs(\.isRelay)
    case .relayLimit: differs(\.relayLimit)
    case .transport: differs(\.transport)
    // With another registry it follows from that.
    case .rendezvousTLS: differs(\.tls?.authority) && !differs(\.registry?.host)
    case .proxy: differs(\.tls?.proxy)
    case .proxyCredentialsCommand: differs(\.tls?.credentialsCommand)
    case .tlsCAFile: differs(\.tls?.authoritiesFile)
    case .dns: differs(\.dns)
    case .dnsSearch: differs(\.isDNSSearched)
    case .metrics: differs(\.metrics)
    case .logLevel: differs(\.logLevel)
    case .logFormat: differs(\.logFormat)
    }
  }
}

extension Node {
  /// Reads all settings again and takes what can be taken. Thrown: what is wrong with a source; then nothing changes.
  package func reload() async throws -> [ReloadedSetting] {
    notifier.reloading()
    defer {
      if isStarted { notifier.ready(stateLine) }
    }
    let new: NodeConfiguration
    do {
      new = try reread()
    } catch {
      logger.error("the settings stay as they are", metadata: Logger.Metadata(describing: error))
      throw error
    }
    let results = await reload(from: settings, to: new)
    for result in results { log(result) }
    if results.isEmpty { logger.info("settings read again: nothing changed") }
    return results
  }

  /// Brings the node from one configuration to another, setting by setting.
  func reload(from old: NodeConfiguration, to new: NodeConfiguration) async -> [ReloadedSetting] {
    var results: [ReloadedSetting] = []
    for setting in ConfigurationChange.between(old, new) {
      guard setting.declaration.isReloadable else {
        results.append(ReloadedSetting(setting: setting, outcome: .needsRestart))
        continue
      }
      do {
        try await take(setting, of: new)
        settings.report = ConfigurationReport.replacing(setting, in: settings.report, from: new.report)
        results.append(ReloadedSetting(setting: setting, outcome: .applied))
      } catch {
        results.append(ReloadedSetting(setting: setting, outcome: .failed(ControlError(error))))
      }
    }
    return results
  }

  private func take(_ setting: Setting, of new: NodeConfiguration) async throws {
    switch setting {
    case .hostname:
      try await directory.setHostname(new.hostname)
      settings.hostname = new.hostname
    case .tags:
      try await directory.setTags(new.tags)
      settings.tags = new.tags
    case .isPublic:
      try await directory.setVisibility(isPublic: new.isPublic)
      becomePublic(new.isPublic)
      settings.isPublic = new.isPublic
    case .trustAutoApprove:
      await directory.setApproval(isAutomatic: new.trustAutoApprove)
      settings.trustAutoApprove = new.trustAutoApprove
    case .logLevel:
      LogOutput.change(level: new.logLevel)
      settings.logLevel = new.logLevel
    default: break
    }
  }

  private func log(_ result: ReloadedSetting) {
    switch result.outcome {
    case .applied: logger.notice("setting changed", metadata: ["setting": "\(result.setting.rawValue)"])
    case .needsRestart:
      logger.warning("setting needs a restart of the node", metadata: ["setting": "\(result.setting.rawValue)"])
    case .failed(let error):
      logger.warning(
        "setting stays as it is",
        metadata: Logger.Metadata(describing: error)
          .merging(["setting": "\(result.setting.rawValue)"]) { $1 })
    }
  }
}

extension ReloadedSetting {
  var json: JSONValue {
    var members: [String: JSONValue] = ["setting": .text(setting.rawValue)]
    switch outcome {
    case .applied: members["outcome"] = "applied"
    case .needsRestart: members["outcome"] = "restart"
    case .failed(let error):
      members["outcome"] = "failed"
      members["code"] = .text(error.code)
      members["reason"] = .text(error.message)
      members["hint"] = JSONValue(error.hint)
    }
    return .object(members)
  }

  /// What `pilot-tun reload` shows of the answer.
  package static func text(_ data: JSONValue) -> String {
    let settings = data["settings"]?.list ?? []
    if settings.isEmpty { return "nothing changed" }
    let lines = settings.map { result in
      let name = result.string("setting")
      return switch result.string("outcome") {
      case "applied": "\(name): changed"
      case "restart": "\(name): needs a restart of the node"
      default: stays(name, result)
      }
    }
    return lines.joined(separator: "\n")
  }

  private static func stays(_ name: String, _ result: JSONValue) -> String {
    let hint = result.string("hint")
    return "\(name): stays as it is: \(result.string("reason")) [\(result.string("code"))]"
      + (hint.isEmpty ? "" : "\n  hint: \(hint)")
  }
}
