// Bounds what the other end may say before a connection is what was asked for. Stands before an HTTP decoder, which bounds
// header fields but neither the status line nor what is told again and again.

import NIOCore

final class HeadLimit: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = ByteBuffer
  typealias InboundOut = ByteBuffer

  struct Exceeded: Error {}

  static let name = "head-limit"
  private static let most = 64 << 10

  private var count = 0

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    let isBelow = count <= Self.most
    count += unwrapInboundIn(data).readableBytes
    if count <= Self.most {
      context.fireChannelRead(data)
    } else if isBelow {
      context.fireErrorCaught(Exceeded())
    }
  }
}
