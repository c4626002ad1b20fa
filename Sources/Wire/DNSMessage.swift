// DNS messages (RFC 1035 §4): what the resolver stub reads and writes, and what its clients and tests read back.
// Reading is in `DNSMessage+Decode.swift`, writing in `DNSMessage+Encode.swift`.

/// One DNS message. The OPT record is not among the `additional` records but in `edns`.
public struct DNSMessage: Hashable, Sendable {
  public var id: UInt16
  public var isResponse: Bool
  /// 0 to 15; 0 is a standard query.
  public var opcode: UInt8
  public var isAuthoritative: Bool
  public var isTruncated: Bool
  public var recursionDesired: Bool
  public var recursionAvailable: Bool
  public var checkingDisabled: Bool
  /// The upper 8 bits travel in the OPT record and are lost without one.
  public var responseCode: DNSResponseCode
  public var questions: [DNSQuestion]
  public var answers: [DNSRecord]
  public var authority: [DNSRecord]
  public var additional: [DNSRecord]
  public var edns: DNSExtension?

  public static let headerSize = 12
  /// Largest UDP message to a client that sent no OPT.
  public static let plainUDPLimit = 512
  /// Largest UDP message we send or ask for: fits the smallest IPv6 MTU (1280 less 48, as the DNS flag day has it).
  public static let udpLimit = 1232
  /// Largest message over TCP: its length prefix has 16 bits.
  public static let tcpLimit = 65535

  public init(
    id: UInt16, isResponse: Bool = false, opcode: UInt8 = 0, isAuthoritative: Bool = false, isTruncated: Bool = false,
    recursionDesired: Bool = false, recursionAvailable: Bool = false, checkingDisabled: Bool = false,
    responseCode: DNSResponseCode = .noError, questions: [DNSQuestion] = [], answers: [DNSRecord] = [],
    authority: [DNSRecord] = [], additional: [DNSRecord] = [], edns: DNSExtension? = nil
  ) {
    self.id = id
    self.isResponse = isResponse
    self.opcode = opcode
    self.isAuthoritative = isAuthoritative
    self.isTruncated = isTruncated
    self.recursionDesired = recursionDesired
    self.recursionAvailable = recursionAvailable
    self.checkingDisabled = checkingDisabled
    self.responseCode = responseCode
    self.questions = questions
    self.answers = answers
    self.authority = authority
    self.additional = additional
    self.edns = edns
  }

  /// A standard query as a client sends it.
  public static func query(
    id: UInt16, _ name: DNSName, _ type: DNSRecordType, recursionDesired: Bool = true,
    edns: DNSExtension? = DNSExtension(udpSize: UInt16(udpLimit))
  ) -> DNSMessage {
    DNSMessage(
      id: id, recursionDesired: recursionDesired, questions: [DNSQuestion(name: name, type: type)], edns: edns)
  }
}

/// A query that can be looked up: opcode 0, exactly one question, nothing malformed. Made by the stub from each
/// message that comes in.
public struct DNSQuery: Hashable, Sendable {
  public let message: DNSMessage
  public let question: DNSQuestion

  /// Most additional records a query may have: OPT, and room for a signature nobody here reads.
  public static let additionalLimit = 4

  /// Reads a message from a client. Throws what is to be done instead: drop it, or send this answer.
  ///
  /// - FORMERR: cut or malformed anywhere, bytes after the end, not exactly one question, records in the answer or
  ///   authority section, more than `additionalLimit` others, a compression pointer in the question, two OPT records.
  /// - NOTIMP: an opcode other than 0.
  /// - An EDNS version above 0 is a valid query here; it is answered with `badVersion`.
  public init(_ bytes: some Collection<UInt8>) throws(DNSError) {
    let bytes = Array(bytes)
    guard let header = DNSMessage(header: bytes), !header.isResponse else { throw .dropped }
    guard header.opcode == 0 else { throw .answered(Self.refusal(of: header, .notImplemented)) }
    guard Array(bytes[4..<10]) == [0, 1, 0, 0, 0, 0], bytes[10] == 0, bytes[11] <= Self.additionalLimit,
      let message = DNSMessage(bytes, allowsPointers: false),
      let question = message.questions.first
    else { throw .answered(Self.refusal(of: header, .formatError)) }
    self.message = message
    self.question = question
  }

  private static func refusal(of header: DNSMessage, _ code: DNSResponseCode) -> DNSMessage {
    DNSMessage(
      id: header.id, isResponse: true, opcode: header.opcode, recursionDesired: header.recursionDesired,
      checkingDisabled: header.checkingDisabled, responseCode: code)
  }

  /// Largest answer over UDP that the client takes and we send.
  public var udpLimit: Int {
    guard let edns = message.edns else { return DNSMessage.plainUDPLimit }
    return min(max(Int(edns.udpSize), DNSMessage.plainUDPLimit), DNSMessage.udpLimit)
  }

  /// The beginning of an answer: identifier, question and RD as in the query, an OPT record when the query had one, with
  /// the reason in it.
  public func answer(
    _ code: DNSResponseCode = .noError, isAuthoritative: Bool = true, answers: [DNSRecord] = [],
    authority: [DNSRecord] = [], additional: [DNSRecord] = [], reason: DNSExtendedError? = nil
  ) -> DNSMessage {
    DNSMessage(
      id: message.id, isResponse: true, isAuthoritative: isAuthoritative,
      recursionDesired: message.recursionDesired, checkingDisabled: message.checkingDisabled, responseCode: code,
      questions: [question], answers: answers, authority: authority, additional: additional,
      edns: message.edns.map {
        DNSExtension(udpSize: UInt16(DNSMessage.udpLimit), version: 0, wantsDNSSEC: $0.wantsDNSSEC, reason: reason)
      })
  }
}
