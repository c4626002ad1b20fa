// identity.json: the node's Ed25519 key, in the form official programs use (wire/registry §3.1). Read and made by
// NodeStore at start; replaced only when the operator has the key rotated.

import Glibc
import JSON
import Session
import Wire

enum IdentityFile {
  private static let remedy =
    "restore the file from a backup; or move it away to get a new identity, and with it a new address"

  /// Loads the identity, or makes one when there is no file. A file that cannot be used is never touched.
  static func loadOrCreate(_ path: String) throws(DirectoryError) -> Identity {
    do {
      return try load(path)
    } catch {
      guard error.reason == .notFound else { throw error }
    }
    let identity = Identity.generate()
    try save(identity, to: path, replaces: false)
    return identity
  }

  static func save(_ identity: Identity, to path: String, replaces: Bool) throws(DirectoryError) {
    let file = JSONValue.object([
      "private_key": .text(Base64.encode(identity.withSeed { Array($0) } + identity.publicKey.bytes)),
      "public_key": .text(Base64.encode(identity.publicKey.bytes)),
    ])
    do {
      try StateFile.write(file.encoded + [UInt8(ascii: "\n")], to: path, replaces: replaces)
    } catch {
      throw DirectoryError(
        .stateDirectoryUnavailable, "the new identity cannot be saved: \(error.text)",
        hint: "make the state directory writable for this user and check the free space")
    }
  }

  static func load(_ path: String) throws(DirectoryError) -> Identity {
    let content: StateFileContent
    do {
      content = try StateFile.read(path, limit: 4096)
    } catch {
      if error.isMissing { throw DirectoryError(.notFound, error.text) }
      if error.errno == EFBIG || error.errno == EINVAL || error.errno == ELOOP {
        throw DirectoryError(.identityMalformed, "\(path) is no identity file (\(error.text))", hint: remedy)
      }
      throw DirectoryError(
        .identityUnreadable, "the identity cannot be read: \(error.text)",
        hint: "run the node as the user who owns the file; it is not replaced")
    }
    guard content.mode & 0o077 == 0 else {
      let digits = String(content.mode & 0o777, radix: 8)
      throw DirectoryError(
        .identityInsecure, "\(path) can be read or written by others (mode \(digits))",
        hint: "chmod 600 \(path); if somebody may have copied it, move it away to get a new identity")
    }
    guard let value = try? JSONValue(parsing: content.bytes),
      let secret = value["private_key"]?.text.flatMap({ Base64.decode($0) }), secret.count == 64,
      let named = value["public_key"]?.text.flatMap({ Base64.decode($0) }), let publicKey = Bytes32(named),
      let seed = Bytes32(secret.prefix(32)), Bytes32(secret.suffix(32)) == publicKey
    else {
      throw DirectoryError(
        .identityMalformed, "\(path) holds no identity (it needs private_key, 64 bytes, and public_key, 32 bytes)",
        hint: remedy)
    }
    let identity = Identity(seed: seed)
    guard identity.publicKey == publicKey else {
      throw DirectoryError(
        .identityMalformed, "\(path): the public key does not belong to the private key", hint: remedy)
    }
    return identity
  }
}
