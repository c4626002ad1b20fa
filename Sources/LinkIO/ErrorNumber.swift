// Names of the error numbers a person may meet, so that messages say EBUSY and not 16. Linux, generic numbering.

package enum ErrorNumber {
  package static let notPermitted: Int32 = 1
  package static let noEntry: Int32 = 2
  package static let interrupted: Int32 = 4
  package static let ioError: Int32 = 5
  package static let noDevice: Int32 = 19
  package static let tryAgain: Int32 = 11
  package static let accessDenied: Int32 = 13
  package static let busy: Int32 = 16
  package static let exists: Int32 = 17
  package static let invalid: Int32 = 22
  package static let noSpace: Int32 = 28
  package static let readOnly: Int32 = 30
  package static let nameTooLong: Int32 = 36
  package static let notImplemented: Int32 = 38
  package static let badMessage: Int32 = 74
  package static let messageTooLong: Int32 = 90
  package static let noProtocolOption: Int32 = 92
  package static let notSupported: Int32 = 95
  package static let familyNotSupported: Int32 = 97
  package static let addressInUse: Int32 = 98
  package static let addressUnavailable: Int32 = 99

  private static let names: [Int32: String] = [
    1: "EPERM", 2: "ENOENT", 3: "ESRCH", 4: "EINTR", 5: "EIO", 6: "ENXIO", 9: "EBADF", 11: "EAGAIN", 12: "ENOMEM",
    13: "EACCES", 16: "EBUSY", 17: "EEXIST", 19: "ENODEV", 20: "ENOTDIR", 22: "EINVAL", 23: "ENFILE", 24: "EMFILE",
    25: "ENOTTY", 28: "ENOSPC", 30: "EROFS", 32: "EPIPE", 34: "ERANGE", 36: "ENAMETOOLONG", 38: "ENOSYS",
    71: "EPROTO", 74: "EBADMSG", 77: "EBADFD", 90: "EMSGSIZE", 92: "ENOPROTOOPT", 93: "EPROTONOSUPPORT",
    95: "EOPNOTSUPP", 97: "EAFNOSUPPORT", 98: "EADDRINUSE", 99: "EADDRNOTAVAIL", 100: "ENETDOWN",
    101: "ENETUNREACH", 105: "ENOBUFS", 110: "ETIMEDOUT", 111: "ECONNREFUSED", 113: "EHOSTUNREACH",
  ]

  /// `EBUSY (16)`, or `errno 133` for one without a name here.
  package static func text(_ number: Int32) -> String {
    names[number].map { "\($0) (\(number))" } ?? "errno \(number)"
  }
}
