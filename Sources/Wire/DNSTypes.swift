// The vocabulary of DNS messages: codes, records, verdicts (RFC 1035, 3596, 6891). Used by `DNSMessage` and Naming.

/// Response codes. Those above 15 need EDNS.
public struct DNSResponseCode: RawRepresentable, Hashable, Sendable {
  /// 12 bits.
  public var rawValue: UInt16
  public init(rawValue: UInt16) { self.rawValue = rawValue & 0xFFF }
  public static let noError = DNSResponseCode(rawValue: 0)
  public static let formatError = DNSResponseCode(rawValue: 1)
  public static let serverFailure = DNSResponseCode(rawValue: 2)
  public static let nameError = DNSResponseCode(rawValue: 3)
  public static let notImplemented = DNSResponseCode(rawValue: 4)
  public static let refused = DNSResponseCode(rawValue: 5)
  public static let badVersion = DNSResponseCode(rawValue: 16)
}

public struct DNSRecordType: RawRepresentable, Hashable, Sendable {
  public var rawValue: UInt16
  public init(rawValue: UInt16) { self.rawValue = rawValue }
  public static let a = DNSRecordType(rawValue: 1)
  public static let ns = DNSRecordType(rawValue: 2)
  public static let soa = DNSRecordType(rawValue: 6)
  public static let ptr = DNSRecordType(rawValue: 12)
  public static let txt = DNSRecordType(rawValue: 16)
  public static let aaaa = DNSRecordType(rawValue: 28)
  public static let opt = DNSRecordType(rawValue: 41)
  public static let any = DNSRecordType(rawValue: 255)
}

public struct DNSClass: RawRepresentable, Hashable, Sendable {
  public var rawValue: UInt16
  public init(rawValue: UInt16) { self.rawValue = rawValue }
  public static let internet = DNSClass(rawValue: 1)
}

public struct DNSQuestion: Hashable, Sendable {
  public var name: DNSName
  public var type: DNSRecordType
  public var recordClass: DNSClass

  public init(name: DNSName, type: DNSRecordType, recordClass: DNSClass = .internet) {
    self.name = name
    self.type = type
    self.recordClass = recordClass
  }
}

/// Start of authority (RFC 1035 §3.3.13). `minimum` is the negative TTL, in seconds like all the others (RFC 2308).
public struct DNSStartOfAuthority: Hashable, Sendable {
  public var primary: DNSName
  public var mailbox: DNSName
  public var serial: UInt32
  public var refresh: UInt32
  public var retry: UInt32
  public var expire: UInt32
  public var minimum: UInt32

  public init(
    primary: DNSName, mailbox: DNSName, serial: UInt32, refresh: UInt32, retry: UInt32, expire: UInt32, minimum: UInt32
  ) {
    self.primary = primary
    self.mailbox = mailbox
    self.serial = serial
    self.refresh = refresh
    self.retry = retry
    self.expire = expire
    self.minimum = minimum
  }
}

public enum DNSRecordData: Hashable, Sendable {
  case a(UInt32)
  case aaaa(IPv6Address)
  case ns(DNSName)
  case ptr(DNSName)
  case soa(DNSStartOfAuthority)
  /// Strings of at most 255 bytes each; encoding cuts longer ones.
  case txt([[UInt8]])
  /// Any other type, or one of these in a class other than IN, with its data as it was.
  case other(DNSRecordType, [UInt8])

  public var type: DNSRecordType {
    switch self {
    case .a: .a
    case .aaaa: .aaaa
    case .ns: .ns
    case .ptr: .ptr
    case .soa: .soa
    case .txt: .txt
    case .other(let type, _): type
    }
  }
}

public struct DNSRecord: Hashable, Sendable {
  public var name: DNSName
  public var recordClass: DNSClass
  /// Seconds.
  public var ttl: UInt32
  public var data: DNSRecordData

  public init(name: DNSName, recordClass: DNSClass = .internet, ttl: UInt32, data: DNSRecordData) {
    self.name = name
    self.recordClass = recordClass
    self.ttl = ttl
    self.data = data
  }
}

/// Why an answer is as it is, for people (Extended DNS Errors, RFC 8914).
public struct DNSExtendedError: Hashable, Sendable {
  public var code: UInt16
  /// UTF-8 without a final zero, at most `textLimit` bytes.
  public private(set) var text: [UInt8]

  /// Leaves room for the longest question in 512 bytes.
  public static let textLimit = 128

  /// nil when the text is too long.
  public init?(code: UInt16, text: [UInt8]) {
    guard text.count <= Self.textLimit else { return nil }
    self.code = code
    self.text = text
  }

  /// Texts of our own; longer ones are cut.
  public init(code: UInt16, _ text: StaticString) {
    self.code = code
    self.text = Array(text.description.utf8.prefix(Self.textLimit))
  }
}

/// What the OPT record says (RFC 6891). Options other than the first extended error are checked for their form and left
/// out.
public struct DNSExtension: Hashable, Sendable {
  /// Largest UDP message its sender takes; values below 512 mean 512.
  public var udpSize: UInt16
  public var version: UInt8
  /// DNSSEC OK; copied into the answer.
  public var wantsDNSSEC: Bool
  public var reason: DNSExtendedError?

  public init(udpSize: UInt16, version: UInt8 = 0, wantsDNSSEC: Bool = false, reason: DNSExtendedError? = nil) {
    self.udpSize = udpSize
    self.version = version
    self.wantsDNSSEC = wantsDNSSEC
    self.reason = reason
  }

  /// Option code of extended errors (RFC 8914 §2).
  static let reasonOption: UInt16 = 15
}

/// Why bytes are not a query to look up.
public enum DNSError: Error, Equatable, Sendable {
  /// Not answered at all: too short to hold an identifier and flags, or itself a response (answering those loops).
  case dropped
  /// Answered with this header-only message: FORMERR or NOTIMP, same identifier, same opcode.
  case answered(DNSMessage)
}
