// Forced races: a call is held at one point of its life until the client's
// cancellation, the end of its run and the server's shutdown have happened in
// an order that chance would rarely give.
#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "engine/base/monotonic.h"
#include "tests/server/await.h"
#include "tests/server/common/delay_trap.h"
#include "tests/server/gated_device.h"
#include "tests/server/observe/metric_samples.h"
#include "tests/server/server_testing.h"

namespace qk {
namespace {

using testing::Await;
using testing::DelayTrap;
using testing::Gate;
using testing::GatedDevice;
using testing::ServerTest;
using testing::Tokens;

// The timeout for what must happen; it is far longer than needed.
constexpr absl::Duration kPatience = absl::Seconds(250);
// The timeout for what cannot always be seen, such as the cancellation of a
// call that has no handler yet.
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

// At these points the call's run has not been submitted yet, so it cannot be
// done: EndRun() releases the call.
const std::vector<std::string> kBeforeTheRun = {"accept.before", "accept.after",
                                                "enqueue"};
// The call reaches these points only when something ends it.
constexpr char kCancel[] = "cancel";
constexpr char kFinish[] = "finish";

struct Method {
  const char* name;
  std::vector<std::string> points;
  // The number of passes until there is something to write.
  size_t passes = 0;
};

std::vector<Method> AllMethods() {
  const std::vector<std::string> all = {
      "accept.before", "accept.after", "enqueue", "write",
      "write_done",    kCancel,        kFinish};
  std::vector<std::string> no_run = all, no_stream = all;
  std::erase(no_run, "enqueue");
  std::erase(no_stream, "write");
  std::erase(no_stream, "write_done");
  return {{"Analyze", all},     {"AnalyzeResumable", all},
          {"AnalyzeMany", all}, {"Generate", all, 1},
          {"Score", no_stream}, {"GetResult", no_run, 1}};
}

struct Case {
  Method method;
  std::string point;
  std::vector<Event> order;
};

std::vector<Case> AllCases() {
  std::vector<Case> cases;
  for (const Method& method : AllMethods()) {
    for (const std::string& point : method.points) {
      for (const std::vector<Event>& order : AllOrders()) {
        cases.push_back({method, point, order});
      }
    }
  }
  return cases;
}

std::string RunRequest() {
  return "model: 'tiny' " + Tokens(3) + " generate {max_new_tokens: 2}";
}

// What a client has received from a call.
struct Outcome {
  grpc::Status status;
  bool whole = false;
};

template <typename Event, typename Reader>
Outcome ReadToTheEnd(Reader* reader) {
  Outcome out;
  Event event;
  while (reader->Read(&event)) out.whole = event.has_finished();
  out.status = reader->Finish();
  return out;
}

class FaultsTest : public ServerTest,
                   public ::testing::WithParamInterface<Case> {
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
    ServerOptions options = TinyOptions();
    options.spool.emplace();
    options.spool->directory = folder_.path() + "/spool";
    StartServer(options, std::make_unique<GatedDevice>(gate_));
    ASSERT_TRUE(server_->LoadModels().ok());
    gate_->LetThrough(GetParam().method.passes);
    if (Is("GetResult")) {
      const testing::Analysis detached =
          Analyze(RunRequest() + " detach: true");
      ASSERT_TRUE(detached.status.ok()) << detached.status.error_message();
      kept_ = detached.events.front().accepted().request_id();
    }
    trap_ = std::make_unique<DelayTrap>(std::move(held));
    context_.set_deadline(absl::ToChronoTime(absl::Now() + 2 * kPatience));
    client_ = std::thread([this] {
      outcome_ = Call();
      ended_ = true;
    });
    // A call that is cancelled before it starts leaves no trace.
    EXPECT_TRUE(Await([this] { return HasStarted(); }, kPatience));
  }

  Outcome Call() {
    using testing::Parse;
    if (Is("GetResult")) {
      pb::GetResultRequest request;
      request.set_request_id(kept_);
      return ReadToTheEnd<pb::AnalyzeEvent>(
          stub_->GetResult(&context_, request).get());
    }
    if (Is("Score")) {
      pb::ScoreResponse response;
      const grpc::Status status = stub_->Score(
          &context_,
          Parse<pb::ScoreRequest>("model: 'tiny' pairs {context {token_ids "
                                  "{ids: 3}} continuation {token_ids "
                                  "{ids: 5}}}"),
          &response);
      return {status, response.results_size() == 1};
    }
    if (Is("Generate")) {
      return ReadToTheEnd<pb::GenerateEvent>(
          stub_->Generate(&context_, Parse<pb::GenerateRequest>(RunRequest()))
              .get());
    }
    if (Is("AnalyzeMany")) {
      const auto stream = stub_->AnalyzeMany(&context_);
      stream->Write(Parse<pb::AnalyzeManyRequest>(
          "spec {request {model: 'tiny' generate {max_new_tokens: 2}}}"));
      stream->Write(
          Parse<pb::AnalyzeManyRequest>("prompt {id: 'a' " + Tokens(3) + "}"));
      stream->WritesDone();
      return ReadToTheEnd<pb::AnalyzeManyEvent>(stream.get());
    }
    return ReadToTheEnd<pb::AnalyzeEvent>(
        stub_
            ->Analyze(&context_,
                      Parse<pb::AnalyzeRequest>(
                          RunRequest() +
                          (Is("AnalyzeResumable") ? " resumable: true" : "")))
            .get());
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
      const auto stops = [this] {
        // The held thread may be the one that stops the server.
        return trap_->Reached("shutdown") || trap_->Holds(kFinish);
      };
      if (Is("AnalyzeMany") && trap_->Holds("enqueue")) {
        Await(stops, kMoment);  // it waits for the call's lock
      } else {
        EXPECT_TRUE(Await(stops, kPatience));
      }
    }
  }

  void EndRun() {
    gate_->Open();
    const std::string& point = GetParam().point;
    if (!Is("GetResult") &&
        std::count(kBeforeTheRun.begin(), kBeforeTheRun.end(), point) > 0) {
      trap_->Release(point);
      EXPECT_TRUE(Await([this] { return ended_.load(); }, kPatience));
    } else {
      EXPECT_TRUE(Await([this] { return IsIdle(); }, kPatience));
    }
  }

  static bool Is(const std::string& method) {
    return GetParam().method.name == method;
  }
  // For GetResult, the call that makes the result counts too.
  static double Calls() { return Is("GetResult") ? 2 : 1; }

  double Metric(const std::string& name) {
    return testing::Total(testing::SamplesOf(*server_), name);
  }
  bool HasStarted() { return Metric("qkscope_rpc_started_total") == Calls(); }
  bool IsIdle() {
    return Metric("qkscope_running_requests") == 0 &&
           Metric("qkscope_queued_requests") == 0;
  }

  void ExpectCleanEnd() {
    EXPECT_TRUE(Await([this] { return ended_ && stopped_; }, kPatience));
    client_.join();
    stopper_.join();
    const grpc::StatusCode code = outcome_.status.error_code();
    EXPECT_TRUE(code == grpc::StatusCode::OK ||
                code == grpc::StatusCode::CANCELLED ||
                code == grpc::StatusCode::UNAVAILABLE)
        << code << " " << outcome_.status.error_message();
    // The converse need not hold: something may come between the last event and
    // the status.
    EXPECT_TRUE(code != grpc::StatusCode::OK || outcome_.whole);
    EXPECT_TRUE(server_->WaitUntilIdle(MonotonicNow() + kPatience));
    EXPECT_EQ(Metric("qkscope_rpc_started_total"), Calls());
    EXPECT_EQ(Metric("qkscope_rpc_handled_total"), Calls());
    EXPECT_TRUE(Await([this] { return IsIdle(); }, kPatience));
    EXPECT_TRUE(
        Await([this] { return Metric("qkscope_stream_buffered_bytes") == 0; },
              kPatience));
    EXPECT_TRUE(
        Await([this] { return Metric("qkscope_stream_reserved_bytes") == 0; },
              kPatience));
  }

  const testing::TempFolder folder_;
  const std::shared_ptr<Gate> gate_ = std::make_shared<Gate>();
  std::unique_ptr<DelayTrap> trap_;
  std::string kept_;  // the id of the result that GetResult asks for
  grpc::ClientContext context_;
  std::thread client_, stopper_;
  std::atomic<bool> ended_ = false, stopped_ = false;
  Outcome outcome_;
};

TEST_P(FaultsTest, R8_EndsOnceAndLeavesNothing) {
  const std::string point = GetParam().point;
  const auto& order = GetParam().order;
  const bool by_cancel = point == kCancel;
  const bool by_finish = point == kFinish;
  // A call that is writing cannot end, and the first write_done is the first
  // point at which gRPC delivers cancellations. So the call is still there when
  // the cancellation comes. A call that writes nothing is held as it ends.
  const std::string until_cancelled = Is("Score") ? kFinish : "write_done";
  Start(by_cancel ? std::set<std::string>{until_cancelled, point}
                  : std::set<std::string>{point});
  const std::string first = by_cancel ? until_cancelled : point;
  if (first != kFinish) {
    ASSERT_TRUE(Await([&, f = first] { return trap_->Reached(f); }, kPatience));
  } else {
    gate_->AwaitPass();
  }
  for (const Event event : order) {
    Make(event);
    // The first event brings the call to its end.
    if (by_finish) {
      EXPECT_TRUE(Await([&] { return trap_->Holds(kFinish); }, kPatience));
    }
    if (by_cancel && event == Event::kCancel) trap_->Release(until_cancelled);
  }
  EXPECT_TRUE(Await([&] { return trap_->Reached(point); }, kPatience));
  trap_->ReleaseAll();
  ExpectCleanEnd();
}

std::string NameOfCase(
    const ::testing::TestParamInfo<FaultsTest::ParamType>& info) {
  std::string name =
      std::string(info.param.method.name) + "_" + info.param.point;
  std::replace(name.begin(), name.end(), '.', '_');
  for (const Event event : info.param.order) {
    name += std::string("_") + NameOf(event);
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(R8, FaultsTest, ::testing::ValuesIn(AllCases()),
                         NameOfCase);

}  // namespace
}  // namespace qk
