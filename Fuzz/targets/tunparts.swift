// fuzz-modules: Wire=Sources/Wire Session=Sources/Session LinkIO=Sources/LinkIO Engine=Sources/Engine
// fuzz-c: Shim
// fuzz-package: CCryptoBoringSSL
// fuzz-files: Fuzz/EngineEntries.swift

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  if let fault = EngineEntry.tunparts.violation(bytes) { fatalError(fault) }
  return 0
}
