// Writing DNS messages, with name compression (RFC 1035 §4.1.4) and truncation to a size (RFC 2181 §9).

extension DNSMessage {
  /// The message in at most `limit` bytes. Records that do not fit are left out, from the end; when answers or
  /// authority records are among them the message says that it is truncated. One question and OPT
  /// always stay: the limit is taken as 512 at least.
  public func encoded(limit: Int = DNSMessage.tcpLimit) -> [UInt8] {
    let limit = min(max(limit, Self.plainUDPLimit), Self.tcpLimit)
    var writer = Writer(limit: limit - (edns.map(Writer.size) ?? 0))
    writer.bytes = [UInt8](repeating: 0, count: Self.headerSize)
    let questionCount = writer.append(questions) { $0.question($1) }
    var isCut = questionCount < questions.count
    let answerCount = isCut ? 0 : writer.append(answers) { $0.record($1) }
    isCut = isCut || answerCount < answers.count
    let authorityCount = isCut ? 0 : writer.append(authority) { $0.record($1) }
    isCut = isCut || authorityCount < authority.count
    var additionalCount = isCut ? 0 : writer.append(additional) { $0.record($1) }
    if let edns {
      writer.opt(edns, upperCode: UInt8(truncatingIfNeeded: responseCode.rawValue >> 4))
      additionalCount += 1
    }
    let counts = [questionCount, answerCount, authorityCount, additionalCount]
    writer.bytes.withUnsafeMutableBytes { bytes in
      guard let base = bytes.baseAddress else { return }
      base.storeBig16(id, 0)
      base.storeBig16(flags(isTruncated: isTruncated || isCut), 2)
      for (index, count) in counts.enumerated() { base.storeBig16(UInt16(clamping: count), 4 + 2 * index) }
    }
    return writer.bytes
  }

  private func flags(isTruncated: Bool) -> UInt16 {
    var flags = UInt16(opcode & 15) << 11 | responseCode.rawValue & 15
    if isResponse { flags |= 0x8000 }
    if isAuthoritative { flags |= 0x0400 }
    if isTruncated { flags |= 0x0200 }
    if recursionDesired { flags |= 0x0100 }
    if recursionAvailable { flags |= 0x0080 }
    if checkingDisabled { flags |= 0x0010 }
    return flags
  }
}

private struct Writer {
  var bytes: [UInt8] = []
  let limit: Int
  /// Names already written, with every suffix of theirs, and where.
  private var known: [DNSName: Int] = [:]

  /// Bytes of the OPT record.
  static func size(of edns: DNSExtension) -> Int { 11 + (edns.reason.map { 6 + $0.text.count } ?? 0) }

  init(limit: Int) { self.limit = limit }

  /// Writes items until one does not fit, and takes that one back. Returns how many are in.
  ///
  /// INVARIANT: no name is written after an item was taken back (`known` may still point into it): the sections that
  /// follow stay empty, and the OPT record's name is the root.
  mutating func append<Item>(_ items: [Item], _ write: (inout Writer, Item) -> Void) -> Int {
    var count = 0
    for item in items {
      let start = bytes.count
      write(&self, item)
      guard bytes.count <= limit else {
        bytes.removeLast(bytes.count - start)
        break
      }
      count += 1
    }
    return count
  }

  mutating func question(_ question: DNSQuestion) {
    name(question.name)
    bytes.appendBig(question.type.rawValue)
    bytes.appendBig(question.recordClass.rawValue)
  }

  /// Compression ignores case: an owner that differs from the question in case only is written as a pointer to it.
  mutating func name(_ name: DNSName) {
    var rest = name
    while let label = rest.labels.first {
      if let offset = known[rest] {
        bytes.appendBig(0xC000 | UInt16(offset))
        return
      }
      if bytes.count < 0x4000 { known[rest] = bytes.count }
      bytes.append(UInt8(label.count))
      bytes += label
      rest = rest.parent ?? .root
    }
    bytes.append(0)
  }

  mutating func record(_ record: DNSRecord) {
    name(record.name)
    bytes.appendBig(record.data.type.rawValue)
    bytes.appendBig(record.recordClass.rawValue)
    bytes.appendBig(record.ttl)
    let lengthOffset = bytes.count
    bytes.appendBig(UInt16(0))
    data(record.data)
    let length = UInt16(clamping: bytes.count - lengthOffset - 2)
    bytes[lengthOffset] = UInt8(length >> 8)
    bytes[lengthOffset + 1] = UInt8(truncatingIfNeeded: length)
  }

  private mutating func data(_ data: DNSRecordData) {
    switch data {
    case .a(let address): bytes.appendBig(address)
    case .aaaa(let address): bytes += address.bytes
    case .ns(let target), .ptr(let target): name(target)
    case .soa(let soa):
      name(soa.primary)
      name(soa.mailbox)
      for value in [soa.serial, soa.refresh, soa.retry, soa.expire, soa.minimum] { bytes.appendBig(value) }
    case .txt(let strings):
      for string in strings.isEmpty ? [[]] : strings {
        bytes.append(UInt8(min(string.count, 255)))
        bytes += string.prefix(255)
      }
    case .other(_, let raw): bytes += raw
    }
  }

  mutating func opt(_ edns: DNSExtension, upperCode: UInt8) {
    bytes.append(0)
    bytes.appendBig(DNSRecordType.opt.rawValue)
    bytes.appendBig(edns.udpSize)
    bytes += [upperCode, edns.version, edns.wantsDNSSEC ? 0x80 : 0, 0]
    guard let reason = edns.reason else { return bytes.appendBig(UInt16(0)) }
    bytes.appendBig(UInt16(6 + reason.text.count))
    bytes.appendBig(DNSExtension.reasonOption)
    bytes.appendBig(UInt16(2 + reason.text.count))
    bytes.appendBig(reason.code)
    bytes += reason.text
  }
}
