// A server for the tests of many clients and of deadlines, with a device that
// the test can hold.
#ifndef QKSCOPE_TESTS_SERVER_CALLS_LOAD_TESTING_H_
#define QKSCOPE_TESTS_SERVER_CALLS_LOAD_TESTING_H_

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "engine/base/monotonic.h"
#include "tests/server/await.h"
#include "tests/server/gated_device.h"
#include "tests/server/observe/metric_samples.h"
#include "tests/server/server_testing.h"

namespace qk::testing {

// A request whose answer is only a few bytes.
inline pb::AnalyzeRequest Small(int tokens) {
  return testing::Parse<pb::AnalyzeRequest>("model: 'tiny' " + Tokens(tokens) +
                                            " capture {off: true}");
}

// This is longer than anything here takes.
inline constexpr absl::Duration kPatience = absl::Seconds(300);

inline void Await(const char* what, const std::function<bool()>& done) {
  ASSERT_TRUE(Await(done, kPatience)) << "hangs: " << what;
}

class LoadTest : public ServerTest {
 protected:
  void Start(ServerOptions options) {
    StartServer(options, std::make_unique<GatedDevice>(gate_));
    ASSERT_TRUE(server_->LoadModels().ok());
  }
  // Opens the gate even when an assertion has ended the test.
  void TearDown() override {
    gate_->Open();
    for (std::thread& thread : threads_) thread.join();
  }

  // Returns a connection that no other client has.
  std::shared_ptr<grpc::Channel> NewChannel(int id) const {
    grpc::ChannelArguments arguments = ChannelArguments();
    arguments.SetInt("client", id);
    return grpc::CreateCustomChannel(
        server_->address(), grpc::InsecureChannelCredentials(), arguments);
  }

  Samples Metrics() const { return SamplesOf(*server_); }
  double Unfinished() const {
    const Samples samples = Metrics();
    return Total(samples, "qkscope_queued_requests") +
           Total(samples, "qkscope_running_requests");
  }

  // Checks that every call has ended and left nothing behind.
  void ExpectIdle() {
    ASSERT_TRUE(server_->WaitUntilIdle(MonotonicNow() + kPatience));
    for (const char* gauge :
         {"qkscope_queued_requests", "qkscope_running_requests",
          "qkscope_stream_buffered_bytes", "qkscope_stream_reserved_bytes"}) {
      Await(gauge, [&] { return Metrics().at(gauge) == 0; });
    }
    const Samples samples = Metrics();
    EXPECT_EQ(Total(samples, "qkscope_rpc_started_total"),
              Total(samples, "qkscope_rpc_handled_total"));
  }

  // Keeps the device busy with a request of `rows` until the gate is open.
  void HoldDevice(int rows) {
    gate_->Shut();
    threads_.emplace_back(
        [this, rows] { EXPECT_TRUE(Analyze(Small(rows)).status.ok()); });
    gate_->AwaitPass();
  }
  bool HasRun(int rows) const {
    for (const std::vector<int>& pass : gate_->passes()) {
      if (std::find(pass.begin(), pass.end(), rows) != pass.end()) return true;
    }
    return false;
  }

  std::shared_ptr<Gate> gate_ = std::make_shared<Gate>();
  std::vector<std::thread> threads_;
};

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_SERVER_CALLS_LOAD_TESTING_H_
