// qkscoped with a device that a test can hold, so that a request is certainly
// in progress, and can lose, which is impossible with the CPU.
//
//   gated_server [--lost] FLAGS_OF_QKSCOPED...
//
// --lost: the device is lost from the start. The gate is open at first. Each
// line on stdin is a command; a line of JSON on stderr confirms it:
//
//   shut      holds every pass before its next step
//   let N     lets N more passes through
//   await     waits until a pass is held
//   open      lets everything through
//   lose      loses the device
#include <pthread.h>
#include <signal.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "server/process.h"
#include "tests/server/faulty_backend.h"
#include "tests/server/gated_device.h"

namespace qk {
namespace {

void Obey(testing::Gate* gate, testing::Faults* faults) {
  // At exit, the process would wait for a thread that reads stdin itself.
  std::ifstream commands("/dev/stdin");
  for (std::string line; std::getline(commands, line);) {
    std::istringstream words(line);
    std::string command;
    int passes = 0;
    words >> command >> passes;
    if (command == "shut") {
      gate->Shut();
    } else if (command == "let") {
      gate->LetThroughMore(passes);
    } else if (command == "await") {
      gate->AwaitHeld();
    } else if (command == "open") {
      gate->Open();
    } else if (command == "lose") {
      faults->lost_to_ops = true;
    } else {
      std::fprintf(stderr, "gated_server: unknown command '%s'\n",
                   line.c_str());
      std::abort();
    }
    std::fprintf(stderr, "{\"event\":\"gate\",\"done\":\"%s\"}\n",
                 command.c_str());
  }
}

int Main(std::vector<std::string> arguments) {
  const auto gate = std::make_shared<testing::Gate>();
  const auto faults = std::make_shared<testing::Faults>();
  gate->Open();
  if (!arguments.empty() && arguments.front() == "--lost") {
    faults->lost_to_ops = true;
    arguments.erase(arguments.begin());
  }
  // Only the threads of qkscoped handle signals.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  // The thread reads until the process exits, and shares all that it uses.
  std::thread([gate, faults] { Obey(gate.get(), faults.get()); }).detach();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return RunProcess(arguments, std::make_unique<testing::FaultyBackend>(faults),
                    std::make_unique<testing::GatedDevice>(gate));
}

}  // namespace
}  // namespace qk

int main(int argc, char** argv) { return qk::Main({argv + 1, argv + argc}); }
