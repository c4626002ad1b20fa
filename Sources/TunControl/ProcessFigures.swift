// What the kernel says of this process, by the names that Prometheus' own clients use. Read from /proc when asked.

import Glibc
import Telemetry

enum ProcessFigures {
  private static let startedAt = started()

  static func metrics() -> [MetricFamily] {
    var usage = rusage()
    // RUSAGE_SELF is 0; the type of the constant differs between C libraries.
    getrusage(__rusage_who_t(0), &usage)
    func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
    let pages = text("/proc/self/statm").split(separator: " ").dropFirst().first.flatMap { Double($0) } ?? 0
    return [
      MetricFamily(NodeMetrics.processStart, [([], startedAt)]),
      MetricFamily(NodeMetrics.processCPU, [([], seconds(usage.ru_utime) + seconds(usage.ru_stime))]),
      MetricFamily(NodeMetrics.processMemory, [([], pages * Double(sysconf(Int32(_SC_PAGESIZE))))]),
      MetricFamily(NodeMetrics.processFiles, [([], Double(openFiles()))]),
    ]
  }

  private static func text(_ path: String) -> String {
    (try? SmallFile.read(path)).map { String(decoding: $0, as: UTF8.self) } ?? ""
  }

  private static func openFiles() -> Int {
    guard let folder = opendir("/proc/self/fd") else { return 0 }
    defer { closedir(folder) }
    var count = 0
    while readdir(folder) != nil { count += 1 }
    // `.`, `..` and the folder's own descriptor.
    return max(0, count - 3)
  }

  /// Field 22 of /proc/self/stat (ticks since boot), behind the name in brackets, which may hold anything; the time of
  /// boot is in /proc/stat.
  private static func started() -> Double {
    let fields = text("/proc/self/stat").split(separator: ")").last?.split(separator: " ") ?? []
    let boot = text("/proc/stat").split(separator: "\n").first { $0.hasPrefix("btime ") }
    guard fields.count > 19, let ticks = Double(fields[19]), let boot = boot.flatMap({ Double($0.dropFirst(6)) }) else {
      return 0
    }
    return boot + ticks / Double(sysconf(Int32(_SC_CLK_TCK)))
  }
}
