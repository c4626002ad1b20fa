// Passes signals that other processes send to `pilot-tun run` on to its command. What a terminal sends goes to the whole
// foreground group, so the command has it already: passing it on would be twice. Used by WrappedCommand.

import Glibc
import Synchronization

enum SignalForwarder {
  private static let target = Atomic<Int32>(0)
  static let signals = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2]

  /// From here on signals go to this process; 0: to nobody, and they end nothing. Ignored signals stay so.
  static func forward(to process: pid_t) {
    target.store(process, ordering: .releasing)
    guard process != 0 else { return }
    var action = sigaction()
    // SAFETY: kill(2) is async-signal-safe, and the atomic was initialised by the store above.
    action.__sigaction_handler.sa_sigaction = { number, information, _ in
      let saved = errno
      let process = SignalForwarder.target.load(ordering: .relaxed)
      // Positive codes are the kernel's (sigaction(2)): the terminal's keys and its end.
      if let information, information.pointee.si_code <= 0, process > 0 { kill(process, number) }
      errno = saved
    }
    action.sa_flags = Int32(SA_RESTART) | Int32(SA_SIGINFO)
    for number in signals {
      var present = sigaction()
      sigaction(number, nil, &present)
      let isIgnored = unsafeBitCast(present.__sigaction_handler.sa_handler, to: Int.self) == 1
      if !isIgnored { sigaction(number, &action, nil) }
    }
  }
}
