// swift-tools-version: 6.1
// The package: one line per room. `docs/architecture.md` says what each room is for.
//
// PILOT_TUN_TARGETS=EngineTests,WireTests swift test builds only those targets and what they need: the packet
// path (Wire, Session, LinkIO, Engine) builds and tests that way without NIO, SQLite or Foundation.
import PackageDescription

let strict: [SwiftSetting] = [
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .enableUpcomingFeature("InternalImportsByDefault"),
]

let nioCore: Target.Dependency = .product(name: "NIOCore", package: "swift-nio")
let nioPosix: Target.Dependency = .product(name: "NIOPosix", package: "swift-nio")
let nioTLS: Target.Dependency = .product(name: "NIOSSL", package: "swift-nio-ssl")
let nioHTTP: Target.Dependency = .product(name: "NIOHTTP1", package: "swift-nio")
let nioWebSocket: Target.Dependency = .product(name: "NIOWebSocket", package: "swift-nio")
let nioTLSEvents: Target.Dependency = .product(name: "NIOTLS", package: "swift-nio")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")
let arguments: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")

struct Room {
  var name: String
  var target: Target
  var needs: [String]
}

func room(
  _ name: String, _ needs: [String], _ products: [Target.Dependency] = [], kind: Kind = .library
) -> Room {
  let dependencies = needs.map { Target.Dependency.target(name: $0) } + products
  let target: Target
  switch kind {
  case .library:
    target = .target(name: name, dependencies: dependencies, swiftSettings: strict)
  case .program:
    target = .executableTarget(name: name, dependencies: dependencies, swiftSettings: strict)
  case .tests:
    target = .testTarget(name: name, dependencies: dependencies, swiftSettings: strict)
  case .shim:
    target = .target(
      name: name, dependencies: dependencies, path: "Shim",
      cSettings: [.unsafeFlags(["-O2"])], linkerSettings: [.linkedLibrary("mnl")])
  case .upnp:
    target = .target(name: name, dependencies: dependencies, linkerSettings: [.linkedLibrary("miniupnpc")])
  case .systemLibrary:
    target = .systemLibrary(name: name)
  }
  return Room(name: name, target: target, needs: needs)
}

enum Kind { case library, program, tests, shim, upnp, systemLibrary }

var rooms: [Room] = [
  room("Shim", [], [.product(name: "Crypto", package: "swift-crypto")], kind: .shim),
  room("ServiceManager", ["Shim"]),
  room("Wire", []),
  room("JSON", []),
  room("Settings", []),
  room("Telemetry", ["Wire", "JSON", "Shim"], [logging]),
  room("Session", ["Wire", "Shim"]),
  room("LinkIO", ["Wire", "Shim"]),
  room("Engine", ["Session", "LinkIO", "Wire", "Shim"]),
  room("Traversal", ["Wire"]),
  room("PortMapping", ["Wire"]),
  room("UPnPClient", [], kind: .upnp),
  room("SystemBus", []),
  room("SQLite", [], kind: .systemLibrary),
  room("TOMLReader", []),
  room("Streams", ["Wire"]),
  room("LocalSocket", ["Wire", "JSON"]),
  room("Services", ["Wire", "JSON"]),
  room("Gateway", ["Engine", "LinkIO", "Streams", "LocalSocket", "Services", "Wire", "Shim"]),
  room("Directory", ["Wire", "JSON", "Session"], [nioCore, nioPosix, logging]),
  room("Naming", ["Wire"], [nioCore, nioPosix, logging]),
  room(
    "TLSTransport", ["Wire", "JSON"], [nioCore, nioPosix, nioTLS, nioTLSEvents, nioHTTP, nioWebSocket]),
  room(
    "Rendezvous", ["JSON", "Settings", "SQLite", "Telemetry", "Wire", "Session", "Shim", "TLSTransport"],
    [nioCore, nioPosix, nioTLS, nioHTTP, nioWebSocket, logging]),
  room(
    "TunControl",
    [
      "Engine", "Session", "LinkIO", "Wire", "JSON", "Shim", "Traversal", "PortMapping", "UPnPClient", "Streams",
      "SystemBus", "ServiceManager", "TOMLReader",
      "LocalSocket", "Services",
      "Gateway", "Directory", "Naming", "Rendezvous", "Settings", "Telemetry", "TLSTransport",
    ],
    [nioCore, nioPosix, nioHTTP, logging]),
  room(
    "PilotTunCommand", ["TunControl", "Directory", "Settings", "Telemetry", "Wire", "JSON"], [arguments, logging],
    kind: .program),
  room(
    "PilotRendezvousCommand", ["JSON", "Rendezvous", "ServiceManager", "Settings", "Telemetry", "Wire"],
    [arguments, logging],
    kind: .program),
  room("PilotctlCommand", ["TunControl", "Directory", "LinkIO", "Wire", "JSON"], [logging], kind: .program),
  room("SeededRandom", []),
  room("Simulator", ["Wire", "Session", "Traversal", "SeededRandom"]),

  room("ServiceManagerTests", ["ServiceManager", "Shim"], kind: .tests),
  room("WireTests", ["Wire"], kind: .tests),
  room("SettingsTests", ["SeededRandom", "Settings"], kind: .tests),
  room("TelemetryTests", ["Telemetry", "JSON", "Wire"], [logging], kind: .tests),
  room("SessionTests", ["SeededRandom", "Session", "Wire", "Shim", "Simulator"], kind: .tests),
  room("LinkIOTests", ["SeededRandom", "LinkIO", "Wire", "Shim"], kind: .tests),
  room("EngineTests", ["SeededRandom", "Engine", "Session", "LinkIO", "Wire", "Shim"], kind: .tests),
  room("StreamsTests", ["SeededRandom", "Streams", "Wire"], kind: .tests),
  room("LocalSocketTests", ["SeededRandom", "LocalSocket", "Wire"], kind: .tests),
  room("ServicesTests", ["SeededRandom", "Services", "Wire"], kind: .tests),
  room("TraversalTests", ["SeededRandom", "Traversal", "Wire", "Simulator"], kind: .tests),
  room("PortMappingTests", ["PortMapping", "Wire"], kind: .tests),
  room(
    "DirectoryTests", ["SeededRandom", "Directory", "Rendezvous", "Wire", "JSON", "Session"],
    [nioCore, nioPosix, logging], kind: .tests),
  room("NamingTests", ["SeededRandom", "Naming", "Wire"], [logging], kind: .tests),
  room(
    "TLSTransportTests", ["SeededRandom", "TLSTransport", "Wire"],
    [nioCore, nioPosix, nioHTTP, nioWebSocket, .product(name: "NIOEmbedded", package: "swift-nio")], kind: .tests),
  room(
    "RendezvousTests", ["SeededRandom", "Rendezvous", "Wire", "JSON", "Session", "TLSTransport"],
    [nioCore, nioPosix, logging], kind: .tests),
  room(
    "TunControlTests",
    [
      "SeededRandom", "TunControl", "Gateway", "Services", "Streams", "Wire", "JSON", "Session", "LocalSocket", "Shim",
      "PortMapping", "Directory", "Rendezvous", "Engine", "LinkIO", "Settings", "Telemetry", "PilotTunCommand",
      "PilotctlCommand", "TLSTransport",
    ],
    [logging, nioCore, nioPosix], kind: .tests),
  // Replays the fuzz corpora of Engine, Directory and Rendezvous; those of other rooms are in their own tests.
  room(
    "CorpusTests", ["Engine", "Session", "LinkIO", "Wire", "JSON", "Shim", "Directory", "Rendezvous"],
    [nioCore],
    kind: .tests),
  room(
    "LabTests", ["SeededRandom", "Wire", "Shim", "PilotTunCommand", "PilotRendezvousCommand", "PilotctlCommand"],
    kind: .tests),
]

if let wanted = Context.environment["PILOT_TUN_TARGETS"] {
  var keep = Set(wanted.split(separator: ",").map(String.init))
  var size = 0
  while size != keep.count {
    size = keep.count
    for room in rooms where keep.contains(room.name) { keep.formUnion(room.needs) }
  }
  rooms.removeAll { !keep.contains($0.name) }
}

let isWhole = rooms.contains { ["Directory", "Naming", "Rendezvous", "TLSTransport", "Telemetry"].contains($0.name) }
var packages: [Package.Dependency] = [
  // Exact: the shim calls the BoringSSL inside by its prefixed symbols, which are no API. Shim/crypto.c and
  // the known-answer test in SessionTests are what to look at when this number changes.
  .package(url: "https://github.com/apple/swift-crypto", exact: "4.5.2")
]
if isWhole {
  packages += [
    .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
    .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
  ]
}

let programs = [
  ("pilot-tun", "PilotTunCommand"), ("pilot-rendezvous", "PilotRendezvousCommand"), ("pilotctl", "PilotctlCommand"),
]

let package = Package(
  name: "pilot-tun",
  products: programs.compactMap { program in
    rooms.contains { $0.name == program.1 } ? .executable(name: program.0, targets: [program.1]) : nil
  },
  dependencies: packages,
  targets: rooms.map(\.target),
  swiftLanguageModes: [.v6],
  cxxLanguageStandard: .cxx17
)
