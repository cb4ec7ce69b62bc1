// Forced races: a call is held at one place of its life until the client's
// cancellation, the end of its run and the server's shutdown have happened in
// an order that chance would rarely give.
#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "tests/server/await.h"
#include "tests/server/delay_trap.h"
#include "tests/server/gated_device.h"
#include "tests/server/metric_samples.h"
#include "tests/server/server_testing.h"

namespace qk {
namespace {

using testing::Await;
using testing::DelayTrap;
using testing::Gate;
using testing::GatedDevice;
using testing::ServerTest;
using testing::Tokens;

// What must happen; far over what it takes.
constexpr absl::Duration kPatience = absl::Seconds(20);
// What cannot always be seen, such as a cancellation of a call that has no
// handler yet.
constexpr absl::Duration kMoment = absl::Milliseconds(50);

enum class Event { kCancel, kDone, kShutdown };

const char* NameOf(Event event) {
  return event == Event::kCancel ? "Cancel"
         : event == Event::kDone ? "Done"
                                 : "Shutdown";
}

std::vector<std::vector<Event>> AllOrders() {
  std::vector<Event> events = {Event::kCancel, Event::kDone, Event::kShutdown};
  std::vector<std::vector<Event>> orders;
  do {
    orders.push_back(events);
  } while (std::next_permutation(events.begin(), events.end()));
  return orders;
}

// Where the call is held. There its run has not been submitted yet, so that it
// cannot be done: the call goes on when the order comes to that.
const std::vector<std::string> kBeforeTheRun = {"accept.before", "accept.after",
                                                "enqueue"};
// Here the call comes only when something ends it.
constexpr char kCancel[] = "cancel";
constexpr char kFinish[] = "finish";

class FaultsTest : public ServerTest,
                   public ::testing::WithParamInterface<
                       std::tuple<const char*, std::vector<Event>>> {
 protected:
  void TearDown() override {
    if (trap_ != nullptr) trap_->ReleaseAll();
    gate_->Open();
    if (client_.joinable()) client_.join();
    if (stopper_.joinable()) stopper_.join();
    server_.reset();
    trap_.reset();
  }

  void Start(std::set<std::string> held) {
    trap_ = std::make_unique<DelayTrap>(std::move(held));
    StartServer(TinyOptions(), std::make_unique<GatedDevice>(gate_));
    ASSERT_TRUE(server_->LoadModels().ok());
    context_.set_deadline(absl::ToChronoTime(absl::Now() + 2 * kPatience));
    client_ = std::thread([this] {
      const auto request = testing::Parse<pb::AnalyzeRequest>(
          "model: 'tiny' " + Tokens(3) + " generate {max_new_tokens: 2}");
      analysis_ = Read(stub_->Analyze(&context_, request).get());
      ended_ = true;
    });
  }

  void Make(Event event) {
    if (event == Event::kCancel) {
      context_.TryCancel();
      Await([this] { return trap_->Reached(kCancel); }, kMoment);
    } else if (event == Event::kDone) {
      EndRun();
    } else {
      stopper_ = std::thread([this] {
        server_->BeginDrain();
        server_->Stop();
        stopped_ = true;
      });
      // The thread that stops the server may be the one that is held.
      EXPECT_TRUE(
          Await([this] { return trap_->Reached("shutdown") || Held(kFinish); },
                kPatience));
    }
  }

  void EndRun() {
    gate_->Open();
    const std::string point = std::get<0>(GetParam());
    if (std::count(kBeforeTheRun.begin(), kBeforeTheRun.end(), point) > 0) {
      trap_->Release(point);
      EXPECT_TRUE(Await([this] { return ended_.load(); }, kPatience));
    } else {
      EXPECT_TRUE(Await([this] { return IsIdle(); }, kPatience));
    }
  }

  bool Held(const std::string& point) {
    return std::get<0>(GetParam()) == point && trap_->Reached(point);
  }

  double Metric(const std::string& name) {
    return testing::Total(testing::SamplesOf(*server_), name);
  }
  bool IsIdle() {
    return Metric("qkscope_running_requests") == 0 &&
           Metric("qkscope_queued_requests") == 0;
  }

  void ExpectCleanEnd() {
    EXPECT_TRUE(Await([this] { return ended_ && stopped_; }, kPatience));
    client_.join();
    stopper_.join();
    const grpc::StatusCode code = analysis_.status.error_code();
    EXPECT_TRUE(code == grpc::StatusCode::OK ||
                code == grpc::StatusCode::CANCELLED ||
                code == grpc::StatusCode::UNAVAILABLE)
        << code << " " << analysis_.status.error_message();
    // The other way round, something may come between the two.
    EXPECT_TRUE(code != grpc::StatusCode::OK ||
                analysis_.finished() != nullptr);
    EXPECT_TRUE(server_->WaitUntilIdle(absl::Now() + absl::Seconds(20)));
    EXPECT_EQ(Metric("qkscope_rpc_started_total"), 1);
    EXPECT_EQ(Metric("qkscope_rpc_handled_total"), 1);
    EXPECT_TRUE(Await([this] { return IsIdle(); }, kPatience));
    EXPECT_TRUE(
        Await([this] { return Metric("qkscope_stream_buffered_bytes") == 0; },
              kPatience));
    EXPECT_TRUE(
        Await([this] { return Metric("qkscope_stream_reserved_bytes") == 0; },
              kPatience));
  }

  const std::shared_ptr<Gate> gate_ = std::make_shared<Gate>();
  std::unique_ptr<DelayTrap> trap_;
  grpc::ClientContext context_;
  std::thread client_, stopper_;
  std::atomic<bool> ended_ = false, stopped_ = false;
  testing::Analysis analysis_;
};

TEST_P(FaultsTest, R8_EndsOnceAndLeavesNothing) {
  const auto& [point, order] = GetParam();
  const bool by_event =
      point == std::string(kCancel) || point == std::string(kFinish);
  // A call that writes cannot end, and the first write_done is the first point
  // that gRPC does not hold cancellations back for: thus it is still there when
  // the order comes to the cancellation.
  const bool by_cancel = point == std::string(kCancel);
  Start(by_cancel ? std::set<std::string>{"write_done", point}
                  : std::set<std::string>{point});
  const std::string first = by_cancel ? "write_done" : by_event ? "" : point;
  if (!first.empty()) {
    ASSERT_TRUE(Await([&, f = first] { return trap_->Reached(f); }, kPatience));
  } else {
    gate_->AwaitPass();
  }
  for (const Event event : order) {
    Make(event);
    // What the first event does is to bring the call to its end.
    if (point == std::string(kFinish)) {
      EXPECT_TRUE(Await([&] { return Held(kFinish); }, kPatience));
    }
    if (by_cancel && event == Event::kCancel) trap_->Release("write_done");
  }
  EXPECT_TRUE(Await([&] { return trap_->Reached(point); }, kPatience));
  trap_->ReleaseAll();
  ExpectCleanEnd();
}

std::string NameOfCase(
    const ::testing::TestParamInfo<FaultsTest::ParamType>& info) {
  std::string name = std::get<0>(info.param);
  std::replace(name.begin(), name.end(), '.', '_');
  for (const Event event : std::get<1>(info.param)) {
    name += std::string("_") + NameOf(event);
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(
    R8, FaultsTest,
    ::testing::Combine(::testing::Values("accept.before", "accept.after",
                                         "enqueue", "write", "write_done",
                                         kCancel, kFinish),
                       ::testing::ValuesIn(AllOrders())),
    NameOfCase);

}  // namespace
}  // namespace qk
