// The root of all kernel tests: they share the machine's two cores, so they run one after another.

import Testing

@Suite("Kernel", .serialized)
enum KernelTests {}
