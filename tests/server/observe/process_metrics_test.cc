// Tests the metrics of the process against what the system says in other ways,
// and in sandboxes that hide /proc.
#include "server/observe/process_metrics.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tests/temp_folder.h"

namespace qk {
namespace {

std::map<std::string, double> Read(const ProcessMetrics& process) {
  std::map<std::string, double> values;
  for (const auto& family : process.Collect()) {
    EXPECT_FALSE(family.help.empty());
    EXPECT_EQ(family.metric.size(), 1u);
    const prometheus::ClientMetric& metric = family.metric[0];
    EXPECT_TRUE(metric.label.empty());
    values[family.name] = family.type == prometheus::MetricType::Counter
                              ? metric.counter.value
                              : metric.gauge.value;
  }
  return values;
}

TEST(ProcessMetricsTest, CountsDescriptorsThreadsTimeAndMemory) {
  const ProcessMetrics process;
  const auto before = Read(process);
  ASSERT_EQ(before.size(), 6u);
  std::vector<int> files;
  for (int i = 0; i < 20; ++i) files.push_back(open("/dev/null", O_RDONLY));
  std::vector<char> memory(64 << 20, 'x');
  for (size_t i = 0; i < memory.size(); i += 4096) {
    *const_cast<volatile char*>(&memory[i]) = 'y';
  }
  std::thread other([&] {
    const auto with = Read(process);
    EXPECT_EQ(with.at("process_threads"), before.at("process_threads") + 1);
  });
  other.join();
  const auto after = Read(process);
  EXPECT_EQ(after.at("process_open_fds"), before.at("process_open_fds") + 20);
  EXPECT_GE(after.at("process_resident_memory_bytes"),
            before.at("process_resident_memory_bytes") + (60 << 20));
  EXPECT_GT(after.at("process_cpu_seconds_total"),
            before.at("process_cpu_seconds_total"));
  for (int file : files) close(file);
  rlimit limit = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_EQ(after.at("process_max_fds"), static_cast<double>(limit.rlim_cur));
}

// tests/e2e/metrics_test.py knows when a process began.
TEST(ProcessMetricsTest, BeganLately) {
  const double start = Read(ProcessMetrics()).at("process_start_time_seconds");
  const double now = absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch());
  EXPECT_LE(start, now + 1);
  EXPECT_GE(start, now - 86400);
}

TEST(ProcessMetricsTest, ReadsAProgramNameWithSpacesAndBrackets) {
  const testing::TempFolder folder;
  std::ofstream(folder.path() + "/stat")
      << "42 (a ) b) c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 7 0 100 0 0";
  std::ofstream(folder.path() + "/statm") << "1000 3 2 1 0 5 0\n";
  const auto values = Read(ProcessMetrics(folder.path()));
  EXPECT_EQ(values.at("process_threads"), 7);
  EXPECT_EQ(values.at("process_resident_memory_bytes"),
            3.0 * static_cast<double>(sysconf(_SC_PAGESIZE)));
  EXPECT_FALSE(values.contains("process_open_fds"));
}

TEST(ProcessMetricsTest, LeavesOutWhatCannotBeRead) {
  const auto values = Read(ProcessMetrics("/nowhere"));
  EXPECT_EQ(values.size(), 2u);
  EXPECT_TRUE(values.contains("process_max_fds"));
  EXPECT_TRUE(values.contains("process_cpu_seconds_total"));
  const testing::TempFolder folder;
  std::ofstream(folder.path() + "/stat") << "42 (cut";
  std::ofstream(folder.path() + "/statm") << "x";
  EXPECT_EQ(Read(ProcessMetrics(folder.path())).size(), 2u);
}

}  // namespace
}  // namespace qk
