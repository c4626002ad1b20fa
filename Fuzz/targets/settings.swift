// fuzz-modules: Settings=Sources/Settings
// fuzz-files: Fuzz/SettingsEntries.swift

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  if let fault = SettingsEntry.settings.violation(bytes) { fatalError(fault) }
  return 0
}
