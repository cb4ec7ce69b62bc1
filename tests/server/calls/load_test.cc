// Tests what a server promises to many clients at once: cancellation, fairness
// and identical bytes. A test's name begins with the row of docs/reliability.md
// that it covers.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/server/calls/load_testing.h"

namespace qk {
namespace {

using grpc::StatusCode;
using testing::Analysis;
using testing::Await;
using testing::Gate;
using testing::LoadTest;
using testing::Samples;
using testing::Small;
using testing::Tokens;
using testing::Total;

using Reader = grpc::ClientReader<pb::AnalyzeEvent>;

// --- R5

// The result is more than a connection takes without its reader, so the call
// cannot finish successfully on its own.
pb::AnalyzeRequest Large(int tokens) {
  return testing::Parse<pb::AnalyzeRequest>(
      "model: 'tiny' " + Tokens(tokens) +
      " arms {name: 'a'} arms {name: 'b'} arms {name: 'c'} arms {name: 'd'}"
      " capture {form: RAW stage: BEFORE_AND_AFTER points: [HOOK_Q, HOOK_K, "
      "HOOK_V, HOOK_ROT_Q, HOOK_ROT_K, HOOK_Z]}");
}

enum class Moment { kQueued, kPrefill, kMidLayer, kMidWrite, kAtFinish };
constexpr int kMoments = 5;

// Reads until the request is, or was, on the device.
void AwaitRunning(Reader* reader) {
  pb::AnalyzeEvent event;
  while (reader->Read(&event)) {
    if (!event.has_accepted() || event.accepted().queue_position() == 0) return;
  }
}

void AwaitMoment(Moment moment, const Gate& gate, std::mt19937* random,
                 Reader* reader) {
  pb::AnalyzeEvent event;
  switch (moment) {
    case Moment::kQueued:
      if ((*random)() % 2 == 0) reader->Read(&event);
      break;
    case Moment::kPrefill:
      AwaitRunning(reader);
      break;
    case Moment::kMidLayer: {
      AwaitRunning(reader);
      // No step may come, because other requests wait too.
      const int steps = gate.steps() + 1 + static_cast<int>((*random)() % 4);
      const absl::Time end = absl::Now() + absl::Milliseconds(20);
      while (gate.steps() < steps && absl::Now() < end) {
        std::this_thread::yield();
      }
      break;
    }
    case Moment::kMidWrite:
      for (unsigned i = 0; i < 2 + (*random)() % 30; ++i) reader->Read(&event);
      break;
    case Moment::kAtFinish:
      while (reader->Read(&event) && !event.has_finished()) {
      }
  }
  std::this_thread::sleep_for(std::chrono::microseconds((*random)() % 500));
}

// Makes `calls` calls, cancels each at a random moment; counts by moment.
void CancelSome(pb::Analysis::Stub* stub, const Gate& gate, unsigned seed,
                int calls, std::atomic<int>* counts) {
  std::mt19937 random(seed);
  for (int i = 0; i < calls; ++i) {
    const auto moment = static_cast<Moment>(random() % kMoments);
    const bool at_finish = moment == Moment::kAtFinish;
    grpc::ClientContext context;
    const auto reader = stub->Analyze(
        &context, at_finish ? Small(5) : Large(50 + random() % 200));
    AwaitMoment(moment, gate, &random, reader.get());
    context.TryCancel();
    pb::AnalyzeEvent event;
    while (reader->Read(&event)) {
    }
    const grpc::Status status = reader->Finish();
    if (!at_finish || !status.ok()) {
      EXPECT_EQ(status.error_code(), StatusCode::CANCELLED)
          << status.error_message();
    }
    ++counts[static_cast<int>(moment)];
  }
}

// Returns the upper bound of the bucket that holds the quantile.
double Quantile(const Samples& samples, const std::string& name, double q) {
  const double count = samples.at(name + "_count");
  double best = std::numeric_limits<double>::infinity();
  const std::string prefix = name + "_bucket{le=\"";
  for (const auto& [key, value] : samples) {
    if (!absl::StartsWith(key, prefix) || value < q * count) continue;
    best = std::min(best, std::atof(key.c_str() + prefix.size()));
  }
  return best;
}

class CancelTest : public LoadTest {
 protected:
  // Cancels this many calls that are certainly in progress: they have been
  // accepted, and the device is held.
  void CancelAccepted(int calls) {
    const auto cancelled = [this] {
      return Total(Metrics(), "qkscope_cancelled_total");
    };
    const double before = cancelled();
    gate_->Shut();
    for (int i = 0; i < calls; ++i) {
      grpc::ClientContext context;
      const auto reader = stub_->Analyze(&context, Small(7));
      pb::AnalyzeEvent event;
      EXPECT_TRUE(reader->Read(&event));
      context.TryCancel();
      while (reader->Read(&event)) {
      }
      EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
    }
    Await("cancels", [&] { return cancelled() == before + calls; });
    gate_->Open();
  }
};

TEST_F(CancelTest, R5_CancelsAtAnyMomentLeaveNothing) {
  constexpr int kThreads = 8, kCalls = 125;
  gate_->Open();
  Start(TinyOptions());
  std::atomic<int> counts[kMoments] = {};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([this, i, &counts] {
      const auto stub = pb::Analysis::NewStub(NewChannel(i));
      CancelSome(stub.get(), *gate_, 100 + i, kCalls, counts);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& count : counts) EXPECT_GT(count, 100);
  ExpectIdle();
  CancelAccepted(251);
  ExpectIdle();
  const Samples samples = Metrics();
  // A call that was cancelled at once may never have reached the server.
  EXPECT_GT(Total(samples, "qkscope_rpc_started_total"), kThreads * kCalls / 2);
  const std::string name = "qkscope_cancel_to_idle_seconds";
  const double cancelled = samples.at(name + "_count");
  EXPECT_GT(cancelled, kThreads * kCalls / 4);
  std::printf("R5: %.0f cancels to idle: mean %.2f ms, 99 %% within %.0f ms\n",
              cancelled, samples.at(name + "_sum") / cancelled * 1e3,
              Quantile(samples, name, 0.99) * 1e3);
  EXPECT_TRUE(Analyze(Small(3)).status.ok());
}

// Only the end of a call takes it out of the queue.
TEST_F(LoadTest, R5_CancelledCallsLeaveAQueueThatStands) {
  constexpr int kThreads = 4, kCalls = 50;
  Start(TinyOptions());
  HoldDevice(3);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([this, i] {
      std::mt19937 random(200 + i);
      const auto stub = pb::Analysis::NewStub(NewChannel(i));
      for (int call = 0; call < kCalls; ++call) {
        grpc::ClientContext context;
        const auto reader = stub->Analyze(&context, Small(7));
        std::this_thread::sleep_for(std::chrono::microseconds(random() % 1500));
        context.TryCancel();
        pb::AnalyzeEvent event;
        while (reader->Read(&event)) {
        }
        EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  Await("queue", [this] { return Unfinished() == 1; });
  gate_->Open();
  ExpectIdle();
  EXPECT_TRUE(HasRun(3));
  EXPECT_FALSE(HasRun(7));
}

// --- R14

// A call that nobody waits for.
class FloodCall : public grpc::ClientReadReactor<pb::AnalyzeEvent> {
 public:
  FloodCall(pb::Analysis::Stub* stub, const pb::AnalyzeRequest& request,
            const std::string& token, std::atomic<int>* ended)
      : request_(request), ended_(ended) {
    context_.AddMetadata("authorization", "Bearer " + token);
    stub->async()->Analyze(&context_, &request_, this);
    StartRead(&event_);
    StartCall();
  }
  void Cancel() { context_.TryCancel(); }
  void OnReadDone(bool ok) override {
    if (ok) StartRead(&event_);
  }
  void OnDone(const grpc::Status&) override { ++*ended_; }

 private:
  const pb::AnalyzeRequest request_;
  std::atomic<int>* const ended_;
  grpc::ClientContext context_;
  pb::AnalyzeEvent event_;
};

TEST_F(LoadTest, R14_ASingleRequestPassesAFlood) {
  constexpr int kFlood = 500;
  ServerOptions options = TinyOptions();
  options.limits.max_queued_requests = kFlood + 1;
  options.access.users = {
      testing::UserWithToken("ada", UserRole::kUser, "of-ada"),
      testing::UserWithToken("bob", UserRole::kUser, "of-bob")};
  Start(options);
  gate_->Shut();
  std::atomic<int> ended = 0;
  std::vector<std::unique_ptr<FloodCall>> flood;
  // Two of these prompts fit into a pass.
  const pb::AnalyzeRequest long_prompt = Small(250);
  for (int i = 0; i < kFlood; ++i) {
    flood.push_back(std::make_unique<FloodCall>(stub_.get(), long_prompt,
                                                "of-ada", &ended));
  }
  Await("flood", [this] { return Unfinished() == kFlood; });
  gate_->AwaitPass();
  threads_.emplace_back([&] {
    grpc::ClientContext context;
    context.AddMetadata("authorization", "Bearer of-bob");
    const auto channel = NewChannel(1);
    const auto stub = pb::Analysis::NewStub(channel);
    const Analysis out = Read(stub->Analyze(&context, Small(17)).get());
    EXPECT_TRUE(out.status.ok()) << out.status.error_message();
  });
  Await("bob", [this] { return Unfinished() == kFlood + 1; });
  const size_t before = gate_->passes().size();
  ASSERT_GE(before, 1u);
  gate_->Open();
  threads_.back().join();
  threads_.pop_back();
  const auto passes = gate_->passes();
  size_t mine = before;
  while (mine < passes.size() &&
         std::find(passes[mine].begin(), passes[mine].end(), 17) ==
             passes[mine].end()) {
    ++mine;
  }
  ASSERT_LT(mine, passes.size());
  // The pass in progress counts too.
  const int waited = static_cast<int>(mine - (before - 1));
  // Counts the flood's requests whose only pass had started by then.
  int begun = 0;
  for (size_t i = 0; i <= mine; ++i) {
    begun +=
        static_cast<int>(std::count(passes[i].begin(), passes[i].end(), 250));
  }
  std::printf("R14: waited for %d of the flood's passes, %d requests left\n",
              waited, kFlood - begun);
  EXPECT_LE(waited, 2);
  EXPECT_GT(kFlood - begun, kFlood / 2);
  for (auto& call : flood) call->Cancel();
  Await("cancelled flood", [&] { return ended == kFlood; });
  ExpectIdle();
}

// --- R16

// A client's request, with a word and numbers that only this client sends.
struct Canary {
  std::string word;
  pb::AnalyzeRequest request;
};

Canary CanaryOf(int client) {
  std::mt19937 random(static_cast<unsigned>(client));
  Canary out;
  out.word = absl::StrCat("canary-", client, "-of-many");
  std::string ids;
  // The length differs from its neighbours', so that batches are ragged.
  for (int i = 0; i < 5 + client % 23; ++i) {
    absl::StrAppend(&ids, " ids: ", 3 + random() % 90);
  }
  out.request = testing::Parse<pb::AnalyzeRequest>(absl::StrCat(
      "model: 'tiny' input {token_ids {", ids, "}} client_tag: '", out.word,
      "' arms {name: 'clean-", out.word, "'} arms {name: 'top-", out.word,
      "' disruptions {tensors: QKV_TENSOR_Q top_k {k: 2}}}"
      " generate {max_new_tokens: 4}"
      " capture {form: RAW raw_sha256: true phase: BOTH}"));
  return out;
}

// Returns the SHA-256 of all payloads, tokens and digests, in each arm's order.
std::string Fingerprint(const Analysis& analysis) {
  std::map<std::string, std::string> arms;
  for (const pb::AnalyzeEvent& event : analysis.events) {
    if (event.has_layer()) {
      absl::StrAppend(&arms[event.layer().arm()], event.layer().layer(), "/",
                      event.layer().point(), "/", event.layer().data());
    }
    if (event.has_token()) {
      absl::StrAppend(&arms[event.token().arm()], event.token().id(), "/",
                      event.token().logprob());
    }
  }
  Sha256 sha256;
  for (const auto& [name, text] : arms) {
    sha256.Update(name.data(), name.size());
    sha256.Update(text.data(), text.size());
  }
  for (const auto& digest : analysis.finished()->manifest().digests()) {
    sha256.Update(digest.sha256().data(), digest.sha256().size());
  }
  return sha256.FinishHex();
}

TEST_F(LoadTest, R16_AmongManyARequestGetsItsOwnBytesOnly) {
  constexpr int kClients = 64, kRounds = 3;
  gate_->Open();
  Start(TinyOptions());
  std::vector<Canary> canaries;
  std::vector<std::string> alone;
  for (int i = 0; i < kClients; ++i) {
    canaries.push_back(CanaryOf(i));
    const Analysis out = Analyze(canaries[i].request);
    ASSERT_TRUE(out.status.ok()) << out.status.error_message();
    alone.push_back(Fingerprint(out));
  }
  EXPECT_EQ(std::set<std::string>(alone.begin(), alone.end()).size(),
            static_cast<size_t>(kClients));
  const auto check = [&](int i, pb::Analysis::Stub* stub) {
    grpc::ClientContext context;
    const Analysis out =
        Read(stub->Analyze(&context, canaries[i].request).get());
    ASSERT_TRUE(out.status.ok()) << out.status.error_message();
    EXPECT_EQ(Fingerprint(out), alone[i]);
    std::string text;
    for (const pb::AnalyzeEvent& event : out.events) {
      text += event.SerializeAsString();
      if (!event.has_started()) continue;
      EXPECT_EQ(
          absl::StrJoin(event.started().token_ids(), ","),
          absl::StrJoin(canaries[i].request.input().token_ids().ids(), ","));
    }
    for (int j = 0; j < kClients; ++j) {
      EXPECT_EQ(text.find(canaries[j].word) != std::string::npos, i == j);
    }
  };
  // Clients must share the device. This takes a varying number of rounds,
  // because the number of rows in a pass depends on how long a row has taken.
  size_t most = 0;
  for (int round = 0; round < kRounds || most <= 16; ++round) {
    ASSERT_LT(round, 1000) << "they never share a pass";
    gate_->Shut();
    std::vector<std::thread> threads;
    for (int i = 0; i < kClients; ++i) {
      threads.emplace_back([&, i] {
        const auto stub = pb::Analysis::NewStub(NewChannel(i));
        check(i, stub.get());
      });
    }
    Await("clients", [this] { return Unfinished() == kClients; });
    gate_->Open();
    for (std::thread& thread : threads) thread.join();
    for (const auto& pass : gate_->passes()) most = std::max(most, pass.size());
  }
  std::printf("R16: up to %zu sequences in a pass\n", most);
}

}  // namespace
}  // namespace qk
