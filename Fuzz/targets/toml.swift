// fuzz-modules: Settings=Sources/Settings
// fuzz-c: Sources/TOMLReader
// fuzz-files: Fuzz/ConfigurationEntries.swift Sources/TunControl/TOMLTable.swift

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  if let fault = ConfigurationEntry.toml.violation(bytes) { fatalError(fault) }
  return 0
}
