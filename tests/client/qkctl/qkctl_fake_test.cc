// Tests qkctl's subcommands against a fake, in-process service.
#include "tests/client/qkctl/qkctl_fake.h"

#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "client/files/file_io.h"
#include "client/files/saved_analysis.h"
#include "client/qkctl/command.h"
#include "gmock/gmock.h"
#include "tests/client/cpp/fake_stream.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST_F(QkctlFakeTest, AnalyzeFillsTheRequest) {
  EXPECT_EQ(Qkctl(kAnalyzeCommand, {"--prompt", "hello",
                                    "--arm",    "clean",
                                    "--arm",    "b=top_k:1",
                                    "--layers", "0-1",
                                    "--points", "hook_q,hook_z",
                                    "--form",   "norm_per_token",
                                    "--stage",  "before_and_after",
                                    "--top-n",  "3",
                                    "--lambda", "4",
                                    "--tag",    "t",
                                    "--logits", "2"}),
            kExitOk)
      << err_;
  const v1::AnalyzeRequest request = service_.last_request();
  EXPECT_EQ(request.model(), "fake");  // the server's only one
  EXPECT_EQ(request.input().text(), "hello");
  EXPECT_EQ(request.arms(1).name(), "b");
  EXPECT_EQ(request.compare().baseline(), "clean");
  EXPECT_THAT(request.capture().layers(), ElementsAre(0, 1));
  EXPECT_THAT(request.capture().points(), ElementsAre(v1::HOOK_Q, v1::HOOK_Z));
  EXPECT_EQ(request.capture().form(), v1::NORM_PER_TOKEN);
  EXPECT_EQ(request.capture().stage(), v1::BEFORE_AND_AFTER);
  EXPECT_EQ(request.statistics().top_n(), 3);
  EXPECT_EQ(request.statistics().lambda(), 4);
  EXPECT_EQ(request.logits().top_n(), 2);
  EXPECT_EQ(request.client_tag(), "t");
  EXPECT_FALSE(request.has_generate());
}

TEST_F(QkctlFakeTest, AnalyzeComparesByItself) {
  // Returns the request that results from `flags`.
  const auto request = [this](std::vector<std::string> flags) {
    flags.insert(flags.begin(), {"--prompt", "x"});
    EXPECT_EQ(Qkctl(kAnalyzeCommand, flags), kExitOk) << err_;
    return service_.last_request();
  };
  EXPECT_EQ(request({}).compare().baseline(), "clean");
  EXPECT_EQ(request({"--arm", "top_k:1"}).compare().baseline(), "top_k:1");
  EXPECT_EQ(
      request({"--arm", "top_k:1", "--arm", "clean"}).compare().baseline(),
      "clean");
  EXPECT_FALSE(request({"--no-compare"}).has_compare());
}

TEST_F(QkctlFakeTest, ArmsFileGivesTheRest) {
  const std::string file =
      File("arms.txtpb",
           "model: 'fake' input { token_ids { ids: [1, 2] } }\n"
           "arms { name: 'deep' disruptions { top_k { k: 2 } layers: [0] } }\n"
           "capture { form: RAW }");
  EXPECT_EQ(Qkctl(kAnalyzeCommand, {"--arms", file, "--arm", "clean", "--form",
                                    "norm_per_token"}),
            kExitOk)
      << err_;
  const v1::AnalyzeRequest request = service_.last_request();
  EXPECT_EQ(request.arms(0).name(), "deep");
  EXPECT_EQ(request.arms(1).name(), "clean");
  EXPECT_EQ(request.compare().baseline(), "clean");
  EXPECT_EQ(request.capture().form(), v1::NORM_PER_TOKEN);
  EXPECT_THAT(request.input().token_ids().ids(), ElementsAre(1, 2));
}

TEST_F(QkctlFakeTest, PromptComesFromAFileByteForByte) {
  const std::string content("two\nlines\0nul\n", 14);
  const std::string file = File("prompt.txt", content);
  EXPECT_EQ(Qkctl(kAnalyzeCommand, {"--prompt-file", file}), kExitOk) << err_;
  EXPECT_EQ(service_.last_request().input().text(), content);
}

TEST_F(QkctlFakeTest, ChatWrapsThePrompt) {
  EXPECT_EQ(Qkctl(kAnalyzeCommand, {"--prompt", "hi", "--chat", "chatml",
                                    "--system", "be brief"}),
            kExitOk);
  const v1::Chat chat = service_.last_request().input().chat();
  EXPECT_EQ(chat.format(), "chatml");
  EXPECT_EQ(chat.messages(0).role(), "system");
  EXPECT_EQ(chat.messages(1).content(), "hi");
}

TEST_F(QkctlFakeTest, JsonIsALinePerEvent) {
  FakeStreamOptions options;
  options.chunk_bytes = 8;
  service_.events = FakeStream(options);
  EXPECT_EQ(Qkctl(kAnalyzeCommand, {"--prompt", "x", "--json"}), kExitOk);
  // There are Accepted, Started, 12 tensors, 2 Applied, 2 Comparison, Finished.
  EXPECT_EQ(std::count(out_.begin(), out_.end(), '\n'), 19);
  EXPECT_THAT(out_, HasSubstr("\"point\":\"HOOK_ROT_Q\""));
  EXPECT_THAT(out_, HasSubstr("\"values\":[1,1,1,40,1,1,1,1]"));
  EXPECT_THAT(out_, HasSubstr("\"manifest\":{"));
}

TEST_F(QkctlFakeTest, ImagesAreSentAsTheyAre) {
  const std::string bytes("\x89PNG\r\n\0\xff", 8);
  const std::string first = File("a.png", bytes),
                    second = File("b.jpg", "JPEG");
  EXPECT_EQ(
      Qkctl(kAnalyzeCommand,
            {"--prompt", "x", "--parse-special", "--image", first, "--image",
             second, "--vision-layers", "0-1,3", "--max-pixels", "5000"}),
      kExitOk)
      << err_;
  const v1::AnalyzeRequest request = service_.last_request();
  ASSERT_EQ(request.input().images_size(), 2);
  EXPECT_EQ(request.input().images(0).encoded(), bytes);
  EXPECT_EQ(request.input().images(1).encoded(), "JPEG");
  EXPECT_EQ(request.input().images(1).max_pixels(), 5000);
  EXPECT_FALSE(request.input().images(1).has_min_pixels());
  EXPECT_THAT(request.capture().vision_layers(), ElementsAre(0, 1, 3));
  EXPECT_EQ(
      Qkctl(kAnalyzeCommand, {"--prompt", "x", "--image", folder_ + "/none"}),
      kExitFile);
  EXPECT_THAT(err_, HasSubstr("none"));
  EXPECT_EQ(Qkctl(kAnalyzeCommand, {"--prompt", "x", "--min-pixels", "5"}),
            kExitUsage);
}

TEST_F(QkctlFakeTest, AReplayNeedsTheRunsImages) {
  FakeStreamOptions options;
  options.images = 1;
  service_.events = FakeStream(options);
  const std::string manifest = File("m.json"), image = File("a.png", "PNG");
  ASSERT_EQ(Qkctl(kAnalyzeCommand,
                  {"--prompt", "x", "--image", image, "--manifest", manifest}),
            kExitOk)
      << err_;
  EXPECT_EQ(Qkctl(kReplayCommand, {manifest}), kExitUsage);
  EXPECT_THAT(err_, HasSubstr("--image: the run had 1 images, got 0 files"));
  EXPECT_EQ(Qkctl(kReplayCommand, {manifest, "--image", image}), kExitOk)
      << err_;
  const v1::AnalyzeRequest request = service_.last_request();
  EXPECT_EQ(request.input().images(0).encoded(), "PNG");
  EXPECT_EQ(request.input().images(0).sha256(), "00");
}

TEST_F(QkctlFakeTest, OutAndManifestCanBeReplayed) {
  const std::string tensors = File("a.safetensors");
  const std::string manifest = File("a.json");
  EXPECT_EQ(Qkctl(kAnalyzeCommand,
                  {"--prompt", "x", "--out", tensors, "--manifest", manifest}),
            kExitOk)
      << err_;
  for (const std::string& file : {tensors, manifest}) {
    EXPECT_EQ(Qkctl(kReplayCommand, {file}), kExitOk) << err_;
    EXPECT_THAT(out_, HasSubstr("identical"));
    EXPECT_THAT(service_.last_request().input().token_ids().ids(),
                ElementsAre(10, 11, 12));
  }
  FakeStreamOptions options;
  options.shift = 1;
  service_.events = FakeStream(options);
  EXPECT_EQ(Qkctl(kReplayCommand, {tensors}), kExitReplayDiffers);
  EXPECT_THAT(out_, HasSubstr("clean/layer.0.hook_rot_q[0, 0]: was 1, is 2"));
  options.kernel_ids = {"new"};
  service_.events = FakeStream(options);
  EXPECT_EQ(Qkctl(kReplayCommand, {manifest}), kExitNotComparable);
}

TEST_F(QkctlFakeTest, AnIncompleteStreamLeavesNoFile) {
  service_.events.pop_back();
  const std::string file = File("a.safetensors");
  EXPECT_EQ(Qkctl(kAnalyzeCommand, {"--prompt", "x", "--out", file}),
            kExitIncomplete);
  EXPECT_THAT(err_, HasSubstr("incomplete stream"));
  EXPECT_NE(access(file.c_str(), F_OK), 0);
}

TEST_F(QkctlFakeTest, ExitCodesTellTheKindOfError) {
  service_.events.clear();
  const std::pair<grpc::StatusCode, int> codes[] = {
      {grpc::StatusCode::INVALID_ARGUMENT, kExitBadRequest},
      {grpc::StatusCode::OUT_OF_RANGE, kExitBadRequest},
      {grpc::StatusCode::NOT_FOUND, kExitNotFound},
      {grpc::StatusCode::RESOURCE_EXHAUSTED, kExitExhausted},
      {grpc::StatusCode::UNAVAILABLE, kExitUnavailable},
      {grpc::StatusCode::CANCELLED, kExitCancelled},
      {grpc::StatusCode::DEADLINE_EXCEEDED, kExitDeadline},
      {grpc::StatusCode::UNAUTHENTICATED, kExitDenied},
      {grpc::StatusCode::PERMISSION_DENIED, kExitDenied},
      {grpc::StatusCode::INTERNAL, kExitOther},
  };
  for (const auto& [code, exit_code] : codes) {
    service_.status = grpc::Status(code, "because");
    EXPECT_EQ(Qkctl(kAnalyzeCommand, {"--prompt", "x"}), exit_code) << code;
    EXPECT_THAT(err_, HasSubstr("qkctl: because"));
  }
}

TEST_F(QkctlFakeTest, WrongUsageIsToldApartFromARefusal) {
  const std::vector<std::vector<std::string>> wrong = {
      {},
      {"--prompt", "x", "--token-ids", "1"},
      {"--prompt", "x", "--arm", "nonsense"},
      {"--prompt", "x", "--points", "hook_x"},
      {"--prompt", "x", "--timeout", "0"},
      {"--prompt", "x", "--no-compare", "--baseline", "clean"},
      {"--prompt", "x", "--system", "y"},
      {"--prompt", "x", "stray"},
      {"--token-ids", "1,x"},
      {"--prompt", "x", "--nonsense"},
  };
  for (const auto& arguments : wrong) {
    EXPECT_EQ(Qkctl(kAnalyzeCommand, arguments), kExitUsage)
        << ::testing::PrintToString(arguments);
    EXPECT_THAT(err_, HasSubstr("qkctl: "));
  }
  EXPECT_EQ(Qkctl(kAnalyzeCommand, {"--prompt-file", folder_ + "/none"}),
            kExitFile);
}

TEST_F(QkctlFakeTest, CompareRunsTwoArms) {
  EXPECT_EQ(Qkctl(kCompareCommand,
                  {"--prompt", "x", "--arm", "clean", "--arm", "top_k:1"}),
            kExitOk)
      << err_;
  EXPECT_EQ(service_.last_request().capture().stage(), v1::AFTER);
  EXPECT_THAT(out_, HasSubstr("A: clean\nB: top_k:1\n"));
  EXPECT_THAT(out_, HasSubstr("hook_rot_q"));
  EXPECT_EQ(Qkctl(kCompareCommand, {"--prompt", "x"}), kExitUsage);
}

TEST_F(QkctlFakeTest, CompareReadsFiles) {
  const std::string a = File("a"), b = File("b");
  Qkctl(kAnalyzeCommand, {"--prompt", "x", "--out", a});
  FakeStreamOptions options;
  options.shift = 1;
  service_.events = FakeStream(options);
  Qkctl(kAnalyzeCommand, {"--prompt", "x", "--out", b});
  EXPECT_EQ(Qkctl(kCompareCommand, {a, b}), kExitOk) << err_;
  // All values of V go from 1 to 2.
  EXPECT_THAT(out_, HasSubstr("100.00 %"));
  EXPECT_EQ(Qkctl(kCompareCommand, {a, "--arm", "clean", "--arm", "top_k:1"}),
            kExitOk)
      << err_;
  EXPECT_THAT(out_, HasSubstr(" 0.00 %"));
  EXPECT_THAT(out_, Not(HasSubstr("100.00 %")));
  EXPECT_EQ(Qkctl(kCompareCommand, {a}), kExitUsage);
  EXPECT_EQ(Qkctl(kCompareCommand, {a, b, "--arm", "nonesuch"}), kExitUsage);
}

TEST_F(QkctlFakeTest, GenerateStreamsTextWithoutControls) {
  EXPECT_EQ(Qkctl(kGenerateCommand, {"--prompt", "x", "--max-new-tokens", "2"}),
            kExitOk)
      << err_;
  EXPECT_EQ(out_, " w0[2J w1[2J\n");
  EXPECT_EQ(Qkctl(kGenerateCommand,
                  {"--prompt", "x", "--max-new-tokens", "2", "--json"}),
            kExitOk);
  EXPECT_THAT(out_, HasSubstr("{\"finished\":{\"prompt_tokens\":3"));
}

TEST_F(QkctlFakeTest, ScoreTakesFlagsAndFiles) {
  EXPECT_EQ(Qkctl(kScoreCommand,
                  {"--context", "a", "--continuation", "bc", "--continuation",
                   "d", "--arm", "clean", "--arm", "top_k:1"}),
            kExitOk)
      << err_;
  EXPECT_EQ(std::count(out_.begin(), out_.end(), '\n'), 1 + 2 * 2);
  EXPECT_THAT(out_, HasSubstr("-1.0000"));
  const std::string file =
      File("pairs.jsonl",
           "{\"context\": \"a\", \"continuation\": \"b\"}\n\n"
           "{\"context_ids\": [1], \"continuation_ids\": [2, 3, 4]}\n");
  EXPECT_EQ(Qkctl(kScoreCommand, {"--jsonl", file, "--json"}), kExitOk) << err_;
  EXPECT_THAT(out_, HasSubstr("\"pair\":1,\"result\":{\"logprob\":-0.5,\"is_"
                              "greedy\":true"));
  EXPECT_THAT(out_, HasSubstr("\"continuation_tokens\":3"));
  const std::string bad = File("bad.jsonl", "{\"context\": \"a\"}\n");
  EXPECT_EQ(Qkctl(kScoreCommand, {"--jsonl", bad}), kExitUsage);
  EXPECT_THAT(err_, HasSubstr("bad.jsonl:1: must have \"continuation\""));
  EXPECT_EQ(Qkctl(kScoreCommand, {"--context", "a"}), kExitUsage);
}

TEST_F(QkctlFakeTest, TokenizeShowsPieces) {
  EXPECT_EQ(Qkctl(kTokenizeCommand, {"--prompt", "ab"}), kExitOk) << err_;
  EXPECT_THAT(out_, HasSubstr("97       0       1  'a'"));
  EXPECT_EQ(Qkctl(kTokenizeCommand, {"--prompt", "ab", "--ids"}), kExitOk);
  EXPECT_EQ(out_, "97,98\n");
}

TEST_F(QkctlFakeTest, EstimateModelsAndHealth) {
  EXPECT_EQ(Qkctl(kEstimateCommand, {"--token-ids", "1,2,3"}), kExitOk) << err_;
  EXPECT_THAT(out_, HasSubstr("prompt            3 tokens"));
  EXPECT_EQ(Qkctl(kModelsCommand, {}), kExitOk) << err_;
  EXPECT_THAT(out_, HasSubstr("fake  READY"));
  EXPECT_THAT(out_, HasSubstr("\nruns on cpu: a fake; not on cuda: no GPU\n"));
  EXPECT_EQ(Qkctl(kHealthCommand, {}), kExitOk) << err_;
  EXPECT_EQ(out_, "SERVING\n");
  EXPECT_EQ(Qkctl(kHealthCommand, {"--model", "nonesuch"}), kExitNotFound);
}

TEST_F(QkctlFakeTest, EveryCommandHasHelpWithExamples) {
  for (const Command* command :
       {&kAnalyzeCommand, &kAnalyzeManyCommand, &kCancelCommand,
        &kCompareCommand, &kEstimateCommand, &kGenerateCommand, &kHealthCommand,
        &kModelCommand, &kModelsCommand, &kQueueCommand, &kReplayCommand,
        &kResultCommand, &kScoreCommand, &kTokenizeCommand, &kTopCommand,
        &kUsageCommand, &kUserCommand}) {
    EXPECT_EQ(Qkctl(*command, {"--help"}), kExitOk);
    EXPECT_THAT(out_, HasSubstr("Example"));
    EXPECT_THAT(out_, HasSubstr("Exit codes:"));
    EXPECT_THAT(out_,
                HasSubstr(std::string("Usage: qkctl ") + command->text.name));
  }
}

}  // namespace
}  // namespace qk::client
