// fuzz-modules: Wire=Sources/Wire PortMapping=Sources/PortMapping
// fuzz-files: Fuzz/PortMappingEntries.swift

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  if let fault = PortMappingEntry.portmapping.violation(bytes) { fatalError(fault) }
  return 0
}
