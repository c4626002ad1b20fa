// fuzz-modules: Wire=Sources/Wire
// fuzz-files: Fuzz/WireEntries.swift

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  if let fault = WireEntry.frames.violation(bytes) { fatalError(fault) }
  return 0
}
