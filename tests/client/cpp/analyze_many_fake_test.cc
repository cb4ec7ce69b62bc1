// Tests AnalyzeMany of the client library against a fake, in-process service.
#include <string>
#include <vector>

#include "client/cpp/analysis_client.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/cpp/fake_service.h"
#include "tests/client/cpp/fake_stream.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

v1::AnalyzeManyEvent Failure(const std::string& id, int code = 3) {
  v1::AnalyzeManyEvent event;
  event.mutable_error()->set_id(id);
  event.mutable_error()->set_code(code);
  event.mutable_error()->set_message("bad prompt");
  return event;
}

v1::AnalyzeManyEvent Summary(int64_t prompts, int64_t failed) {
  v1::AnalyzeManyEvent event;
  event.mutable_finished()->set_prompts(prompts);
  event.mutable_finished()->set_failed(failed);
  return event;
}

v1::AnalyzeManyEvent AggregateOf(int layer) {
  v1::AnalyzeManyEvent event;
  event.mutable_aggregate()->add_entries()->set_layer(layer);
  return event;
}

class AnalyzeManyFakeTest : public ::testing::Test {
 protected:
  void SendPrompt(const std::string& id, float shift = 0) {
    FakeStreamOptions options;
    options.shift = shift;
    for (const v1::AnalyzeEvent& event : FakeStream(options)) {
      v1::AnalyzeManyEvent& sent = service_.many_events.emplace_back();
      sent.mutable_prompt()->set_id(id);
      *sent.mutable_prompt()->mutable_event() = event;
    }
  }

  void Send(const v1::AnalyzeManyEvent& event) {
    service_.many_events.push_back(event);
  }

  // Calls AnalyzeMany with prompts a, b and c; ends_ lists how each ended.
  absl::StatusOr<ManyResult> Call(ManyObserver observer = {},
                                  const CallOptions& options = {}) {
    std::vector<v1::AnalyzeManyPrompt> prompts(3);
    for (int i = 0; i < 3; ++i) {
      prompts[i].set_id(std::string(1, static_cast<char>('a' + i)));
      prompts[i].mutable_input()->set_text("prompt");
    }
    ends_.clear();
    results_.clear();
    observer.on_prompt = [this](const std::string& id,
                                absl::StatusOr<AnalysisResult> result) {
      ends_.push_back(id + (result.ok() ? " ok" : " failed"));
      results_.push_back(std::move(result));
    };
    ClientOptions client;
    client.server = service_.address();
    v1::AnalyzeManySpec spec;
    spec.mutable_request()->set_model("fake");
    return AnalysisClient::Create(client)->AnalyzeMany(spec, prompts, observer,
                                                       options);
  }

  void ExpectBroken(const std::string& why) {
    const auto result = Call();
    EXPECT_TRUE(IsIncompleteStream(result.status())) << result.status();
    EXPECT_THAT(std::string(result.status().message()), HasSubstr(why));
  }

  FakeService service_;
  std::vector<std::string> ends_;
  std::vector<absl::StatusOr<AnalysisResult>> results_;
};

TEST_F(AnalyzeManyFakeTest, EveryPromptEndsWithItsResultOrItsError) {
  SendPrompt("a");
  Send(Failure("b"));
  SendPrompt("c", /*shift=*/1);
  Send(AggregateOf(0));
  Send(AggregateOf(1));
  Send(Summary(3, 1));
  int events = 0, tensors_of_c = 0;
  ManyObserver observer;
  observer.on_event = [&](const std::string&, const v1::AnalyzeEvent&) {
    ++events;
  };
  observer.on_tensor = [&](const std::string& id, int64_t, const Tensor&) {
    tensors_of_c += id == "c";
  };
  const auto result = Call(observer);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(ends_, ElementsAre("a ok", "b failed", "c ok"));
  EXPECT_EQ(results_[0]->tensors.size(), 12u);
  EXPECT_EQ(results_[1].status(), absl::InvalidArgumentError("bad prompt"));
  EXPECT_NE(results_[0]->tensors[0].data, results_[2]->tensors[0].data);
  EXPECT_EQ(events, 2 * (1 + 1 + 2 + 2 + 1));
  EXPECT_EQ(tensors_of_c, 12);
  EXPECT_EQ(result->failed, 1);
  ASSERT_EQ(result->aggregate.size(), 2u);
  EXPECT_EQ(result->aggregate[1].layer(), 1);

  const auto requests = service_.last_many_requests();
  ASSERT_EQ(requests.size(), 4u);
  EXPECT_EQ(requests[0].spec().request().model(), "fake");
  EXPECT_EQ(requests[3].prompt().id(), "c");
}

TEST_F(AnalyzeManyFakeTest, AStreamWithoutItsSummaryIsIncomplete) {
  for (const char* id : {"a", "b", "c"}) SendPrompt(id);
  ExpectBroken("without Finished");
  EXPECT_EQ(ends_.size(), 3u);
}

TEST_F(AnalyzeManyFakeTest, APromptWithoutItsEndIsIncomplete) {
  SendPrompt("a");
  SendPrompt("b");
  Send(Summary(3, 0));
  ExpectBroken("the summary came before the end of prompt 'c'");
  service_.many_events.clear();
  SendPrompt("a");
  service_.many_events.pop_back();
  SendPrompt("b");
  ExpectBroken("expected prompt 'a', got 'b'");
  EXPECT_THAT(ends_, IsEmpty());
}

TEST_F(AnalyzeManyFakeTest, EventsOfNoPromptAreABrokenPromise) {
  SendPrompt("x");
  ExpectBroken("expected prompt 'a', got 'x'");
  service_.many_events.clear();
  for (const char* id : {"a", "b", "c", "a"}) SendPrompt(id);
  ExpectBroken("got prompt 'a' after the last one");
}

TEST_F(AnalyzeManyFakeTest, TheSummaryMustCountRight) {
  for (const char* id : {"a", "b", "c"}) SendPrompt(id);
  Send(Summary(3, 1));
  ExpectBroken("the summary counts 3 prompts, 1 failed, got 3, 0 failed");
  service_.many_events.back() = Summary(4, 0);
  ExpectBroken("counts 4 prompts");
  service_.many_events.back() = Summary(3, 0);
  EXPECT_TRUE(Call().ok());
  Send(Summary(3, 0));
  ExpectBroken("an event after the summary");
}

TEST_F(AnalyzeManyFakeTest, AnErrorMustHaveACode) {
  Send(Failure("a", 0));
  ExpectBroken("prompt 'a' failed with the code OK");
}

TEST_F(AnalyzeManyFakeTest, EachPromptsStreamIsChecked) {
  SendPrompt("a");
  service_.many_events.erase(service_.many_events.begin() + 5);
  ExpectBroken("is missing");
  EXPECT_THAT(ends_, IsEmpty());
}

TEST_F(AnalyzeManyFakeTest, ARefusedSpecKeepsItsCode) {
  service_.status =
      grpc::Status(grpc::StatusCode::NOT_FOUND, "no model named 'fake'");
  const auto result = Call();
  EXPECT_EQ(result.status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(IsIncompleteStream(result.status()));
}

TEST_F(AnalyzeManyFakeTest, CancellationEndsACallInProgress) {
  SendPrompt("a");
  service_.hang = true;
  Cancellation cancellation;
  CallOptions options;
  options.cancellation = &cancellation;
  ManyObserver observer;
  observer.on_tensor = [&](const std::string&, int64_t, const Tensor&) {
    cancellation.Cancel();
  };
  const auto result = Call(observer, options);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace qk::client
