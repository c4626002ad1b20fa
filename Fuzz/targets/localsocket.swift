// fuzz-modules: Wire=Sources/Wire JSON=Sources/JSON LocalSocket=Sources/LocalSocket
// fuzz-files: Fuzz/LocalSocketEntries.swift Fuzz/Pieces.swift

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  if let fault = LocalSocketEntry.localsocket.violation(bytes) { fatalError(fault) }
  return 0
}
