// Which HTTP proxy a connection goes through, as users write it: a URL, and the hosts that need none. Read from settings
// by TunControl, used by TLSDialer.

import Wire

/// An HTTP proxy that understands CONNECT. The credentials are kept apart from what is shown.
package struct ProxyAddress: Equatable, Sendable {
  package var host: String
  package var port: UInt16
  package var credentials: ProxyCredentials?

  package init(host: String, port: UInt16, credentials: ProxyCredentials? = nil) {
    self.host = host
    self.port = port
    self.credentials = credentials
  }

  /// Why a text is no proxy. No case holds the text: it may have a password in it.
  package enum Fault: Error, Equatable {
    case unsupportedScheme
    case malformed
  }

  /// Parses `http://[USER:PASSWORD@]HOST[:PORT][/]` and `HOST:PORT`. User and password are percent-decoded (RFC 3986
  /// §3.2.1); the default port is 80.
  package init(parsing text: some StringProtocol) throws(Fault) {
    var rest = Substring(text)
    if let end = rest.range(ofText: "://") {
      guard rest[..<end.lowerBound].lowercased() == "http" else { throw .unsupportedScheme }
      rest = rest[end.upperBound...]
    }
    if rest.hasSuffix("/") { rest.removeLast() }
    var credentials: ProxyCredentials?
    if let at = rest.lastIndex(of: "@") {
      guard let read = ProxyCredentials(userInfo: rest[..<at]) else { throw .malformed }
      credentials = read
      rest = rest[rest.index(after: at)...]
    }
    var host = rest
    var port: UInt16 = 80
    if rest.hasPrefix("[") {
      guard let end = rest.firstIndex(of: "]") else { throw .malformed }
      host = rest[rest.index(after: rest.startIndex)..<end]
      guard IPv6Address(host) != nil else { throw .malformed }
      rest = rest[rest.index(after: end)...]
      if !rest.isEmpty {
        guard rest.hasPrefix(":"), let number = Self.port(rest.dropFirst()) else { throw .malformed }
        port = number
      }
    } else if let colon = rest.firstIndex(of: ":") {
      guard let number = Self.port(rest[rest.index(after: colon)...]) else { throw .malformed }
      host = rest[..<colon]
      port = number
    }
    let isHost = host.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && !"/@?#[]\\%\"".utf8.contains($0) }
    guard !host.isEmpty, host.utf8.count <= 253, isHost else { throw .malformed }
    self.init(host: String(host), port: port, credentials: credentials)
  }

  static func port(_ digits: some StringProtocol) -> UInt16? {
    guard digits.utf8.allSatisfy({ (48...57).contains($0) }), let port = UInt16(digits), port != 0 else { return nil }
    return port
  }
}

extension ProxyAddress: CustomStringConvertible {
  /// Without the credentials, so that a log line can hold it.
  package var description: String { host.contains(":") ? "http://[\(host)]:\(port)" : "http://\(host):\(port)" }
}

/// The value of a `Proxy-Authorization` header (RFC 9110 §11.7.2). Its description tells nothing.
package struct ProxyCredentials: Equatable, Sendable, CustomStringConvertible, CustomDebugStringConvertible,
  CustomReflectable
{
  let authorization: String

  package init(user: String, password: String) {
    self.init(authorization: "Basic " + Base64.encode(Array("\(user):\(password)".utf8)))
  }

  private init(authorization: String) { self.authorization = authorization }

  /// The part of a URL before `@`: `USER[:PASSWORD]`, percent-encoded.
  init?(userInfo: some StringProtocol) {
    let parts = userInfo.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
    guard let user = parts.first.flatMap({ Self.decoded($0) }), !user.isEmpty,
      let password = parts.count == 2 ? Self.decoded(parts[1]) : ""
    else { return nil }
    self.init(user: user, password: password)
  }

  /// What a credentials command prints, its first line: `USER:PASSWORD`, a proxy's URL with both in it, or a whole
  /// header value such as `Bearer TOKEN`. nil for anything else.
  package init?(printed text: some StringProtocol) {
    guard let first = text.split(whereSeparator: \.isNewline).first else { return nil }
    let line = first.drop { $0 == " " || $0 == "\t" }
    guard !line.isEmpty, line.utf8.count <= 4096, line.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7F }) else { return nil }
    if line.range(ofText: "://") != nil {
      guard let address = try? ProxyAddress(parsing: line), let credentials = address.credentials else { return nil }
      self = credentials
      return
    }
    let words = line.split(separator: " ")
    if words.count == 2, ["basic", "bearer"].contains(words[0].lowercased()), line.utf8.allSatisfy({ $0 < 0x7F }) {
      self.init(authorization: words.joined(separator: " "))
      return
    }
    guard let colon = line.firstIndex(of: ":"), colon != line.startIndex else { return nil }
    self.init(user: String(line[..<colon]), password: String(line[line.index(after: colon)...]))
  }

  private static func decoded(_ text: some StringProtocol) -> String? {
    var bytes: [UInt8] = []
    var rest = Array(text.utf8)[...]
    while let byte = rest.popFirst() {
      guard byte == UInt8(ascii: "%") else {
        guard byte >= 0x20, byte != 0x7F else { return nil }
        bytes.append(byte)
        continue
      }
      guard rest.count >= 2 else { return nil }
      let digits = String(decoding: rest.prefix(2), as: UTF8.self)
      guard digits.allSatisfy(\.isHexDigit), let value = UInt8(digits, radix: 16), value >= 0x20, value != 0x7F else {
        return nil
      }
      bytes.append(value)
      rest = rest.dropFirst(2)
    }
    return String(validating: bytes, as: UTF8.self)
  }

  package var description: String { "proxy credentials" }
  package var debugDescription: String { description }
  package var customMirror: Mirror { Mirror(self, children: [:]) }
}

/// The hosts that are reached without the proxy: the value of `NO_PROXY`, as curl and others read it. Entries are
/// separated by commas: a host name, which stands for what is under it as well (with or without a leading dot), an
/// address, a range `ADDRESS/LENGTH`, each with `:PORT` if only that is meant; `*` is every host.
package struct ProxyExceptions: Equatable, Sendable {
  private struct Entry: Equatable, Sendable {
    var host: String
    var address: IPv6Address?
    var prefixLength = 128
    var port: UInt16?
  }

  private var entries: [Entry] = []
  private var isEverything = false

  package init(_ text: String) {
    for part in text.split(whereSeparator: { $0 == "," || $0.isWhitespace }).prefix(1024) { add(part) }
  }

  /// What makes no sense excepts nothing.
  private mutating func add(_ part: Substring) {
    if part == "*" {
      isEverything = true
      return
    }
    var entry = Entry(host: "")
    var rest = part
    if let slash = rest.lastIndex(of: "/") {
      guard let address = IPv6Address(rest[..<slash]), let length = Int(rest[rest.index(after: slash)...]) else {
        return
      }
      let spare = address.mappedIPv4 == nil ? 0 : 96
      guard (0...128 - spare).contains(length) else { return }
      entry.address = address
      entry.prefixLength = length + spare
      entries.append(entry)
      return
    }
    if rest.hasPrefix("["), let end = rest.firstIndex(of: "]") {
      let after = rest[rest.index(after: end)...]
      if after.hasPrefix(":") { entry.port = ProxyAddress.port(after.dropFirst()) }
      rest = rest[rest.index(after: rest.startIndex)..<end]
    } else if let colon = rest.lastIndex(of: ":"), rest.firstIndex(of: ":") == colon {
      guard let port = ProxyAddress.port(rest[rest.index(after: colon)...]) else { return }
      entry.port = port
      rest = rest[..<colon]
    }
    entry.address = IPv6Address(rest)
    entry.host = String(rest.drop { $0 == "." || $0 == "*" }).lowercased()
    if !entry.host.isEmpty { entries.append(entry) }
  }

  /// Whether `host` (a name or an address) is reached without the proxy. This machine always is.
  package func contains(_ host: String, port: UInt16) -> Bool {
    let name = host.lowercased()
    let address = IPv6Address(host)
    if isEverything || name == "localhost" || address.map(Self.isLoopback) == true { return true }
    return entries.contains { entry in
      if let wanted = entry.port, wanted != port { return false }
      if let range = entry.address {
        return address.map { Self.prefix($0, entry.prefixLength) == Self.prefix(range, entry.prefixLength) } ?? false
      }
      return name == entry.host || name.hasSuffix("." + entry.host)
    }
  }

  private static func isLoopback(_ address: IPv6Address) -> Bool {
    address.mappedIPv4.map { $0 >> 24 == 127 } ?? (address.high == 0 && address.low == 1)
  }

  private static func prefix(_ address: IPv6Address, _ length: Int) -> IPv6Address {
    func mask(_ bits: Int) -> UInt64 { bits <= 0 ? 0 : bits >= 64 ? .max : ~(UInt64.max >> UInt64(bits)) }
    return IPv6Address(high: address.high & mask(length), low: address.low & mask(length - 64))
  }
}

extension StringProtocol {
  /// The first place of an ASCII text.
  fileprivate func range(ofText text: String) -> Range<Index>? {
    var start = startIndex
    while start < endIndex {
      if self[start...].hasPrefix(text) { return start..<index(start, offsetBy: text.count) }
      start = index(after: start)
    }
    return nil
  }
}
