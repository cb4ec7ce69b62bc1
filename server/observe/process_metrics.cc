#include "server/observe/process_metrics.h"

#include <dirent.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "server/observe/families.h"

namespace qk {
namespace {

// Positions in /proc/PID/stat after the command's name, which may hold spaces;
// proc(5) counts the first of them as 3.
constexpr size_t kThreads = 20 - 3;
constexpr size_t kStartTime = 22 - 3;

std::optional<double> NumberAt(const std::vector<absl::string_view>& words,
                               size_t index) {
  double number = 0;
  if (index >= words.size() || !absl::SimpleAtod(words[index], &number)) {
    return std::nullopt;
  }
  return number;
}

// The number at `index` of a file's words, of those after its last ')' if
// `after_name`.
std::optional<double> ReadNumber(const std::string& path, size_t index,
                                 bool after_name) {
  std::ifstream file(path);
  const std::string text((std::istreambuf_iterator<char>(file)),
                         std::istreambuf_iterator<char>());
  absl::string_view rest = text;
  if (after_name) {
    const size_t end = rest.rfind(')');
    if (end == absl::string_view::npos) return std::nullopt;
    rest.remove_prefix(end + 1);
  }
  return NumberAt(
      absl::StrSplit(rest, absl::ByAnyChar(" \n"), absl::SkipEmpty()), index);
}

double SecondsOf(clockid_t clock) {
  timespec now = {};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) +
         1e-9 * static_cast<double>(now.tv_nsec);
}

double SecondsOf(const timeval& time) {
  return static_cast<double>(time.tv_sec) +
         1e-6 * static_cast<double>(time.tv_usec);
}

std::optional<double> StartTime(const std::string& proc) {
  const auto ticks = ReadNumber(proc + "/stat", kStartTime, true);
  if (!ticks.has_value()) return std::nullopt;
  // /proc/stat, which has the time of the boot, may be hidden.
  const double boot = SecondsOf(CLOCK_REALTIME) - SecondsOf(CLOCK_BOOTTIME);
  return boot + *ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
}

std::optional<double> OpenFds(const std::string& proc) {
  DIR* const folder = opendir((proc + "/fd").c_str());
  if (folder == nullptr) return std::nullopt;
  const absl::Cleanup close = [folder] { closedir(folder); };
  int count = -1;  // without the folder's own
  while (const dirent* entry = readdir(folder)) {
    if (entry->d_name[0] != '.') ++count;
  }
  return count;
}

std::optional<double> MaxFds() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return std::nullopt;
  return static_cast<double>(limit.rlim_cur);
}

std::optional<double> ResidentBytes(const std::string& proc) {
  const auto pages = ReadNumber(proc + "/statm", 1, false);
  if (!pages.has_value()) return std::nullopt;
  return *pages * static_cast<double>(sysconf(_SC_PAGESIZE));
}

std::optional<double> CpuSeconds() {
  rusage usage = {};
  if (getrusage(RUSAGE_SELF, &usage) != 0) return std::nullopt;
  return SecondsOf(usage.ru_utime) + SecondsOf(usage.ru_stime);
}

}  // namespace

ProcessMetrics::ProcessMetrics(std::string proc)
    : proc_(std::move(proc)), start_(StartTime(proc_)) {}

std::vector<prometheus::MetricFamily> ProcessMetrics::Collect() const {
  std::vector<prometheus::MetricFamily> families;
  const auto add = [&families](auto make, const char* name, const char* help,
                               std::optional<double> value) {
    if (value.has_value()) families.push_back(make(name, help, *value));
  };
  add(OneGauge, "process_open_fds", "Open file descriptors of the process.",
      OpenFds(proc_));
  add(OneGauge, "process_max_fds",
      "File descriptors that the process may have open.", MaxFds());
  add(OneGauge, "process_start_time_seconds",
      "When the process began, as Unix time in seconds.", start_);
  add(OneGauge, "process_resident_memory_bytes",
      "Memory of the process that is in RAM, in bytes; of models, what was "
      "touched of their files counts, too.",
      ResidentBytes(proc_));
  add(OneCounter, "process_cpu_seconds_total",
      "Time of all processors that the process has used, in seconds.",
      CpuSeconds());
  add(OneGauge, "process_threads", "Threads of the process.",
      ReadNumber(proc_ + "/stat", kThreads, true));
  return families;
}

}  // namespace qk
