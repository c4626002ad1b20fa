// Conversations with an official daemon, packet by packet: Tests/Vectors/transcripts.json and malformed twins. There is
// no stream machine yet: these are the packets that it will have to send and to take.

import Testing
import Wire

private struct Transcripts: Decodable {
  struct Line: Decodable {
    let dir: String
    let packet: Hex
    /// `p1 SA source:port>destination:port seq=… ack=… win=… len=…`, written by whoever recorded it.
    let text: String
  }
  let echo: [Line]
  let outOfOrder: [Line]
  let closedPort: [Line]
  let dataExchange: [Line]

  var all: [(name: String, lines: [Line])] {
    [("echo", echo), ("out of order", outOfOrder), ("closed port", closedPort), ("data exchange", dataExchange)]
  }
}

/// The packet in the words of the recording.
private func describe(_ packet: PilotPacket) -> String {
  let flags = [(PilotFlags.syn, "S"), (.ack, "A"), (.fin, "F"), (.rst, "R")].map { packet.flags.contains($0) ? $1 : "" }
  return "p\(packet.protocolNumber.rawValue) \(flags.joined()) \(packet.source):\(packet.sourcePort)"
    + ">\(packet.destination):\(packet.destinationPort) seq=\(packet.sequence) ack=\(packet.acknowledgement)"
    + " win=\(packet.window) len=\(packet.payload.count)"
}

@Suite("Recorded conversations")
struct TranscriptTests {
  private func transcripts() throws -> Transcripts { try Source.vectors("transcripts") }

  @Test("every recorded packet reads as its text says, and is written back byte for byte")
  func packets() throws {
    let transcripts = try transcripts()
    #expect(transcripts.all.map(\.lines.count) == [9, 15, 2, 9])
    for (name, lines) in transcripts.all {
      for (number, line) in lines.enumerated() {
        let packet = try PilotPacket(line.packet.bytes)
        #expect(describe(packet) == line.text, "\(name), packet \(number)")
        #expect(packet.encoded() == line.packet.bytes, "\(name), packet \(number)")
        #expect(InnerKind(line.packet.bytes) == .pilot)
        #expect(PilotPacket.trailer(of: line.packet.bytes).isEmpty)
        #expect(!packet.isPing && !packet.isPong && !packet.isKeepalive)
        #expect(packet.pong(own: packet.destination) == nil)
        let isOurs = line.dir == "send"
        #expect((packet.source.node == 0x52) == isOurs && (packet.destination.node == 0x52) != isOurs)
      }
    }
  }

  @Test("cut anywhere, or with any bit changed, a recorded packet is refused with its reason")
  func malformed() throws {
    for (name, lines) in try transcripts().all {
      for line in lines {
        let bytes = line.packet.bytes
        for count in 0..<bytes.count {
          let expected: PilotPacketFault = count < PilotPacket.headerSize ? .truncated : .length
          guard fault(Array(bytes.prefix(count))) != expected else { continue }
          Issue.record("\(name), \(count) bytes of \(line.text)")
        }
        for bit in 0..<(bytes.count * 8) {
          var twin = bytes
          twin[bit / 8] ^= 0x80 >> (bit % 8)
          // With a shorter length the rest is a trailer, and only the checksum tells.
          let isLonger = (16..<32).contains(bit) && bytes[2...3].lexicographicallyPrecedes(twin[2...3])
          let expected: PilotPacketFault = bit < 4 ? .version : isLonger ? .length : .checksum
          guard fault(twin) != expected else { continue }
          Issue.record("\(name), bit \(bit) of \(line.text)")
        }
      }
    }
  }

  /// Why the bytes are no packet; nil when they are one.
  private func fault(_ bytes: [UInt8]) -> PilotPacketFault? {
    do {
      _ = try PilotPacket(bytes)
      return nil
    } catch {
      return error
    }
  }

  @Test("the acknowledgements of segments out of order are SACKs, and no data is taken for one")
  func acknowledgements() throws {
    let transcripts = try transcripts()
    for (name, lines) in transcripts.all where name != "out of order" {
      for line in lines {
        #expect(!SelectiveAcknowledgement.matches(try PilotPacket(line.packet.bytes).payload), "\(name)")
      }
    }
    let payloads = try transcripts.outOfOrder.map { try PilotPacket($0.packet.bytes).payload }
    let sacks = payloads.compactMap { SelectiveAcknowledgement($0) }
    #expect(sacks.map { $0.blocks.map { [$0.left, $0.right] } } == [[[21, 31]], [[11, 31]]])
    #expect(sacks.map { $0.encoded() } == payloads.filter { $0.count == 13 })
    for payload in payloads where payload.count == 13 {
      for count in 0..<payload.count { #expect(SelectiveAcknowledgement(payload.prefix(count)) == nil) }
    }
  }
}
