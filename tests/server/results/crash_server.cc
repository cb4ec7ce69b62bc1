// A server that dies, as by kill -9, the n-th time it reaches a delay point;
// for crash_test.cc.
//
//   crash_server GOLDENS SPOOL TTL_MS [POINT N]
//
// The server writes its address and a newline to stdout once it serves.
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "server/common/delay_point.h"
#include "server/server.h"
#include "tests/server/gated_device.h"

namespace qk {
namespace {

const char* deadly_point = "";
std::atomic<int> hits_left{0};

void DieAt(const char* point) {
  if (std::strcmp(point, deadly_point) == 0 && --hits_left == 0) {
    kill(getpid(), SIGKILL);
    pause();  // another thread may receive the signal first
  }
}

int Serve(const std::string& goldens, const std::string& spool, int ttl_ms) {
  const auto gate = std::make_shared<testing::Gate>();
  // A request that must die during its cancellation must not end before: the
  // device is held after the first pass.
  if (deadly_point == std::string("cancel")) {
    gate->LetThrough(1);
  } else {
    gate->Open();
  }
  ServerOptions options;
  options.version = "test";
  options.listen = "127.0.0.1:0";
  options.metrics_listen = "";
  options.threads = 1;
  options.spool.emplace();
  options.spool->directory = spool;
  options.spool->ttl = absl::Milliseconds(ttl_ms);
  options.models.push_back(
      {"tiny", goldens + "/tiny_llama_gqa", ComputeType::kF32, ""});
  Log log(LogLevel::kError);
  auto server = Server::Create(options, &log,
                               std::make_unique<testing::GatedDevice>(gate));
  absl::Status status = server.status();
  if (status.ok()) status = (*server)->LoadModels();
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
    return 1;
  }
  std::printf("%s\n", (*server)->address().c_str());
  std::fflush(stdout);
  for (;;) pause();
}

}  // namespace
}  // namespace qk

int main(int argc, char** argv) {
  if (argc != 4 && argc != 6) return 2;
  if (argc == 6) {
    qk::deadly_point = argv[4];
    qk::hits_left = std::atoi(argv[5]);
    qk::delay_hook = &qk::DieAt;
  }
  return qk::Serve(argv[1], argv[2], std::atoi(argv[3]));
}
