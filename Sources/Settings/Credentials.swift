// Secrets in files of their own: named by a setting, or handed over by the service manager (`LoadCredential=`,
// systemd.exec(5)), which names their folder in $CREDENTIALS_DIRECTORY. Used by the readers of both programs' settings.

import Glibc

/// Why a file with a secret cannot be used.
package struct SecretFault: Error, Equatable {
  package var message: String
  package var hint: String
}

package struct Credentials: Sendable {
  /// Nil when no service manager handed over any.
  package let directory: String?

  package init(environment: [String: String] = [:]) {
    let named = environment["CREDENTIALS_DIRECTORY"] ?? ""
    directory = named.hasPrefix("/") ? named : nil
  }

  /// The file of a credential, when it was handed over.
  package func path(of name: String) -> String? {
    directory.map { $0 + "/" + name }.flatMap { access($0, F_OK) == 0 ? $0 : nil }
  }

  /// The one line of a file. A name without a slash is that of a credential, when there are any. Files that others may
  /// read are refused; those of the service manager are not asked: their access list shows as the mode of a group.
  package func secret(at name: String) throws(SecretFault) -> String {
    let path = name.contains("/") ? name : directory.map { $0 + "/" + name } ?? name
    func fault(_ reason: String, _ hint: String) -> SecretFault {
      SecretFault(message: "\(path) cannot be used: \(reason)", hint: hint)
    }
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else {
      let number = errno
      throw fault(
        strerror(number).map { String(cString: $0) } ?? "it cannot be opened", Self.hint(opening: path, failed: number))
    }
    defer { close(descriptor) }
    var information = stat()
    let isHandedOver = directory.map { path.hasPrefix($0 + "/") } ?? false
    guard fstat(descriptor, &information) == 0, isHandedOver || information.st_mode & 0o077 == 0 else {
      throw fault("other users may read it", "chmod 600 \(path)")
    }
    // A secret is one line; a longer file is another one.
    var content = [UInt8](repeating: 0, count: 4097)
    let count = read(descriptor, &content, content.count)
    let isBlank: (UInt8) -> Bool = { [0x20, 0x09, 0x0A, 0x0D].contains($0) }
    var line = content.prefix(max(0, count)).drop(while: isBlank)
    while let last = line.last, isBlank(last) { line.removeLast() }
    let text = String(decoding: line, as: UTF8.self)
    guard count <= 4096, !text.isEmpty, !text.contains(where: \.isNewline), !text.unicodeScalars.contains("\0") else {
      throw fault("it is not one line", "the file holds the secret and nothing else")
    }
    return text
  }

  /// What helps when a file with a secret cannot be opened. A service whose user is made at its start (`DynamicUser=`)
  /// owns no file: to it the service manager has to hand it over.
  static func hint(opening path: String, failed number: Int32) -> String {
    guard number == EACCES || number == EPERM else {
      return "write the secret into the file, readable by the program's user only"
    }
    let name = path.split(separator: "/").last.map(String.init) ?? path
    return
      "chown it to the program's user, or have the service manager hand it over: LoadCredential=\(name):\(path) in "
      + "the unit, and \(name) in the setting in place of the path"
  }
}
