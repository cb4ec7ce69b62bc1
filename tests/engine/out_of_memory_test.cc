// The host has no memory: every operator new of a load and of a run fails once,
// each in a separate try. The failed try returns RESOURCE_EXHAUSTED and leaves
// nothing behind; the next try succeeds.
#include "engine/base/out_of_memory.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/engine/failing_new.h"
#include "tests/engine/forward_driver.h"
#include "tests/engine/tokenizer/tokenizer_testing.h"

namespace qk::testing {
namespace {

namespace fs = std::filesystem;

class OutOfMemoryTest : public ::testing::Test {
 protected:
  // Tries without failures first, so that memory with the process's lifetime is
  // allocated; then one allocation after another fails. attempt(n) must arm
  // FailingNew with n (0: nothing fails), leave the number of calls in calls_,
  // and keep nothing. `keeps_scratch`: the attempts run kernels on several
  // threads, each of which keeps its scratch memory from its first work on, so
  // that the number of live objects depends on who works first.
  template <typename Attempt>
  void FailEach(const char* what, const Attempt& attempt, int threads = 2,
                bool keeps_scratch = false) {
    ASSERT_EQ(OutOfMemory().code(), absl::StatusCode::kResourceExhausted);
    ASSERT_TRUE(attempt(0).ok());
    ASSERT_TRUE(attempt(0).ok());
    const int64_t total = calls_;
    ASSERT_GT(total, 100);
    int64_t tries = 0, failed = 0;
    // Tests each of the first thousand, then every seventh.
    for (int64_t n = 1; n <= total; n += n < 1000 ? 1 : 7, ++tries) {
      const int64_t before = FailingNew::live;
      {
        const absl::Status status = attempt(n);
        if (!status.ok()) {
          ++failed;
          ASSERT_TRUE(absl::IsResourceExhausted(status))
              << "allocation " << n << ": " << status;
        }
      }
      if (!test_backend_.leaks_out_of_memory && !keeps_scratch) {
        ASSERT_EQ(FailingNew::live, before) << "allocation " << n;
      }
    }
    ASSERT_TRUE(attempt(0).ok());
    std::printf("%s: %lld allocations; %lld of %lld that failed ended it\n",
                what, static_cast<long long>(total),
                static_cast<long long>(failed), static_cast<long long>(tries));
    // Two threads do not always allocate in the same way.
    EXPECT_GE(failed, threads == 1 ? tries : tries * 9 / 10);
  }

  absl::Status Load(const std::string& path, int64_t n) {
    ModelOptions options;
    options.compute = ComputeType::kF32;
    options.kv_cache_bytes = 1 << 20;
    options.max_rows_per_pass = 64;
    FailingNew::Arm(n);
    const auto model = Model::Load(path, options, backend_.get());
    calls_ = FailingNew::Disarm();
    if (!model.ok()) return model.status();
    // A model that loads must be whole.
    if (n == 0 && whole_.empty()) whole_ = Describe(**model);
    EXPECT_EQ(Describe(**model), whole_) << "allocation " << n;
    return model.status();
  }

  static std::string Describe(const Model& model) {
    const Tokenizer* tokenizer = model.tokenizer();
    return model.weights_sha256() + " " +
           (tokenizer == nullptr ? "no tokenizer" : tokenizer->sha256_hex());
  }

  const TestBackend test_backend_ = ChosenTestBackend();
  const std::unique_ptr<Backend> backend_ = test_backend_.make(2);
  std::string whole_;
  int64_t calls_ = 0;
};

TEST_F(OutOfMemoryTest, R13_LoadOfAFolderWithATokenizer) {
  const TempFolder folder;
  for (const char* name : {"config.json", "model.safetensors"}) {
    fs::copy_file(fs::path(GoldenPath("tiny_llama_gqa")) / name,
                  fs::path(folder.path()) / name);
  }
  folder.Write("tokenizer.json", TinyJson());
  FailEach("folder", [&](int64_t n) { return Load(folder.path(), n); });
}

TEST_F(OutOfMemoryTest, R13_LoadOfAGguf) {
  const std::string path = GoldenPath("gguf/tiny_llama_gqa/model.gguf");
  FailEach("gguf", [&](int64_t n) { return Load(path, n); });
}

TEST_F(OutOfMemoryTest, R13_LargerTokenizers) {
  const std::string json = ReadFile(TokenizerPath("gpt2.json"));
  const std::string model = ReadFile(TokenizerPath("llama2.model"));
  const std::string config =
      ReadFile(TokenizerPath("llama2.model.config.json"));
  using Loaded = absl::StatusOr<std::unique_ptr<Tokenizer>>;
  FailEach("tokenizer.json", [&](int64_t n) {
    FailingNew::Arm(n);
    const Loaded loaded =
        WithoutBadAlloc([&] { return TokenizerFromJson(json, {}); });
    calls_ = FailingNew::Disarm();
    return loaded.status();
  });
  FailEach("tokenizer.model", [&](int64_t n) {
    FailingNew::Arm(n);
    const Loaded loaded = WithoutBadAlloc(
        [&] { return TokenizerFromSentencePiece(model, {.config = config}); });
    calls_ = FailingNew::Disarm();
    return loaded.status();
  });
}

// The run covers arms with rules, every form of result, and several passes.
RunSpec FullSpec(const std::shared_ptr<const Model>& model) {
  RunSpec spec;
  for (int i = 0; i < 9; ++i) spec.tokens.push_back(3 + 7 * i);
  DisruptionRule rule;
  rule.stat_span = rule.positions = {0, 9};
  rule.layers = {0, 1};
  rule.phase = 3;
  spec.arms = {{"clean", model, {}}, {"top", model, {rule}}};
  spec.capture = CaptureAll(model->config());
  spec.capture.stage = 3;
  spec.capture.phase = 3;
  spec.baseline = 0;
  spec.logits.emplace();
  spec.logits->positions = {0, 8};
  spec.logits->top_n = 3;
  spec.score = Range{1, 9};
  spec.generate.emplace();
  spec.generate->max_new_tokens = 3;
  spec.generate->sampling.temperature = 1;
  return spec;
}

// Records the end once all is copied: a sink that throws is called again.
class CarefulRecorder : public Recorder {
 public:
  void OnFinished(const absl::Status& status,
                  const std::vector<ArmSummary>& arms,
                  const RunTimes& times) override {
    const std::vector<ArmSummary> copy = arms;
    Recorder::OnFinished(status, {}, times);
  }
};

// Drives a run like a scheduler, with memory that the caller allocated.
void Drive(::qk::Run* run, std::vector<Sequence*>* ready) {
  while (!run->finished()) {
    if (run->comparing()) {
      run->CompareTile();
      continue;
    }
    const Model* model = run->next_model();
    ready->clear();
    run->AppendReady(model, ready);
    Pass pass(*model, *ready);
    while (!pass.done()) pass.RunStep();
    run->AfterPass(*ready, pass.Finish(), 0.0);
  }
}

class OutOfMemoryRunTest : public OutOfMemoryTest {
 protected:
  // Runs FullSpec; its n-th allocation fails. All runs without a failure must
  // have the first one's frames.
  absl::Status RunOnce(const std::shared_ptr<const Model>& model, int64_t n) {
    CarefulRecorder recorder;
    std::vector<Sequence*> ready;
    ready.reserve(8);
    RunSpec spec = FullSpec(model);
    FailingNew::Arm(n);
    absl::StatusOr<std::unique_ptr<::qk::Run>> run =
        ::qk::Run::Create(std::move(spec), &recorder);
    absl::Status status = run.status();
    if (status.ok()) status = (*run)->Reserve();
    if (status.ok()) {
      Drive(run->get(), &ready);
      status = recorder.final_status;
      EXPECT_EQ(recorder.finished, 1) << "allocation " << n;
    }
    calls_ = FailingNew::Disarm();
    EXPECT_EQ(model->pages().used_pages(), 0) << "allocation " << n;
    if (!status.ok()) return status;
    std::string bytes;
    for (const LayerFrame& frame : recorder.frames) bytes += frame.data;
    EXPECT_EQ(recorder.comparisons.size(), 2u);
    EXPECT_EQ(recorder.tokens.size(), 6u);
    if (n == 0 && good_.empty()) good_ = bytes;
    EXPECT_FALSE(bytes.empty());
    EXPECT_EQ(bytes, good_) << "allocation " << n;
    return status;
  }

  std::string good_;  // frames of a good run
};

TEST_F(OutOfMemoryRunTest, R13_ARunEndsAndTheNextIsGood) {
  for (const int threads : {1, 2}) {
    const std::unique_ptr<Backend> backend = test_backend_.make(threads);
    const auto model =
        LoadGolden("tiny_llama_gqa", ComputeType::kF32, backend.get());
    ASSERT_NE(model, nullptr);
    ASSERT_TRUE(RunOnce(model, 0).ok());  // keeps good_
    FailEach(
        "run", [&](int64_t n) { return RunOnce(model, n); }, threads,
        /*keeps_scratch=*/threads > 1);
  }
}

// The kernels keep scratch memory for each thread. Every attempt has a new
// thread, which has none yet.
TEST_F(OutOfMemoryRunTest, R13_TheScratchOfAThread) {
  for (const ComputeType type : {ComputeType::kF32, ComputeType::kBF16}) {
    const std::unique_ptr<Backend> backend = test_backend_.make(1);
    const auto model = LoadGolden("tiny_llama_gqa", type, backend.get());
    ASSERT_NE(model, nullptr);
    const auto on_a_new_thread = [&](int64_t n) {
      absl::Status status;
      std::thread([&] { status = RunOnce(model, n); }).join();
      return status;
    };
    good_.clear();
    ASSERT_TRUE(RunOnce(model, 0).ok());
    ASSERT_TRUE(RunOnce(model, 0).ok());
    const int64_t without_scratch = calls_;
    ASSERT_TRUE(on_a_new_thread(0).ok());
    ASSERT_TRUE(on_a_new_thread(0).ok());
    // Attention and the matrix product have scratch memory.
    EXPECT_GE(calls_, without_scratch + 2);
    FailEach("run on a new thread", on_a_new_thread, 1);
  }
}

}  // namespace
}  // namespace qk::testing
