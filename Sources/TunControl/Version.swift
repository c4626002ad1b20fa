// The one place where the version stands.

package enum PilotTunVersion {
  package static let text = "0.1.0"
}
