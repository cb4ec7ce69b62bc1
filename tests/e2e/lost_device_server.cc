// qkscoped with a device that is slow and can be lost, which the CPU's cannot:
// from SIGUSR2 on, or from the start.
//
//   lost_device_server [--lost] FLAGS_OF_QKSCOPED...
#include <atomic>
#include <csignal>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "server/process.h"
#include "tests/server/faulty_backend.h"

namespace qk {
namespace {

const auto faults = std::make_shared<testing::Faults>();

// Calls are in flight for seconds.
class SlowBackend : public testing::FaultyBackend {
 public:
  SlowBackend() : FaultyBackend(faults) {}
  absl::Status Synchronize() override {
    absl::SleepFor(absl::Milliseconds(50));
    return FaultyBackend::Synchronize();
  }
};

}  // namespace
}  // namespace qk

int main(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  if (!arguments.empty() && arguments.front() == "--lost") {
    qk::faults->lost_to_ops = true;
    arguments.erase(arguments.begin());
  }
  std::signal(SIGUSR2, [](int) { qk::faults->lost_to_ops = true; });
  return qk::RunProcess(arguments, std::make_unique<qk::SlowBackend>());
}
