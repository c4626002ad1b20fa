// Clocks, wake-ups and key memory of the shim.

import Glibc
import Shim
import Testing

@Suite struct SystemTests {
  @Test func anEventDescriptorWakesPollOnce() {
    let fd = pt_eventfd()
    #expect(fd >= 0)
    defer { pt_close(fd) }
    #expect(pt_poll([fd], 1, 0) == 0)
    pt_eventfd_signal(fd)
    pt_eventfd_signal(fd)
    #expect(pt_poll([fd], 1, 5000) == 1)
    pt_eventfd_drain(fd)
    #expect(pt_poll([fd], 1, 0) == 0)
    #expect(pt_poll([Int32](repeating: fd, count: 25), 25, 0) < 0)
  }

  @Test func clocksDoNotGoBack() {
    let first = pt_monotonic()
    #expect(first > 0)
    #expect(pt_monotonic() >= first)
    #expect(pt_boottime() >= first)
    #expect(pt_process_cpu() > 0)
  }

  @Test func credentialsOfAUnixPeerAreOurs() {
    var pair: [Int32] = [0, 0]
    #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &pair) == 0)
    defer { pair.forEach { pt_close($0) } }
    var (uid, gid, pid): (UInt32, UInt32, UInt32) = (99, 99, 0)
    #expect(pt_peer_credentials(pair[0], &uid, &gid, &pid) == 0)
    #expect(uid == getuid() && gid == getgid() && pid == UInt32(getpid()))
    #expect(pt_peer_credentials(-1, &uid, &gid, &pid) < 0)
  }

  @Test func rootMayConfigureTheNetwork() {
    #expect(pt_has_net_admin() == 1, "these tests need root: run sudo scripts/test")
  }

  @Test func mappedMemoryIsZeroAndCanBeLockedAndWiped() throws {
    let memory = try #require(pt_map(8192))
    defer { pt_unmap(memory, 8192) }
    let bytes = UnsafeMutableRawBufferPointer(start: memory, count: 8192)
    #expect(bytes.allSatisfy { $0 == 0 })
    #expect(pt_lock(memory, 8192) == 0)
    bytes.storeBytes(of: 0xFFFF_FFFF, toByteOffset: 100, as: UInt32.self)
    pt_wipe(memory, 8192)
    #expect(bytes.allSatisfy { $0 == 0 })
  }

  @Test func filesAreReadAndWrittenOrTheirErrorIsTold() {
    var buffer = [UInt8](repeating: 0, count: 64)
    #expect(pt_file_read("/proc/sys/kernel/ostype", &buffer, 64) == 6)
    #expect(buffer.starts(with: Array("Linux\n".utf8)))
    #expect(pt_file_read("/proc/does-not-exist", &buffer, 64) == -2)
    #expect(pt_file_write("/proc/does-not-exist", buffer, 1) == -2)
  }
}
