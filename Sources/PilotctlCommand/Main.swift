// `pilotctl`: the verbs that Pilot users know, answered by a pilot-tun node over its control socket (wire/cli).

import Directory
import Glibc
import TunControl

@main
enum Main {
  static func main() {
    signal(SIGPIPE, SIG_IGN)
    let arguments = PilotctlArguments(Array(CommandLine.arguments.dropFirst()))
    let verb = arguments.words.first
    if verb == "version" || arguments.flags["version"] != nil {
      Output.line(PilotTunVersion.text)
      exit(0)
    }
    if arguments.flags["experimental-dump-help"] != nil {
      Output.line(Help.dump.line)
      exit(0)
    }
    if verb == "help" || (verb == nil && arguments.wantsHelp) {
      Output.line(Help.usage)
      exit(0)
    }
    guard let verb else {
      Output.standardError(Help.usage)
      exit(2)
    }
    if arguments.wantsHelp, let page = Help.page(arguments.words) {
      Output.standardError(page)
      exit(0)
    }
    do {
      var context = try Context(arguments)
      exit(try run(verb, &context))
    } catch {
      fail(error, arguments)
    }
  }

  /// Runs a verb and returns its exit status.
  private static func run(_ verb: String, _ context: inout Context) throws(ControlError) -> Int32 {
    try Manual.check(context.arguments)
    switch verb {
    case "daemon": return try Daemon.run(&context)
    case "ping": return try PingVerb.run(context)
    case "info": return try Verbs.info(context)
    case "health": return try Verbs.health(context)
    case "peers": return try Verbs.peers(context)
    case "find": return try Verbs.find(context)
    case "handshake": return try TrustVerbs.handshake(context)
    case "approve": return try TrustVerbs.approve(context)
    case "reject": return try TrustVerbs.reject(context)
    case "pending": return try TrustVerbs.pending(context)
    case "trust": return try TrustVerbs.trust(context)
    case "untrust": return try TrustVerbs.untrust(context)
    default:
      guard context.arguments.isJSON else {
        Output.standardError("unknown command: \(TextForms.plain(verb))\n" + Help.usage)
        return 2
      }
      throw ControlError("invalid_argument", "unknown command: \(verb)", hint: "pilotctl --help")
    }
  }

  private static func fail(_ error: ControlError, _ arguments: PilotctlArguments) -> Never {
    if arguments.isJSON {
      Output.standardError(PilotctlForms.failure(error))
    } else {
      Output.fail(error, isJSON: false, showsCode: false)
    }
    exit(1)
  }
}
