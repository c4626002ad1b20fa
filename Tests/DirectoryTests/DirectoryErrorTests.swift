// Errors of the directory reach people as they are made: each has to say what to do.

import Testing

@testable import Directory

@Suite("Errors of the directory") struct DirectoryErrorTests {
  @Test("every code has a hint, also where the place that failed gives none", arguments: DirectoryError.Code.allCases)
  func hints(code: DirectoryError.Code) {
    #expect(DirectoryError(code, "it failed").hint?.isEmpty == false)
    #expect(DirectoryError(code, "it failed", hint: "its own").hint == "its own")
  }
}
