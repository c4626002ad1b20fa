// Opens TLS connections to one rendezvous, through an HTTP proxy where one is set. A node has one, made by TunControl from
// the settings; what travels inside is the caller's: registry frames (RegistryClient) or a WebSocket (CompatLink).

import Glibc
package import NIOCore
import NIOPosix
import NIOSSL
import NIOTLS
import Synchronization
import Wire

/// Where to, through what, and whom to believe. Texts as the user wrote them.
package struct TLSSettings: Sendable {
  package var host: String
  package var port: UInt16
  package var proxy: ProxyAddress?
  package var exceptions = ProxyExceptions("")
  /// Prints the proxy's credentials; run when they are needed first, and again when the proxy refuses them.
  package var credentialsCommand: String?
  /// PEM file of authorities that are trusted instead of the system's.
  package var authoritiesFile: String?
  /// For the command, and `SSL_CERT_FILE`.
  package var environment: [String: String] = [:]
  /// What of the environment is not used, and why.
  package var warnings: [String] = []
  /// For the connection, the proxy's answer and the handshake, each.
  package var patience = Duration.seconds(8)

  package init(host: String, port: UInt16) {
    self.host = host
    self.port = port
  }

  /// `host:port`, brackets around an IPv6 address.
  package var authority: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }

  /// PEM file of the authorities; nil: the system's.
  var trustedFile: String? {
    authoritiesFile ?? environment["SSL_CERT_FILE"].flatMap { $0.isEmpty ? nil : $0 }
  }

  /// The proxy that connections to the host take.
  package var effectiveProxy: ProxyAddress? { exceptions.contains(host, port: port) ? nil : proxy }
}

package final class TLSDialer: Sendable {
  package let settings: TLSSettings
  private let trust: Mutex<Trust>
  private let credentials: CredentialSource?
  /// What of the environment is not used at present, and why: for people.
  package var warnings: [String] { settings.warnings + (trust.withLock { $0.problem }.map { [$0] } ?? []) }

  /// Whom to believe, and what the authorities' file was when that was read.
  private struct Trust {
    var context: NIOSSLContext
    var mark: FileMark?
    /// Why the file of `SSL_CERT_FILE` is not used.
    var problem: String?
  }

  /// Reads the authorities' file. Throws when it cannot be used.
  package init(_ settings: TLSSettings) throws(TransportError) {
    self.settings = settings
    credentials = settings.credentialsCommand.map {
      CredentialSource(CredentialCommand(command: $0, environment: settings.environment))
    }
    trust = Mutex(try Self.readTrust(settings))
  }

  private static func readTrust(_ settings: TLSSettings) throws(TransportError) -> Trust {
    // Before the file is read: one that changes meanwhile is read again.
    let mark = settings.trustedFile.flatMap { FileMark($0) }
    var configuration = TLSConfiguration.makeClientConfiguration()
    configuration.minimumTLSVersion = .tlsv12
    // NIOSSL compares an address with that of the socket, which is the proxy's when there is one: done here instead.
    if IPv6Address(settings.host) != nil { configuration.certificateVerification = .noHostnameVerification }
    var (isOwnAuthorities, problem) = (false, String?.none)
    if let file = settings.trustedFile {
      do {
        configuration.trustRoots = .certificates(try authorities(in: file))
        isOwnAuthorities = true
      } catch {
        // SSL_CERT_FILE is meant for other programs as well: one that cannot be used is no reason not to start.
        guard settings.authoritiesFile == nil else { throw error }
        problem = "SSL_CERT_FILE is not used, but the system's authorities: \(error.message)"
      }
    }
    let context = try context(configuration, isOwnAuthorities: isOwnAuthorities)
    return Trust(context: context, mark: mark, problem: problem)
  }

  /// NIOSSL 2.x fails for the machine's own authorities where there are none (no package ca-certificates). Then nobody is
  /// trusted, which only a node that needs TLS has to hear: `certificate_untrusted`.
  private static func context(
    _ configuration: TLSConfiguration, isOwnAuthorities: Bool
  ) throws(TransportError) -> NIOSSLContext {
    do {
      if isOwnAuthorities { return try NIOSSLContext(configuration: configuration) }
      if let context = try? NIOSSLContext(configuration: configuration) { return context }
      var trustingNobody = configuration
      trustingNobody.trustRoots = .certificates([])
      return try NIOSSLContext(configuration: trustingNobody)
    } catch {
      throw TransportError(.tlsFailed, "TLS cannot be set up: \(error)")
    }
  }

  /// Reads the authorities' file again when it was changed, on a thread that may block.
  private func currentContext() async throws(TransportError) -> NIOSSLContext {
    let (context, mark) = trust.withLock { ($0.context, $0.mark) }
    guard let file = settings.trustedFile else { return context }
    let read: Result<Trust?, TransportError>
    do {
      read = try await NIOThreadPool.singleton.runIfActive { [settings] in
        guard FileMark(file) != mark else { return .success(nil) }
        return Result { () throws(TransportError) in try Self.readTrust(settings) }
      }
    } catch {
      return context
    }
    guard let renewed = try read.get() else { return context }
    trust.withLock { $0 = renewed }
    return renewed.context
  }

  private static func authorities(in file: String) throws(TransportError) -> [NIOSSLCertificate] {
    let certificates: [NIOSSLCertificate]
    do {
      certificates = try NIOSSLCertificate.fromPEMFile(file)
    } catch {
      certificates = []
    }
    guard !certificates.isEmpty else {
      throw TransportError(
        .authoritiesUnusable, "no certificates can be read from \(file)",
        hint: "tls-ca-file names a PEM file (-----BEGIN CERTIFICATE-----) that the node's user can read")
    }
    return certificates
  }

  /// A connection whose TLS is up. `prepare` then adds the caller's handlers, on its event loop; nothing is read before.
  package func connect(
    on eventLoop: any EventLoop, _ prepare: @escaping @Sendable (any Channel) throws -> Void
  ) async throws(TransportError) -> any Channel {
    let context = try await currentContext()
    guard let proxy = settings.effectiveProxy, let source = credentials else {
      let proxy = settings.effectiveProxy
      return try await connect(on: eventLoop, context, proxy, proxy?.credentials, prepare)
    }
    let (held, isFresh) = try await source.current()
    do {
      return try await connect(on: eventLoop, context, proxy, held, prepare)
    } catch {
      guard error.reason == .proxyCredentials else { throw error }
      guard !isFresh else {
        source.forget(held)
        throw error
      }
    }
    // They change while we hold them: once more with those of now.
    let renewed = try await source.renewed(after: held)
    do {
      return try await connect(on: eventLoop, context, proxy, renewed, prepare)
    } catch {
      if error.reason == .proxyCredentials { source.forget(renewed) }
      throw error
    }
  }

  // MARK: The connection

  private func connect(
    on eventLoop: any EventLoop, _ context: NIOSSLContext, _ proxy: ProxyAddress?, _ credentials: ProxyCredentials?,
    _ prepare: @escaping @Sendable (any Channel) throws -> Void
  ) async throws(TransportError) -> any Channel {
    let patience = TimeAmount(settings.patience)
    let host = proxy?.host ?? settings.host
    let port = proxy?.port ?? settings.port
    // A dial may take its whole time; who waits for it may be cancelled before. A channel that comes late is closed.
    let promise = eventLoop.makePromise(of: (any Channel).self)
    let dialled = ClientBootstrap(group: eventLoop)
      .connectTimeout(patience)
      .channelOption(.tcpOption(.tcp_nodelay), value: 1)
      .channelOption(.socketOption(.so_keepalive), value: 1)
      // A dead connection is noticed after 15 s without acknowledgement of what was sent.
      .channelOption(.tcpOption(.init(rawValue: TCP_USER_TIMEOUT)), value: 15_000)
      .connect(host: host, port: Int(port))
    let ready = dialled.flatMap { (channel: any Channel) -> EventLoopFuture<Void> in
      self.secure(channel, context, proxy, credentials, prepare)
    }
    ready.and(dialled).map { $0.1 }.cascade(to: promise)
    // Whatever else fails on the way ends the connection, and so the wait.
    let ended = TransportError(.tlsFailed, "\(settings.authority) ended the connection")
    dialled.whenSuccess { $0.closeFuture.whenComplete { _ in promise.fail(ended) } }
    promise.futureResult.whenFailure { _ in dialled.whenSuccess { $0.close(promise: nil) } }
    do {
      return try await withTaskCancellationHandler {
        try await promise.futureResult.get()
      } onCancel: {
        promise.fail(CancellationError())
      }
    } catch let error as TransportError {
      throw error
    } catch {
      throw unreachable(error, proxy)
    }
  }

  /// From a connection to one with TLS and the caller's handlers; called on the channel's event loop.
  private func secure(
    _ channel: any Channel, _ context: NIOSSLContext, _ proxy: ProxyAddress?, _ credentials: ProxyCredentials?,
    _ prepare: @escaping @Sendable (any Channel) throws -> Void
  ) -> EventLoopFuture<Void> {
    let tunnel = channel.eventLoop.makePromise(of: Void.self)
    do {
      if let proxy {
        try ProxyConnectHandler.install(
          on: channel, authority: settings.authority, proxy: proxy, credentials: credentials,
          patience: TimeAmount(settings.patience), outcome: tunnel)
      } else {
        tunnel.succeed()
      }
    } catch {
      tunnel.fail(error)
    }
    let ready = tunnel.futureResult.flatMap { self.handshake(on: channel, context) }.flatMapThrowing {
      try prepare(channel)
    }
    ready.whenFailure { _ in channel.close(promise: nil) }
    return ready
  }

  private func handshake(on channel: any Channel, _ context: NIOSSLContext) -> EventLoopFuture<Void> {
    let outcome = channel.eventLoop.makePromise(of: Void.self)
    do {
      let name = IPv6Address(settings.host) == nil ? settings.host : nil
      let pipeline = channel.pipeline.syncOperations
      let handler = try NIOSSLClientHandler(context: context, serverHostname: name)
      try pipeline.addHandler(handler)
      try pipeline.addHandler(HandshakeWaiter(settings, TimeAmount(settings.patience), outcome))
    } catch {
      outcome.fail(TransportError(.tlsFailed, "TLS with \(settings.authority) cannot begin: \(error)"))
    }
    return outcome.futureResult
  }

  private func unreachable(_ error: any Error, _ proxy: ProxyAddress?) -> TransportError {
    if error is CancellationError { return TransportError(.tlsUnreachable, "the attempt was given up") }
    let reason = Self.reason(error)
    if let proxy {
      return TransportError(
        .proxyUnreachable, "no connection to the proxy \(proxy): \(reason)",
        hint: "check the proxy's address (setting proxy, or HTTPS_PROXY)")
    }
    return TransportError(
      .tlsUnreachable, "no connection to \(settings.authority): \(reason)",
      hint: "does pilot-rendezvous listen there (--tls-certificate, --tls-key)? Is TCP \(settings.port) open, or only "
        + "through a proxy (HTTPS_PROXY)?")
  }

  static func reason(_ error: any Error) -> String {
    switch error {
    case let error as NIOConnectionError:
      if let first = error.connectionErrors.first { return reason(first.error) }
      return "the host name does not resolve"
    case let error as IOError: return String(cString: strerror(error.errnoCode)).lowercased()
    case ChannelError.connectTimeout: return "no answer in time"
    default:
      // BoringSSL tells files and numbers as well: `…:OPENSSL_internal:WRONG_VERSION_NUMBER at …`.
      let text = "\(error)"
      guard let end = text.firstRange(of: "OPENSSL_internal:") else { return text }
      let word = text[end.upperBound...].prefix { $0 == "_" || $0.isLetter || $0.isNumber }
      return word == "WRONG_VERSION_NUMBER"
        ? "what answers does not speak TLS" : word.split(separator: "_").joined(separator: " ").lowercased()
    }
  }
}

/// Waits for the end of the handshake and explains how it failed; then leaves.
private final class HandshakeWaiter: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = ByteBuffer

  private let settings: TLSSettings
  private let patience: TimeAmount
  private let outcome: EventLoopPromise<Void>
  private var deadline: Scheduled<Void>?
  private var isOver = false

  init(_ settings: TLSSettings, _ patience: TimeAmount, _ outcome: EventLoopPromise<Void>) {
    self.settings = settings
    self.patience = patience
    self.outcome = outcome
  }

  func handlerAdded(context: ChannelHandlerContext) {
    let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
    deadline = context.eventLoop.scheduleTask(in: patience) {
      let (waiter, context) = bound.value
      waiter.fail(
        context,
        TransportError(
          .tlsFailed, "\(waiter.settings.authority) does not answer the TLS handshake",
          hint: "something else may listen there, or a firewall lets only known protocols through"))
    }
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    guard case .handshakeCompleted? = event as? TLSUserEvent, !isOver else {
      return context.fireUserInboundEventTriggered(event)
    }
    guard isExpectedAddress(context) else {
      return fail(
        context,
        TransportError(
          .certificateNameMismatch, "the certificate of \(settings.authority) does not name \(settings.host)",
          hint: "use the host name of the certificate, or one with this address as a subject alternative name"))
    }
    isOver = true
    deadline?.cancel()
    context.pipeline.syncOperations.removeHandler(context: context).cascade(to: outcome)
  }

  func channelInactive(context: ChannelHandlerContext) {
    fail(context, TransportError(.tlsFailed, "\(settings.authority) ended the TLS handshake"))
    context.fireChannelInactive()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    if !isOver { fail(context, explained(error, context)) }
  }

  private func fail(_ context: ChannelHandlerContext, _ error: TransportError) {
    guard !isOver else { return }
    isOver = true
    deadline?.cancel()
    outcome.fail(error)
    context.close(promise: nil)
  }

  private func explained(_ error: any Error, _ context: ChannelHandlerContext) -> TransportError {
    if let error = error as? NIOSSLExtraError, error == .failedToValidateHostname {
      return TransportError(
        .certificateNameMismatch, "the certificate of \(settings.authority) is for another host",
        hint: "use the host name that is in the certificate (rendezvous-tls = HOST:PORT)")
    }
    let text = "\(error)"
    if text.contains("CERTIFICATE_VERIFY_FAILED"), let problem = outOfDate(context) { return problem }
    if text.contains("CERTIFICATE_VERIFY_FAILED") || error is NIOSSLError && text.contains("unableToValidate") {
      return TransportError(
        .certificateUntrusted,
        "the certificate of \(settings.authority) is not signed by an authority that is trusted here",
        hint:
          "for an authority of your own: tls-ca-file = FILE; without any on this machine: the package ca-certificates; "
          + "a proxy that opens TLS needs its authority there")
    }
    return TransportError(
      .tlsFailed, "no TLS with \(settings.authority): \(TLSDialer.reason(error))",
      hint: "is TCP \(settings.port) there the TLS port of a rendezvous?")
  }

  /// nil when the time is not what is wrong with the certificate.
  private func outOfDate(_ context: ChannelHandlerContext) -> TransportError? {
    guard let handler = try? context.pipeline.syncOperations.handler(type: NIOSSLClientHandler.self),
      let certificate = handler.peerCertificate
    else { return nil }
    let now = time(nil)
    let (first, last) = (certificate.notValidBefore, certificate.notValidAfter)
    guard now < first || now > last else { return nil }
    let limit = now < first ? "is valid from \(Self.day(first)) on" : "was valid until \(Self.day(last))"
    return TransportError(
      .certificateExpired, "the certificate of \(settings.authority) \(limit); here it is \(Self.day(now))",
      hint: now < first
        ? "set this machine's clock" : "renew it at the rendezvous; or this machine's clock is wrong")
  }

  /// UTC.
  private static func day(_ time: time_t) -> String {
    var (time, parts) = (time, tm())
    guard gmtime_r(&time, &parts) != nil else { return "\(time)" }
    func two(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
    return "\(parts.tm_year + 1900)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday))"
  }

  /// For a host given as an address: the certificate has to name it (RFC 6125 has no rule for addresses but this).
  private func isExpectedAddress(_ context: ChannelHandlerContext) -> Bool {
    guard let wanted = IPv6Address(settings.host) else { return true }
    guard let handler = try? context.pipeline.syncOperations.handler(type: NIOSSLClientHandler.self),
      let certificate = handler.peerCertificate
    else { return false }
    let bytes: [UInt8]
    if let v4 = wanted.mappedIPv4 {
      bytes = withUnsafeBytes(of: v4.bigEndian) { Array($0) }
    } else {
      bytes = withUnsafeBytes(of: (wanted.high.bigEndian, wanted.low.bigEndian)) { Array($0) }
    }
    return certificate._subjectAlternativeNames().contains { $0.nameType == .ipAddress && Array($0.contents) == bytes }
  }
}
