// ICMPv6 errors: to local programs through the TUN, to peers through their tunnel. Limited to 200 a second.

internal import Session
internal import Shim
internal import Wire

extension Worker {
  /// Tells a local program at once why its packet goes nowhere (RFC 4443 §3.1, §3.2).
  @inline(never)
  mutating func answerLocally(_ packet: UnsafeMutableRawPointer, length: Int, _ error: ICMPv6.Message) {
    guard localAddressCount > 0 else { return }
    guard icmpBudget.take(now: now) else { return counters.drop(.icmpOverLimit) }
    let place = answer + VirtioHeader.byteCount
    let size = ICMPv6.writeError(
      error, inReplyTo: packet, count: length, from: localAddresses[0],
      to: UnsafeMutableRawBufferPointer(start: place, count: ICMPv6.maximumSize))
    guard size > 0 else { return }
    counters.count(.icmpAnswers)
    writePacket(place, length: size)
  }

  /// Tells a peer that its packet was refused: administratively prohibited.
  @inline(never)
  mutating func answerPeer(
    _ packet: UnsafeMutableRawPointer, length: Int, index: PeerIndex, row: UnsafeMutablePointer<PeerRow>
  ) {
    guard row.pointee.current != 0, row.pointee.takesRawIPv6, row.pointee.path != .none else { return }
    guard peerAnswerBudget.take(now: now) else { return counters.drop(.icmpOverLimit) }
    let size = ICMPv6.writeError(
      .unreachable(.prohibited), inReplyTo: packet, count: length, from: IPv6Address(packet, at: 24),
      to: UnsafeMutableRawBufferPointer(start: answer, count: ICMPv6.maximumSize))
    guard size > 0 else { return }
    let session = store.sessions + Int(row.pointee.current &- 1)
    guard sealPacket(answer, length: size, limit: frameLimit(row), index: index, row: row, session: session) else {
      return
    }
    counters.count(.icmpAnswers)
  }
}
