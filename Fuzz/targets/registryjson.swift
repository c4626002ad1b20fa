// What the rendezvous reads of its clients: no crash, and what is read survives writing and reading.
// fuzz-files: Sources/Rendezvous/JSONValue.swift Sources/Rendezvous/JSONParser.swift

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  guard let value = try? JSONParser.parse(bytes, maximumDepth: 64) else { return 0 }
  guard let again = try? JSONParser.parse(value.bytes, maximumDepth: 64) else {
    fatalError("what was written is not read")
  }
  guard again.bytes == value.bytes else { fatalError("writing is not stable") }
  return 0
}
