// What a request's members read as, for RegistryService: a missing member, a wrong type and a number out of range read
// as nothing, fractions are cut (wire/registry §1.2).

import JSON

extension JSONValue {
  func text(_ name: String) -> String { self[name]?.text ?? "" }

  func flag(_ name: String) -> Bool { self[name]?.isTrue ?? false }

  func id(_ name: String) -> UInt32 { Self.integer(self[name]).flatMap(UInt32.init(exactly:)) ?? 0 }

  func network(_ name: String) -> UInt16 { Self.integer(self[name]).flatMap(UInt16.init(exactly:)) ?? 0 }

  /// Nil when there is no whole number of that name.
  func integer(_ name: String) -> Int64? { Self.integer(self[name]) }

  func texts(_ name: String) -> [String] { self[name]?.list?.compactMap(\.text) ?? [] }

  static func integer(_ value: JSONValue?) -> Int64? {
    switch value {
    case .integer(let value): value
    case .number(let value): Int64(exactly: value.rounded(.towardZero))
    default: nil
    }
  }
}
