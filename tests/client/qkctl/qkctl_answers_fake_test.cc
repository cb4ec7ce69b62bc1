// Tests what qkctl does with answers: where it saves them, what it says of
// values that are not finite, and that it asks for all parts of a list.
#include <algorithm>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "tests/client/qkctl/qkctl_fake.h"
#include "tests/temp_folder.h"

namespace qk::client {
namespace {

namespace fs = std::filesystem;
namespace v1 = qkscope::v1;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class AnswersTest : public QkctlFakeTest {
 protected:
  std::string Path(const std::string& name) const {
    return work_.path() + "/" + name;
  }
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(work_.path())) {
      names.push_back(entry.path().filename());
    }
    return names;
  }
  // Whether the service got an Analyze.
  bool Asked() { return service_.last_request().has_input(); }

  const testing::TempFolder work_;
};

// ---------------------------------------------------------------- files

TEST_F(AnswersTest, OutputsAreTriedBeforeTheRequest) {
  fs::create_directory(Path("folder"));
  work_.Write("file", "old");
  const std::vector<std::pair<std::string, std::string>> bad = {
      {Path("none/a"), "there is no folder " + Path("none")},
      {Path("folder"), "Is a directory"},
      {Path("folder/"), "Is a directory"},
      {Path("new/"), "directory"},
      {Path("file/a"), "Not a directory"},
      {"/proc/a.safetensors", "cannot write /proc/a.safetensors"},
      {"", "cannot write ''"},
      {Path(std::string(300, 'n')), "File name too long"},
  };
  for (const auto& [path, error] : bad) {
    for (const char* flag : {"--out", "--manifest"}) {
      SCOPED_TRACE(flag + (" " + path));
      EXPECT_EQ(Qkctl(kAnalyzeCommand, {"--prompt", "x", flag, path}),
                kExitFile);
      EXPECT_THAT(err_, HasSubstr(error));
      EXPECT_EQ(Qkctl(kResultCommand, {"id", flag, path}), kExitFile);
      EXPECT_THAT(err_, HasSubstr(error));
      EXPECT_THAT(out_, IsEmpty());
    }
  }
  EXPECT_FALSE(Asked());
  EXPECT_THAT(Names(), SizeIs(2));
}

TEST_F(AnswersTest, AFailedRequestLeavesTheOldFile) {
  const std::string path = work_.Write("file", "old");
  service_.events.pop_back();  // the stream ends without Finished
  EXPECT_EQ(Qkctl(kAnalyzeCommand,
                  {"--prompt", "x", "--out", path, "--manifest", Path("new")}),
            kExitIncomplete);
  EXPECT_TRUE(Asked());
  EXPECT_EQ(*ReadFile(path), "old");
  EXPECT_THAT(Names(), ElementsAre("file"));
}

TEST_F(AnswersTest, TwoFilesMustDiffer) {
  const std::string path = work_.Write("file", "old");
  fs::create_symlink(path, Path("link"));
  for (const std::string& other :
       {path, Path("./file"), Path("link"), work_.path() + "//file"}) {
    EXPECT_EQ(Qkctl(kAnalyzeCommand,
                    {"--prompt", "x", "--out", path, "--manifest", other}),
              kExitUsage);
    EXPECT_THAT(err_, HasSubstr("--out and --manifest: name the same file"));
  }
  EXPECT_EQ(Qkctl(kAnalyzeCommand, {"--prompt", "x", "--out", Path("new"),
                                    "--manifest", Path("./new")}),
            kExitUsage);
  EXPECT_FALSE(Asked());
}

TEST_F(AnswersTest, ADetachedRequestHasNothingToSave) {
  EXPECT_EQ(
      Qkctl(kAnalyzeCommand, {"--prompt", "x", "--detach", "--out", Path("a")}),
      kExitUsage);
  EXPECT_THAT(err_, HasSubstr("qkctl result"));
  EXPECT_FALSE(Asked());
}

TEST_F(AnswersTest, LinksAndDevicesStay) {
  const std::string file = work_.Write("file", "old");
  fs::create_symlink(file, Path("link"));
  EXPECT_EQ(
      Qkctl(kAnalyzeCommand, {"--prompt", "x", "--manifest", Path("link")}),
      kExitOk)
      << err_;
  EXPECT_TRUE(fs::is_symlink(Path("link")));
  EXPECT_THAT(*ReadFile(file), HasSubstr("fake-kernel"));
  EXPECT_EQ(
      Qkctl(kAnalyzeCommand, {"--prompt", "x", "--manifest", "/dev/null"}),
      kExitOk)
      << err_;
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

TEST_F(AnswersTest, AResumableRequestsIdIsPrintedWithEveryError) {
  const std::string id = service_.events[0].accepted().request_id();
  ASSERT_FALSE(id.empty());
  const std::string hint = "the request's id is " + id + "; see qkctl result ";
  // Its results cannot be saved.
  EXPECT_EQ(Qkctl(kAnalyzeCommand,
                  {"--prompt", "x", "--resumable", "--manifest", "/dev/full"}),
            kExitFile);
  EXPECT_THAT(err_, HasSubstr("cannot write /dev/full"));
  EXPECT_THAT(err_, HasSubstr(hint));
  // The stream breaks.
  service_.events.pop_back();
  for (const auto code :
       {grpc::StatusCode::DEADLINE_EXCEEDED, grpc::StatusCode::UNAVAILABLE,
        grpc::StatusCode::RESOURCE_EXHAUSTED}) {
    service_.status = grpc::Status(code, "because");
    EXPECT_NE(Qkctl(kAnalyzeCommand, {"--prompt", "x", "--resumable"}),
              kExitOk);
    EXPECT_THAT(err_, HasSubstr(hint)) << code;
    EXPECT_NE(Qkctl(kAnalyzeCommand, {"--prompt", "x"}), kExitOk);
    EXPECT_THAT(err_, Not(HasSubstr(hint))) << code;
  }
}

TEST_F(AnswersTest, ACancelledRequestHasNoResultsToSee) {
  const std::string id = service_.events[0].accepted().request_id();
  service_.events.pop_back();
  service_.status = grpc::Status(grpc::StatusCode::CANCELLED, "by root");
  EXPECT_EQ(Qkctl(kAnalyzeCommand, {"--prompt", "x", "--resumable"}),
            kExitCancelled);
  EXPECT_THAT(err_, HasSubstr("the request's id is " + id + "\n"));
}

// ---------------------------------------------------------------- not finite

// Makes every number of an answer a NaN, as the server would.
std::vector<v1::AnalyzeEvent> NanStream() {
  FakeStreamOptions options;
  options.shift = kNan;
  std::vector<v1::AnalyzeEvent> events = FakeStream(options);
  for (v1::AnalyzeEvent& event : events) {
    if (event.has_layer() && event.layer().has_statistics()) {
      event.mutable_layer()->mutable_statistics()->set_non_finite_count(8);
    }
    if (event.has_comparison()) {
      v1::Comparison* comparison = event.mutable_comparison();
      for (float& kl : *comparison->mutable_kl()) kl = kNan;
      comparison->mutable_top1_flip()->Set(0, false);
      comparison->set_top1_flips(0);
      comparison->set_mean_kl(kNan);
      comparison->set_mean_logprob(kNan);
      comparison->set_non_finite(comparison->kl_size());
    }
    if (!event.has_finished()) continue;
    for (const char* arm : {"clean", "top_k:1"}) {
      v1::ArmSummary* summary = event.mutable_finished()->add_arms();
      summary->set_arm(arm);
      summary->mutable_non_finite()->set_captured(48);
      summary->mutable_non_finite()->set_logits(1);
      summary->mutable_non_finite()->set_kl(3);
    }
  }
  return events;
}

constexpr char kTold[] =
    "arm clean: not finite (NaN or infinite): 48 captured values, the logits "
    "of 1 position, the KL of 3 positions\n";

TEST_F(AnswersTest, AnAnalysisTellsValuesThatAreNotFinite) {
  service_.events = NanStream();
  EXPECT_EQ(Qkctl(kAnalyzeCommand, {"--prompt", "x", "--arm", "clean", "--arm",
                                    "top_k:1", "--explain"}),
            kExitOk);
  EXPECT_THAT(err_, HasSubstr("qkctl: " + std::string(kTold)));
  EXPECT_THAT(out_, HasSubstr(kTold));
  EXPECT_THAT(out_, HasSubstr("nan"));
  EXPECT_THAT(out_, HasSubstr("0/0"));
  // No number but those of the note may look like a result.
  EXPECT_THAT(out_, Not(HasSubstr("0.0000")));
  EXPECT_THAT(out_, Not(HasSubstr("Massive values over")));
  EXPECT_EQ(Qkctl(kAnalyzeCommand, {"--prompt", "x", "--json"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("\"non_finite\":{\"captured\":48,\"logits\":1,"
                              "\"kl\":3}"));
  EXPECT_THAT(out_, HasSubstr("\"mean_kl\":\"NaN\""));
  EXPECT_THAT(err_, HasSubstr(kTold));
}

TEST_F(AnswersTest, CompareHasAnExitCodeForThem) {
  service_.events = NanStream();
  const std::vector<std::string> arms = {"--arm", "clean", "--arm", "top_k:1"};
  const std::string file = File("nan.safetensors");
  EXPECT_EQ(Qkctl(kAnalyzeCommand, {"--prompt", "x", "--out", file}), kExitOk);
  for (const bool files : {false, true}) {
    std::vector<std::string> words = arms;
    if (files) {
      words.insert(words.begin(), file);
    } else {
      words.insert(words.begin(), {"--prompt", "x"});
    }
    EXPECT_EQ(Qkctl(kCompareCommand, words), kExitNonFinite) << out_;
    EXPECT_THAT(err_, HasSubstr("A has 48 values and the KL of 3 positions "
                                "that are not finite"));
    EXPECT_THAT(out_, HasSubstr("nan %"));
    EXPECT_THAT(out_, Not(HasSubstr("0.00 %")));
    words.push_back("--json");
    EXPECT_EQ(Qkctl(kCompareCommand, words), kExitNonFinite);
    EXPECT_THAT(out_, HasSubstr("\"ratio\":[\"NaN\",\"NaN\"],\"change\":"
                                "\"NaN\",\"non_finite\":[8,8]}"));
    words.push_back("--allow-non-finite");
    EXPECT_EQ(Qkctl(kCompareCommand, words), kExitOk);
    EXPECT_THAT(err_, HasSubstr("not finite"));
  }
}

TEST_F(AnswersTest, GenerateAndScoreHaveAnExitCodeForThem) {
  service_.non_finite = true;
  const std::vector<std::string> generate = {"--prompt", "x"};
  EXPECT_EQ(Qkctl(kGenerateCommand, generate), kExitNonFinite);
  EXPECT_THAT(err_, HasSubstr("not finite (NaN or infinite): the logits of 1 "
                              "position; the generation ended after 0 tokens"));
  EXPECT_EQ(Qkctl(kGenerateCommand, {"--prompt", "x", "--allow-non-finite"}),
            kExitOk);
  EXPECT_THAT(err_, HasSubstr("not finite"));
  const std::vector<std::string> score = {
      "--context", "a", "--continuation", "b", "--continuation", "c"};
  EXPECT_EQ(Qkctl(kScoreCommand, score), kExitNonFinite);
  EXPECT_THAT(out_, HasSubstr("nan"));
  EXPECT_THAT(err_, HasSubstr("the log-probabilities of 2 of 2 scores"));
  std::vector<std::string> allowed = score;
  allowed.push_back("--allow-non-finite");
  EXPECT_EQ(Qkctl(kScoreCommand, allowed), kExitOk);
  service_.non_finite = false;
  EXPECT_EQ(Qkctl(kScoreCommand, score), kExitOk) << err_;
  EXPECT_THAT(err_, IsEmpty());
}

// ---------------------------------------------------------------- many

TEST_F(AnswersTest, IdsAreEchoedAsTheFileHasThem) {
  for (const char* id : {"12345678901234567890", "seven"}) {
    for (const v1::AnalyzeEvent& event : NanStream()) {
      v1::AnalyzeManyEvent& sent = service_.many_events.emplace_back();
      sent.mutable_prompt()->set_id(id);
      *sent.mutable_prompt()->mutable_event() = event;
    }
  }
  service_.many_events.emplace_back().mutable_finished()->set_prompts(2);
  const std::string file =
      File("p.jsonl",
           "\xEF\xBB\xBF{\"id\": 12345678901234567890, \"prompt\": \"x\"}\n"
           "{\"id\": \"seven\", \"prompt\": \"y\"}\n");
  EXPECT_EQ(Qkctl(kAnalyzeManyCommand, {"--jsonl", file, "--json"}), kExitOk)
      << err_;
  EXPECT_THAT(out_, HasSubstr("{\"id\":12345678901234567890,\"event\":"));
  EXPECT_THAT(out_, HasSubstr("{\"id\":\"seven\",\"event\":"));
  EXPECT_THAT(err_, HasSubstr("not finite (NaN or infinite): values of 2 "
                              "prompts"));
  const auto requests = service_.last_many_requests();
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_EQ(requests[1].prompt().id(), "12345678901234567890");
  EXPECT_EQ(requests[2].prompt().id(), "seven");
}

// ---------------------------------------------------------------- long lists

TEST_F(AnswersTest, AllPartsOfAListAreShown) {
  service_.entries_per_answer = 3;
  for (const char* text : {"abcdefgh", "abc", "a"}) {
    EXPECT_EQ(Qkctl(kTokenizeCommand, {"--prompt", text, "--ids"}), kExitOk)
        << err_;
    std::string ids;
    for (const char* c = text; *c != '\0'; ++c) {
      ids += (ids.empty() ? "" : ",") + std::to_string(static_cast<int>(*c));
    }
    EXPECT_EQ(out_, ids + "\n");
  }
  service_.models = 8;
  EXPECT_EQ(Qkctl(kModelsCommand, {"--json"}), kExitOk) << err_;
  EXPECT_THAT(out_, HasSubstr("\"name\":\"fake7\""));
  EXPECT_THAT(out_, Not(HasSubstr("next_offset")));
}

TEST_F(AnswersTest, PartsThatDoNotAdvanceAreAnError) {
  service_.entries_per_answer = 0;
  EXPECT_EQ(Qkctl(kTokenizeCommand, {"--prompt", "abc"}), kExitOther);
  EXPECT_THAT(err_, HasSubstr("next_offset 0 follows offset 0"));
}

// A call has few enough pairs, and few enough bytes that its answer is small.
TEST_F(AnswersTest, ScoresAreAskedForInParts) {
  std::string lines;
  for (int i = 0; i < 300; ++i) {
    lines += "{\"context\": \"a\", \"continuation\": \"b\"}\n";
  }
  for (int i = 0; i < 3; ++i) {
    lines += "{\"context\": \"a\", \"continuation\": \"" +
             std::string(300'000, 'c') + "\"}\n";
  }
  EXPECT_EQ(Qkctl(kScoreCommand, {"--jsonl", File("s.jsonl", lines)}), kExitOk)
      << err_;
  EXPECT_THAT(service_.score_calls(), ElementsAre(256, 45, 1, 1));
  EXPECT_EQ(std::count(out_.begin(), out_.end(), '\n'), 1 + 303);
}

}  // namespace
}  // namespace qk::client
