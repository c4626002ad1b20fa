// fuzz-modules: Wire=Sources/Wire JSON=Sources/JSON Services=Sources/Services
// fuzz-files: Fuzz/ServiceEntries.swift Fuzz/Pieces.swift

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  if let fault = ServiceEntry.events.violation(bytes) { fatalError(fault) }
  return 0
}
