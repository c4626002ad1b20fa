// What the node reads of registries and control clients: no crash, and what is read survives writing and reading.
// fuzz-files: Sources/JSON/JSONValue.swift Sources/JSON/JSONParser.swift

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  guard let value = try? JSONValue(parsing: bytes) else { return 0 }
  guard let again = try? JSONValue(parsing: value.encoded) else { fatalError("what was written is not read") }
  // A number beyond a Double's digits may be rounded once, never twice.
  guard again.encoded == value.encoded else { fatalError("writing is not stable") }
  return 0
}
