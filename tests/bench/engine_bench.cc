// Measures the engine's speed on a real model, one JSON line per measurement:
//
//   engine_bench MODEL f32|bf16 THREADS [BACKEND [MEASUREMENT...]]
//
// BACKEND: a name of tests/engine/test_backend.h; cpu by default. MEASUREMENT:
// prefill, prefill512, arms, together, together64, decode; all by default. Or
// ask: each line of standard input is a number of tokens, answered by the
// seconds of one prompt's pass with capture on.
// tests/bench/compare_peers.py runs it beside its peers. Times are the best of
// several runs, and compared measurements alternate; tokens are random, since
// none of this depends on them.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/model.h"
#include "engine/pass.h"
#include "engine/run/run.h"
#include "engine/sequence.h"
#include "tests/engine/test_backend.h"

namespace qk {
namespace {

using Clock = std::chrono::steady_clock;

double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

class NullSink : public IgnoringSink {
 public:
  void OnLayer(LayerFrame) override {
    if (frames_++ == 0) first_frame_ = Clock::now();
  }
  void OnFinished(const absl::Status& status, const std::vector<ArmSummary>&,
                  const RunTimes&) override {
    if (!status.ok()) {
      std::fprintf(stderr, "%s\n", status.ToString().c_str());
      std::exit(1);
    }
  }
  int frames() const { return frames_; }
  Clock::time_point first_frame() const { return first_frame_; }

 private:
  int frames_ = 0;
  Clock::time_point first_frame_;
};

class Bench {
 public:
  explicit Bench(std::shared_ptr<const Model> model)
      : model_(std::move(model)) {}

  RunSpec Spec(int tokens, int arms, bool capture) {
    RunSpec spec;
    std::mt19937 random(1);
    for (int i = 0; i < tokens; ++i) {
      spec.tokens.push_back(random() % model_->config().vocab_size);
    }
    const int layers = model_->config().num_layers();
    for (int a = 0; a < arms; ++a) {
      ArmSpec arm{"arm" + std::to_string(a), model_, {}};
      if (a > 0) {
        DisruptionRule rule;
        if (a == 2) rule.select = DisruptionRule::Select::kBottomK;
        rule.stat_span = rule.positions = {0, tokens};
        for (int l = 0; l < layers; ++l) rule.layers.push_back(l);
        arm.rules.push_back(rule);
      }
      spec.arms.push_back(std::move(arm));
    }
    spec.capture.off = !capture;
    for (int l = 0; l < layers; ++l) spec.capture.layers.push_back(l);
    // A peer computes the last row's logits too.
    spec.logits.emplace();
    spec.logits->top_n = 1;
    spec.logits->positions = {tokens - 1};
    return spec;
  }

  // Returns the seconds of all passes of some runs together.
  double Run(const std::vector<RunSpec>& specs, double* first_frame = nullptr,
             double* layer = nullptr) {
    std::vector<std::unique_ptr<NullSink>> sinks;
    std::vector<std::unique_ptr<qk::Run>> runs;
    for (const RunSpec& spec : specs) {
      sinks.push_back(std::make_unique<NullSink>());
      runs.push_back(qk::Run::Create(spec, sinks.back().get()).value());
      if (!runs.back()->Reserve().ok()) std::exit(1);
    }
    const auto start = Clock::now();
    int layers = 0;
    while (true) {
      std::vector<Sequence*> all;
      std::vector<size_t> ends;
      for (auto& run : runs) {
        if (!run->finished()) run->AppendReady(model_.get(), &all);
        ends.push_back(all.size());
      }
      if (all.empty()) break;
      Pass pass(*model_, all);
      for (; !pass.done(); ++layers) pass.RunStep();
      const absl::Status status = pass.Finish();
      size_t begin = 0;
      for (size_t i = 0; i < runs.size(); ++i) {
        runs[i]->AfterPass(
            absl::MakeConstSpan(all).subspan(begin, ends[i] - begin), status,
            0);
        while (runs[i]->comparing()) runs[i]->CompareTile();
        begin = ends[i];
      }
    }
    const double seconds = Since(start);
    if (first_frame != nullptr) {
      *first_frame =
          std::chrono::duration<double>(sinks[0]->first_frame() - start)
              .count();
      *layer = seconds / layers;
    }
    return seconds;
  }

  double Best(int times, const std::function<double()>& measure) {
    double best = measure();
    for (int i = 1; i < times; ++i) best = std::min(best, measure());
    return best;
  }

  // Returns the best of each; the two alternate, because a shared machine's
  // speed drifts.
  std::pair<double, double> BestInTurns(int times,
                                        const std::function<double()>& a,
                                        const std::function<double()>& b) {
    std::pair<double, double> best{a(), b()};
    for (int i = 1; i < times; ++i) {
      best.first = std::min(best.first, a());
      best.second = std::min(best.second, b());
    }
    return best;
  }

  void Prefill(int tokens) {
    double first = 0, layer = 0;
    const auto [on, off] = BestInTurns(
        tokens > 1000 ? 4 : 12,
        [&] { return Run({Spec(tokens, 1, true)}, &first, &layer); },
        [&] { return Run({Spec(tokens, 1, false)}); });
    std::printf(
        "{\"what\":\"prefill\",\"tokens\":%d,\"capture_on_s\":%.5f,"
        "\"capture_off_s\":%.5f,\"tokens_per_s\":%.1f,"
        "\"first_frame_s\":%.5f,\"layer_s\":%.5f}\n",
        tokens, on, off, tokens / on, first, layer);
    std::fflush(stdout);
  }

  void Ask() {
    for (int tokens = 0; std::cin >> tokens;) {
      std::printf("{\"what\":\"pass\",\"tokens\":%d,\"seconds\":%.5f}\n",
                  tokens, Run({Spec(tokens, 1, true)}));
      std::fflush(stdout);
    }
  }

  void Arms(int tokens) {
    const auto with_compare = [&](int arms) {
      RunSpec spec = Spec(tokens, arms, true);
      spec.baseline = 0;
      return Run({spec});
    };
    const auto [one, three] = BestInTurns(
        tokens > 100 ? 4 : 12, [&] { return with_compare(1); },
        [&] { return with_compare(3); });
    std::printf(
        "{\"what\":\"arms\",\"tokens\":%d,\"one_s\":%.5f,"
        "\"three_s\":%.5f,\"ratio\":%.3f}\n",
        tokens, one, three, three / one);
    std::fflush(stdout);
  }

  void Together(int prompts, int tokens) {
    const RunSpec spec = Spec(tokens, 1, true);
    const std::vector<RunSpec> all(prompts, spec);
    const auto [together, one_by_one] = BestInTurns(
        6, [&] { return Run(all); },
        [&] {
          double sum = 0;
          for (int i = 0; i < prompts; ++i) sum += Run({spec});
          return sum;
        });
    std::printf(
        "{\"what\":\"together\",\"prompts\":%d,\"tokens\":%d,"
        "\"together_s\":%.5f,\"one_by_one_s\":%.5f,\"gain\":%.3f}\n",
        prompts, tokens, together, one_by_one, one_by_one / together);
    std::fflush(stdout);
  }

  void Decode(int sequences, int new_tokens) {
    RunSpec spec = Spec(16, 1, false);
    spec.logits.reset();
    spec.generate.emplace();
    const auto run = [&](int n) {
      spec.generate->max_new_tokens = n;
      const std::vector<RunSpec> all(sequences, spec);
      return Best(3, [&] { return Run(all); });
    };
    const double seconds = run(new_tokens + 1) - run(1);
    std::printf(
        "{\"what\":\"decode\",\"sequences\":%d,\"tokens_per_s\":%.1f,"
        "\"weight_gb_per_s\":%.2f}\n",
        sequences, sequences * new_tokens / seconds,
        static_cast<double>(model_->device_bytes()) * new_tokens / seconds /
            1e9);
    std::fflush(stdout);
  }

 private:
  std::shared_ptr<const Model> model_;
};

// Resident bytes of this process.
double ResidentMiB() {
  std::ifstream statm("/proc/self/statm");
  double pages = 0, resident = 0;
  statm >> pages >> resident;
  return resident * 4096 / 1048576;
}

}  // namespace
}  // namespace qk

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr,
                 "usage: engine_bench MODEL f32|bf16 THREADS "
                 "[BACKEND [MEASUREMENT...]]\n");
    return 2;
  }
  const auto backend = qk::testing::TestBackendNamed(argc > 4 ? argv[4] : "cpu")
                           .make(std::atoi(argv[3]));
  qk::ModelOptions options;
  if (std::string(argv[2]) == "bf16") options.compute = qk::ComputeType::kBF16;
  const double before = qk::ResidentMiB();
  auto model = qk::Model::Load(argv[1], options, backend.get());
  if (!model.ok()) {
    std::fprintf(stderr, "%s\n", model.status().ToString().c_str());
    return 1;
  }
  const std::vector<std::string> chosen(argv + std::min(argc, 5), argv + argc);
  qk::Bench bench(*model);
  if (chosen == std::vector<std::string>{"ask"}) {
    bench.Ask();
    return 0;
  }
  std::printf(
      "{\"what\":\"load\",\"seconds\":%.3f,\"resident_mib\":%.1f,"
      "\"weights_mib\":%.1f}\n",
      (*model)->load_seconds(), qk::ResidentMiB() - before,
      static_cast<double>((*model)->device_bytes()) / 1048576);
  const auto wanted = [&](const char* what) {
    return chosen.empty() ||
           std::find(chosen.begin(), chosen.end(), what) != chosen.end();
  };
  if (wanted("prefill") || wanted("prefill512")) bench.Prefill(512);
  if (wanted("prefill")) bench.Prefill(2048);
  if (wanted("arms")) bench.Arms(512);
  if (wanted("arms")) bench.Arms(25);
  if (wanted("together")) bench.Together(8, 8);
  if (wanted("together64")) bench.Together(64, 8);
  if (wanted("decode")) bench.Decode(1, 32);
  if (wanted("decode")) bench.Decode(8, 32);
  return 0;
}
