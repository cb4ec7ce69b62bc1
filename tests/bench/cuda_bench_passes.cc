// Whole passes of models with random weights.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <random>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/pass.h"
#include "engine/run/run.h"
#include "engine/sequence.h"
#include "tests/bench/cuda_bench.h"

namespace qk::bench {
namespace {

class NullSink : public IgnoringSink {
 public:
  void OnFinished(const absl::Status& status, const std::vector<ArmSummary>&,
                  const RunTimes&) override {
    Check(status);
  }
};

// Milliseconds on an H200; "": there is none. `library`: whether cuBLASLt
// multiplies.
std::string Target(const std::string& shape, const std::string& what,
                   bool library) {
  const std::map<std::string, std::string> targets = {
      {"Llama-7B 2048", library ? "58 (floor 45)" : "110"},
      {"Llama-7B decode 1", "4.7"},
      {"Llama-7B decode 64", "28"},
      {"Llama-1B 2048", "11"},
      {"Llama-1B decode 1", "1.0"},
      {"SmolLM2-135M decode 1", "1.2"}};
  const auto found = targets.find(absl::StrCat(shape, " ", what));
  return found == targets.end() ? "" : absl::StrCat("<= ", found->second);
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

class PassBench {
 public:
  PassBench(const Settings& settings, const testing::LlamaShape& shape,
            Backend& backend)
      : settings_(settings), shape_(shape), backend_(backend) {
    ModelOptions options;
    options.compute = ComputeType::kBF16;
    // Pages are taken when they are needed.
    options.kv_cache_bytes = int64_t{96} << 30;
    options.check_weights_below = 0;
    options.max_rows_per_pass = settings.small ? 64 : 2048;
    model_ = Checked(testing::RandomModel(shape, options, &backend));
    for (const std::string& id : backend.info().kernel_ids) {
      library_ |= absl::StrContains(id, "cublaslt");
    }
  }

  void PrintLoad() const {
    const double gb = static_cast<double>(model_->device_bytes()) / 1e9;
    std::printf("%s: %.2f GB of weights, loaded in %.1f s.\n",
                shape_.name.c_str(), gb, model_->load_seconds());
  }

  void Prefill(int tokens) {
    std::vector<double> off, on;
    for (int i = 0; i < (settings_.small ? 2 : 7); ++i) {
      const double with = PrefillOnce(tokens, true);
      const double without = PrefillOnce(tokens, false);
      if (i == 0) continue;  // memory is taken then
      on.push_back(with);
      off.push_back(without);
    }
    const double cost = Median(on) / Median(off) - 1;
    const bool goal = shape_.name == "Llama-7B" && tokens == 2048;
    std::printf("| %s | prefill, %d tokens | %.2f | %s | %.2f | %.1f %%%s |\n",
                shape_.name.c_str(), tokens, 1e3 * Median(off),
                Target(shape_.name, absl::StrCat(tokens), library_).c_str(),
                1e3 * Median(on), 100 * cost, goal ? " (<= 3 %)" : "");
    std::fflush(stdout);
  }

  // All sequences have `context` tokens before the first step that counts.
  void Decode(int sequences, int context) {
    const int steps = settings_.small ? 2 : 24;
    const int warm = settings_.small ? 1 : 4;
    std::vector<std::unique_ptr<qk::Run>> runs;
    for (int i = 0; i < sequences; ++i) {
      RunSpec spec = Spec(context, false, i);
      spec.logits.reset();
      spec.generate.emplace();
      spec.generate->max_new_tokens = steps + warm + 1;
      runs.push_back(Checked(qk::Run::Create(std::move(spec), &sink_)));
      Check(runs.back()->Reserve());
      RunPass({runs.back().get()});
    }
    std::vector<qk::Run*> together;
    for (const auto& run : runs) together.push_back(run.get());
    for (int i = 0; i < warm; ++i) RunPass(together);
    std::vector<double> passes;
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < steps; ++i) passes.push_back(RunPass(together));
    const double wall =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
            .count() /
        steps;
    std::printf(
        "| %s | decode, %d at %d tokens | %.2f | %s | | %.0f tokens/s with the "
        "host's part |\n",
        shape_.name.c_str(), sequences, context, 1e3 * Median(passes),
        Target(shape_.name, absl::StrCat("decode ", sequences), library_)
            .c_str(),
        sequences / wall);
    std::fflush(stdout);
  }

 private:
  RunSpec Spec(int tokens, bool capture, int seed) const {
    RunSpec spec;
    std::mt19937 random(seed);
    for (int i = 0; i < tokens; ++i) {
      spec.tokens.push_back(static_cast<int>(random() % shape_.vocab));
    }
    spec.arms.push_back({"arm", model_, {}});
    spec.capture.off = !capture;
    for (int l = 0; l < shape_.layers; ++l) spec.capture.layers.push_back(l);
    spec.logits.emplace();
    spec.logits->top_n = 1;
    spec.logits->positions = {tokens - 1};
    return spec;
  }

  double PrefillOnce(int tokens, bool capture) {
    const auto run = Checked(qk::Run::Create(Spec(tokens, capture, 1), &sink_));
    Check(run->Reserve());
    return RunPass({run.get()});
  }

  // Returns the device's seconds from before the pass until after it.
  double RunPass(const std::vector<qk::Run*>& runs) {
    std::vector<Sequence*> all;
    for (qk::Run* run : runs) run->AppendReady(model_.get(), &all);
    if (all.size() != runs.size()) {
      Check(absl::InternalError("a run has ended early"));
    }
    const std::unique_ptr<Moment> begin = backend_.Mark();
    Pass pass(*model_, all);
    while (!pass.done()) pass.RunStep();
    const std::unique_ptr<Moment> end = backend_.Mark();
    const absl::Status status = pass.Finish();
    Check(status);
    for (size_t i = 0; i < runs.size(); ++i) {
      runs[i]->AfterPass(absl::MakeConstSpan(&all[i], 1), status, 0);
    }
    return end->SecondsSince(*begin);
  }

  const Settings& settings_;
  const testing::LlamaShape shape_;
  Backend& backend_;
  NullSink sink_;
  std::shared_ptr<const Model> model_;
  bool library_ = false;
};

}  // namespace

void TimePasses(const Settings& settings, Backend& backend) {
  std::printf("\n### Passes, bf16\n\n");
  const int context = settings.small ? 20 : 2048;
  const std::vector<int> prefills =
      settings.small ? std::vector<int>{20} : std::vector<int>{512, 2048};
  const std::vector<int> decodes =
      settings.small ? std::vector<int>{1, 3} : std::vector<int>{1, 8, 64};
  for (const testing::LlamaShape& shape : settings.shapes()) {
    PassBench bench(settings, shape, backend);
    bench.PrintLoad();
    std::printf(
        "\n| model | what | ms | target on an H200 | ms capturing | capture "
        "costs, or rate |\n|---|---|---|---|---|---|\n");
    for (int tokens : prefills) bench.Prefill(tokens);
    for (int sequences : decodes) bench.Decode(sequences, context);
    std::printf("\n");
  }
}

}  // namespace qk::bench
