// What peers say on port 444: no crash, strict types, and what is written fits and is read.
// fuzz-modules: Wire=Sources/Wire JSON=Sources/JSON Directory=Sources/Directory/TrustMessage.swift
// fuzz-files: Fuzz/TrustEntries.swift

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  if let fault = TrustEntry.violation(bytes) { fatalError(fault) }
  return 0
}
