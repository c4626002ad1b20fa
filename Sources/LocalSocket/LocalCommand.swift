// The command numbers of the local socket, and the frames that leave by it (wire/ipc §2, §5).

import Wire

/// The first byte of a payload. Numbers that are not here are answered with `unknown command`.
enum LocalCommand: UInt8 {
  case bind = 0x01
  case dial = 0x03
  case send = 0x06
  case close = 0x08
  case sendTo = 0x0B
  case info = 0x0D
  case handshake = 0x0F
  case resolveHostname = 0x11
  case setHostname = 0x13
  case setVisibility = 0x15
  case deregister = 0x17
  case setTags = 0x19
  case setWebhook = 0x1B
  case network = 0x1F
  case health = 0x21
  case managed = 0x23
  case rotateKey = 0x25
  case broadcast = 0x29
  case cancel = 0x2B
  case preferDirect = 0x2D
  case submitBadge = 0x2F
  case enrollRecovery = 0x31
  case signEnvelope = 0x33
  case verifyEnvelope = 0x35
  case unbind = 0x37
  case sendToConfirm = 0x39

  /// A request's own success number is the next one.
  var success: UInt8 { rawValue + 1 }

  /// Success without a body, whatever the answer is.
  var hasEmptySuccess: Bool { self == .broadcast || self == .sendToConfirm }

  /// Answered in the order in which they came; everything else as soon as its answer is there.
  var isOrdered: Bool { self == .health || self == .sendToConfirm }

  /// Every Error for this request has to begin so: it is how drivers recognise whose it is.
  var errorPrefix: String { self == .sendToConfirm ? "sendto: " : "" }
}

/// A frame to a client: `u32(length) number body`.
enum LocalFrame {
  static let dialOK: UInt8 = 0x04
  static let accept: UInt8 = 0x05
  static let recv: UInt8 = 0x07
  static let closeOK: UInt8 = 0x09
  static let error: UInt8 = 0x0A
  static let recvFrom: UInt8 = 0x0C

  /// All errors have this code.
  static let errorCode: UInt16 = 1

  static func make(_ number: UInt8, _ body: some Collection<UInt8>) -> [UInt8] {
    var frame: [UInt8] = []
    frame.reserveCapacity(5 + body.count)
    frame.appendBig(UInt32(1 + body.count))
    frame.append(number)
    frame.append(contentsOf: body)
    return frame
  }

  static func make(_ number: UInt8, _ value: some FixedWidthInteger) -> [UInt8] {
    var body: [UInt8] = []
    body.appendBig(value)
    return make(number, body)
  }

  static func error(_ text: String) -> [UInt8] {
    var body: [UInt8] = []
    body.appendBig(errorCode)
    // One line, not empty, and short whatever it was made from.
    for scalar in text.unicodeScalars.prefix(1000) {
      body += String(scalar.value < 0x20 || scalar.value == 0x7F ? " " : scalar).utf8
    }
    if body.count == 2 { body += "failed".utf8 }
    return make(error, body)
  }

  static func recv(_ stream: StreamID, _ data: ArraySlice<UInt8>) -> [UInt8] {
    var frame: [UInt8] = []
    frame.reserveCapacity(9 + data.count)
    frame.appendBig(UInt32(5 + data.count))
    frame.append(recv)
    frame.appendBig(stream.number)
    frame += data
    return frame
  }

  static func accept(port: UInt16, _ stream: StreamID, _ remote: PilotAddress, _ remotePort: UInt16) -> [UInt8] {
    var body: [UInt8] = []
    body.appendBig(port)
    body.appendBig(stream.number)
    body.appendBig(remote)
    body.appendBig(remotePort)
    return make(accept, body)
  }

  static func recvFrom(
    _ source: PilotAddress, _ sourcePort: UInt16, _ destinationPort: UInt16, _ data: [UInt8]
  ) -> [UInt8] {
    var body: [UInt8] = []
    body.appendBig(source)
    body.appendBig(sourcePort)
    body.appendBig(destinationPort)
    body += data
    return make(recvFrom, body)
  }
}

extension [UInt8] {
  mutating func appendBig(_ address: PilotAddress) {
    appendBig(address.network)
    appendBig(address.node)
  }
}

extension ByteReader {
  mutating func address() -> PilotAddress? {
    guard remaining >= PilotAddress.byteCount, let network = u16(), let node = u32() else { return nil }
    return PilotAddress(network: network, node: node)
  }
}

/// `0xNN`, as the deployed texts write numbers.
func hexadecimal(_ byte: UInt8) -> String {
  "0x" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
}
