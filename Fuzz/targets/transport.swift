// fuzz-modules: Wire=Sources/Wire JSON=Sources/JSON TLSTransport=Sources/TLSTransport/ProxyAddress.swift,Sources/TLSTransport/CompatAuthentication.swift
// fuzz-files: Fuzz/TransportEntries.swift

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  if let fault = TransportEntry.transport.violation(bytes) { fatalError(fault) }
  return 0
}
