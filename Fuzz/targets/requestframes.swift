// fuzz-modules: JSON=Sources/JSON Directory=Sources/Directory/RegistryFrame.swift Rendezvous=Sources/Rendezvous/RegistryFrame.swift
// fuzz-package: NIOCore NIOConcurrencyHelpers Atomics _AtomicsShims _NIOBase64 _NIODataStructures DequeModule ContainersPreview InternalCollectionsUtilities CNIOAtomics CNIOLinux CNIOPosix
// fuzz-files: Fuzz/RegistryEntries.swift Fuzz/Pieces.swift

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  if let fault = RegistryEntry.requestframes.violation(bytes) { fatalError(fault) }
  return 0
}
