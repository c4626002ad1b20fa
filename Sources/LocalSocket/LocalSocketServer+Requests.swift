// Requests that somebody else answers, and their answers (wire/ipc §6).

extension LocalSocketServer {
  /// Notes a request of this client that is under way.
  mutating func request(_ command: LocalCommand, _ id: ClientID) -> RequestID {
    let request = nextRequest()
    requests[request] = Request(client: id, command: command)
    clients[id]?.unanswered += 1
    if command.isOrdered { clients[id]?.ordered.append(request) }
    return request
  }

  /// The answer to `ask` (JSON) or to a datagram that is confirmed (nothing). The first one counts; one that nobody
  /// waits for is dropped. Every request has to be answered some time: clients wait for ever.
  package mutating func answered(_ request: RequestID, _ answer: Result<[UInt8], LocalError>, now: UInt64) {
    guard let asked = requests.removeValue(forKey: request) else { return }
    let frame = Self.frame(asked.command, answer)
    let id = asked.client
    if asked.command.isOrdered {
      clients[id]?.early[request] = frame
      while let first = clients[id]?.ordered.first, let frame = clients[id]?.early.removeValue(forKey: first) {
        clients[id]?.ordered.removeFirst()
        clients[id]?.unanswered -= 1
        queue(frame, to: id, now)
      }
    } else {
      clients[id]?.unanswered -= 1
      queue(frame, to: id, now)
    }
    resumeWork(id, now)
  }

  private static func frame(_ command: LocalCommand, _ answer: Result<[UInt8], LocalError>) -> [UInt8] {
    switch answer {
    case .success(let json):
      let body = command.hasEmptySuccess ? [] : json
      guard body.count <= LocalSocketLimits.replyBody else {
        return LocalFrame.error(command.errorPrefix + "the reply is too long for a frame: \(body.count) bytes")
      }
      return LocalFrame.make(command.success, body)
    case .failure(let error):
      let hasPrefix = error.text.hasPrefix(command.errorPrefix)
      return LocalFrame.error(hasPrefix ? error.text : command.errorPrefix + error.text)
    }
  }
}
