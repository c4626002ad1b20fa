// The whole decision of the resolver stub: query bytes and the directory's word in, response bytes out.
// Used by LookupDesk. Pure: no socket, no clock, no state.
package import Wire

/// Answers for the zones of `Zone` and refuses everything else. It never forwards, so a loop cannot form.
///
/// A query is answered in one or two steps: `begin` answers at once what needs no directory, and otherwise names what
/// must be looked up; `finish` turns what came back into the response.
package enum NameAnswerer {
  /// How the query came; decides how long the answer may be.
  package enum Transport: Sendable {
    case udp
    /// No limit but the length field.
    case tcp
  }

  /// What is to be asked of the `NameSource`.
  package enum Need: Sendable, Equatable {
    case address(of: String, group: String?)
    case name(of: IPv6Address)
  }

  /// A query that waits for the directory.
  package struct Pending: Sendable {
    package let need: Need
    fileprivate let query: DNSQuery
    fileprivate let zone: DNSName
    fileprivate let transport: Transport
  }

  /// A response and how to count it.
  package struct Response: Sendable {
    package let bytes: [UInt8]
    package let code: DNSResponseCode
    package let hasAnswers: Bool
    package let isTruncated: Bool
  }

  package enum Step: Sendable {
    case respond(Response)
    case lookUp(Pending)
    /// No answer at all: not a query.
    case drop
  }

  /// Types that are no data but operations (RFC 6895 §3.1): transaction keys, zone transfers, mailboxes.
  private static let operations = UInt16(249)...254
  private static let transfers = UInt16(251)...252

  /// - Parameter bytes: one DNS message, without TCP's length.
  package static func begin(_ bytes: [UInt8], by transport: Transport) -> Step {
    let query: DNSQuery
    do {
      query = try DNSQuery(bytes)
    } catch {
      switch error {
      case .dropped: return .drop
      case .answered(let message): return .respond(response(message, limit: DNSMessage.plainUDPLimit))
      }
    }
    func plain(_ code: DNSResponseCode, _ reason: DNSExtendedError? = nil) -> Step {
      .respond(response(query.answer(code, isAuthoritative: false, reason: reason), to: query, by: transport))
    }
    if let edns = query.message.edns, edns.version > 0 { return plain(.badVersion) }
    guard query.question.recordClass == .internet else { return plain(.refused) }
    let (meaning, zone) = Zone.meaning(of: query.question.name)
    let type = query.question.type
    if meaning == .outside { return plain(.refused, notOurs) }
    if transfers.contains(type.rawValue) { return plain(.refused) }
    if operations.contains(type.rawValue) { return plain(.notImplemented) }
    let pending = { Step.lookUp(Pending(need: $0, query: query, zone: zone, transport: transport)) }
    let own = { (message: DNSMessage) in Step.respond(response(message, to: query, by: transport)) }
    switch meaning {
    case .outside: return plain(.refused, notOurs)
    case .nothing: return own(negative(.nameError, query, zone))
    case .between: return own(negative(.noError, query, zone))
    case .host(let name): return pending(.address(of: name, group: nil))
    case .member(let name, let group): return pending(.address(of: name, group: group))
    case .pointer(let address): return pending(.name(of: address))
    case .apex:
      if type == .ns {
        return own(positive(.ns(Zone.server), ttl: NamingLimits.maximumTTL, query, zone))
      }
      return own(positive(authority, ttl: NamingLimits.negativeTTL, query, zone))
    case .server:
      return own(positive(.aaaa(OverlayMapping.resolver), ttl: NamingLimits.maximumTTL, query, zone))
    case .serverPointer:
      return own(positive(.ptr(Zone.server), ttl: NamingLimits.maximumTTL, query, zone))
    }
  }

  /// The answer to a query for a name, once the directory has spoken. A found address outside the overlay is not
  /// passed on: the directory names nodes, it does not point programs at other hosts.
  package static func finish(_ pending: Pending, _ answer: NameAnswer) -> Response {
    switch answer {
    case .found(let address, let ttl):
      guard OverlayMapping.pilotAddress(from: address) != nil else { return giveUp(pending) }
      return close(pending, positive(.aaaa(address), ttl: NamingLimits.clamp(ttl), pending.query, pending.zone))
    case .between: return close(pending, negative(.noError, pending.query, pending.zone))
    case .notFound: return close(pending, negative(.nameError, pending.query, pending.zone))
    case .unavailable: return giveUp(pending)
    }
  }

  /// The answer to a query for an address. A name that is no hostname is not passed on: it would end up in logs and
  /// access lists of programs that trust their resolver.
  package static func finish(_ pending: Pending, _ answer: PointerAnswer) -> Response {
    switch answer {
    case .found(let name, let group, let ttl):
      var target: DNSName? = Zone.forward
      for part in [group, name].compactMap(\.self) {
        target = Zone.hostname(Array(part.utf8)).flatMap { target?.prepending($0) }
      }
      guard let target else { return giveUp(pending) }
      return close(pending, positive(.ptr(target), ttl: NamingLimits.clamp(ttl), pending.query, pending.zone))
    case .notFound: return close(pending, negative(.nameError, pending.query, pending.zone))
    case .unavailable: return giveUp(pending)
    }
  }

  /// The answer when nobody could be asked, or nothing came back in time: the name may exist. "No such name" would be
  /// believed, and would tell programs not to try again.
  package static func giveUp(_ pending: Pending) -> Response {
    close(pending, pending.query.answer(.serverFailure, isAuthoritative: false, reason: unreachable))
  }

  /// "Not Authoritative" and "No Reachable Authority" (RFC 8914 §4.21, §4.23).
  private static let notOurs = DNSExtendedError(code: 20, "only names under pilot are answered here")
  private static let unreachable = DNSExtendedError(
    code: 22, "the rendezvous does not answer, and the name is not remembered")

  /// An existing name gives its one record to those who ask for it or for anything (RFC 8482 §4.1), else NODATA.
  private static func positive(
    _ data: DNSRecordData, ttl: UInt32, _ query: DNSQuery, _ zone: DNSName
  ) -> DNSMessage {
    guard query.question.type == data.type || query.question.type == .any else {
      return negative(.noError, query, zone)
    }
    return query.answer(answers: [DNSRecord(name: query.question.name, ttl: ttl, data: data)])
  }

  /// NODATA or "no such name", with the SOA that says how long to believe it (RFC 2308 §2).
  private static func negative(_ code: DNSResponseCode, _ query: DNSQuery, _ zone: DNSName) -> DNSMessage {
    query.answer(code, authority: [DNSRecord(name: zone, ttl: NamingLimits.negativeTTL, data: authority)])
  }

  /// Serial, refresh, retry and expire mean nothing: this zone is not transferred.
  private static let authority = DNSRecordData.soa(
    DNSStartOfAuthority(
      primary: Zone.server, mailbox: Zone.mailbox, serial: 1, refresh: 3600, retry: 600, expire: 86400,
      minimum: NamingLimits.negativeTTL))

  private static func close(_ pending: Pending, _ message: DNSMessage) -> Response {
    response(message, to: pending.query, by: pending.transport)
  }

  private static func response(_ message: DNSMessage, to query: DNSQuery, by transport: Transport) -> Response {
    switch transport {
    case .udp: response(message, limit: query.udpLimit)
    case .tcp: response(message, limit: DNSMessage.tcpLimit)
    }
  }

  private static func response(_ message: DNSMessage, limit: Int) -> Response {
    let bytes = message.encoded(limit: limit)
    return Response(
      bytes: bytes, code: message.responseCode, hasAnswers: !message.answers.isEmpty,
      isTruncated: bytes.count > 2 && bytes[2] & 2 != 0)
  }
}

extension NameAnswerer.Response {
  /// The counter of this kind of answer.
  var counter: NamingCounter {
    switch code {
    case .noError: hasAnswers ? .answersFound : .answersNoData
    case .formatError: .answersFormatError
    case .nameError: .answersNoName
    case .notImplemented: .answersNotImplemented
    case .refused: .answersRefused
    case .badVersion: .answersBadVersion
    default: .answersServerFailure
    }
  }
}
