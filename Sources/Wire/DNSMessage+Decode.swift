// Reading DNS messages of unknown origin. Every loop is bounded by the bytes there are; compression pointers only lead
// backwards.

extension DNSMessage {
  /// The header alone; nil for fewer than 12 bytes.
  init?(header bytes: [UInt8]) {
    var reader = ByteReader(bytes)
    guard bytes.count >= Self.headerSize, let id = reader.u16(), let flags = reader.u16() else { return nil }
    self.init(
      id: id, isResponse: flags & 0x8000 != 0, opcode: UInt8(truncatingIfNeeded: flags >> 11 & 15),
      isAuthoritative: flags & 0x0400 != 0, isTruncated: flags & 0x0200 != 0, recursionDesired: flags & 0x0100 != 0,
      recursionAvailable: flags & 0x0080 != 0, checkingDisabled: flags & 0x0010 != 0,
      responseCode: DNSResponseCode(rawValue: flags & 15))
  }

  /// Reads a whole message, query or response; nil when anything is malformed, cut, or left over at the end.
  public init?(_ bytes: some Collection<UInt8>) { self.init(Array(bytes), allowsPointers: true) }

  init?(_ bytes: [UInt8], allowsPointers: Bool) {
    guard bytes.count <= Self.tcpLimit, let header = DNSMessage(header: bytes) else { return nil }
    self = header
    var parser = Parser(bytes: bytes, position: 4)
    guard let questionCount = parser.u16(), let answerCount = parser.u16(), let authorityCount = parser.u16(),
      let additionalCount = parser.u16()
    else { return nil }
    for _ in 0..<questionCount {
      guard let name = parser.name(allowsPointers: allowsPointers), let type = parser.u16(),
        let recordClass = parser.u16()
      else { return nil }
      questions.append(
        DNSQuestion(name: name, type: DNSRecordType(rawValue: type), recordClass: DNSClass(rawValue: recordClass)))
    }
    guard let answers = Self.records(&parser, count: answerCount),
      let authority = Self.records(&parser, count: authorityCount)
    else { return nil }
    self.answers = answers
    self.authority = authority
    for _ in 0..<additionalCount {
      guard let item = parser.record() else { return nil }
      switch item {
      case .record(let record): additional.append(record)
      case .edns(let found, let upperCode):
        guard edns == nil else { return nil }
        edns = found
        responseCode = DNSResponseCode(rawValue: UInt16(upperCode) << 4 | responseCode.rawValue)
      }
    }
    guard parser.position == bytes.count else { return nil }
  }

  /// Records of a section where OPT has no place.
  private static func records(_ parser: inout Parser, count: UInt16) -> [DNSRecord]? {
    var records: [DNSRecord] = []
    for _ in 0..<count {
      guard case .record(let record)? = parser.record() else { return nil }
      records.append(record)
    }
    return records
  }
}

/// A position in a message, and the reads that need the message around it (names).
private struct Parser {
  let bytes: [UInt8]
  var position: Int
  /// Where the record or message being read ends.
  var end: Int

  enum Item {
    case record(DNSRecord)
    case edns(DNSExtension, upperCode: UInt8)
  }

  init(bytes: [UInt8], position: Int) {
    self.bytes = bytes
    self.position = position
    end = bytes.count
  }

  mutating func byte() -> UInt8? {
    guard position < end else { return nil }
    defer { position += 1 }
    return bytes[position]
  }

  mutating func u16() -> UInt16? {
    guard end - position >= 2 else { return nil }
    defer { position += 2 }
    return UInt16(bytes[position]) << 8 | UInt16(bytes[position + 1])
  }

  mutating func u32() -> UInt32? {
    guard end - position >= 4, let high = u16(), let low = u16() else { return nil }
    return UInt32(high) << 16 | UInt32(low)
  }

  mutating func take(_ count: Int) -> [UInt8]? {
    guard count >= 0, end - position >= count else { return nil }
    defer { position += count }
    return Array(bytes[position..<(position + count)])
  }

  /// Reads a name. A pointer must lead before the place where the run of labels it ends began; so each jump goes
  /// further back, and the number of jumps is bounded by the message.
  mutating func name(allowsPointers: Bool = true) -> DNSName? {
    var labels: [[UInt8]] = []
    var size = 1
    var cursor = position
    var runStart = position
    var limit = end
    var hasJumped = false
    while true {
      guard cursor < limit else { return nil }
      let length = Int(bytes[cursor])
      switch length {
      case 0:
        if !hasJumped { position = cursor + 1 }
        return DNSName(labels: labels)
      case 1...DNSName.labelLimit:
        guard limit - cursor > length else { return nil }
        size += 1 + length
        guard size <= DNSName.wireLimit else { return nil }
        labels.append(Array(bytes[(cursor + 1)...(cursor + length)]))
        cursor += 1 + length
      case 0xC0...:
        guard allowsPointers, limit - cursor >= 2 else { return nil }
        let target = (length & 0x3F) << 8 | Int(bytes[cursor + 1])
        guard target >= DNSMessage.headerSize, target < runStart else { return nil }
        if !hasJumped { position = cursor + 2 }
        hasJumped = true
        // INVARIANT: cursor < limit = old runStart from here on, so runs never overlap what was read.
        limit = runStart
        runStart = target
        cursor = target
      default: return nil
      }
    }
  }

  mutating func record() -> Item? {
    guard let name = name(), let type = u16(), let recordClass = u16(), let ttl = u32(), let length = u16(),
      end - position >= Int(length)
    else { return nil }
    let outerEnd = end
    end = position + Int(length)
    defer { end = outerEnd }
    if type == DNSRecordType.opt.rawValue {
      guard name.isRoot else { return nil }
      var edns = DNSExtension(
        udpSize: recordClass, version: UInt8(truncatingIfNeeded: ttl >> 16), wantsDNSSEC: ttl & 0x8000 != 0)
      while position < end {
        guard let option = u16(), let size = u16(), let data = take(Int(size)) else { return nil }
        // One that is too short, or too long to be for people, is ignored as any unknown option.
        if option == DNSExtension.reasonOption, edns.reason == nil, data.count >= 2 {
          edns.reason = DNSExtendedError(code: UInt16(data[0]) << 8 | UInt16(data[1]), text: Array(data.dropFirst(2)))
        }
      }
      return .edns(edns, upperCode: UInt8(truncatingIfNeeded: ttl >> 24))
    }
    guard let data = data(type: DNSRecordType(rawValue: type), recordClass: DNSClass(rawValue: recordClass)),
      position == end
    else { return nil }
    return .record(DNSRecord(name: name, recordClass: DNSClass(rawValue: recordClass), ttl: ttl, data: data))
  }

  private mutating func data(type: DNSRecordType, recordClass: DNSClass) -> DNSRecordData? {
    guard recordClass == .internet else { return take(end - position).map { .other(type, $0) } }
    switch type {
    case .a: return u32().map { .a($0) }
    case .aaaa:
      guard let a = u32(), let b = u32(), let c = u32(), let d = u32() else { return nil }
      return .aaaa(IPv6Address(high: UInt64(a) << 32 | UInt64(b), low: UInt64(c) << 32 | UInt64(d)))
    case .ns: return name().map { .ns($0) }
    case .ptr: return name().map { .ptr($0) }
    case .soa:
      guard let primary = name(), let mailbox = name(), let serial = u32(), let refresh = u32(), let retry = u32(),
        let expire = u32(), let minimum = u32()
      else { return nil }
      return .soa(
        DNSStartOfAuthority(
          primary: primary, mailbox: mailbox, serial: serial, refresh: refresh, retry: retry, expire: expire,
          minimum: minimum))
    case .txt:
      var strings: [[UInt8]] = []
      while position < end {
        guard let size = byte(), let text = take(Int(size)) else { return nil }
        strings.append(text)
      }
      return strings.isEmpty ? nil : .txt(strings)
    default: return take(end - position).map { .other(type, $0) }
    }
  }
}
