// Each op by itself, at the sizes of a model.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/bench/cuda_bench.h"

namespace qk::bench {
namespace {

using testing::LlamaShape;

constexpr ComputeType kType = ComputeType::kBF16;

// A weight, several times, so that it does not stay in the device's cache.
class Weights {
 public:
  Weights(Backend& backend, int out, int in, bool small) {
    const int64_t bytes = int64_t{2} * out * in;
    const int64_t copies =
        small ? 2 : std::clamp<int64_t>((int64_t{192} << 20) / bytes, 2, 24);
    const auto read = [in](int64_t begin, int64_t end, float* rows) {
      auto state = static_cast<uint32_t>(begin * 97 + 1);
      for (int64_t i = 0; i < (end - begin) * in; ++i) {
        state = state * 1664525 + 1013904223;
        rows[i] = static_cast<float>(static_cast<int32_t>(state)) /
                  (32.0f * 2147483648.0f);
      }
    };
    for (int64_t i = 0; i < copies; ++i) {
      all_.push_back(
          Checked(backend.PackMatrix(out, in, kType, {read}, nullptr)));
    }
  }
  const Matrix& operator[](size_t i) const { return *all_[i % all_.size()]; }

 private:
  std::vector<std::unique_ptr<Matrix>> all_;
};

// Sequences with cached positions, whose last `rows` are a pass's.
class Sequences {
 public:
  Sequences(Backend& backend, const AttentionConfig& config, int count,
            int positions, int rows)
      : part_{0, int64_t{2} * kPageSize * config.kv_size(),
              config.num_kv_heads} {
    const int64_t page_bytes = 2 * part_.v_offset;
    const int pages = (positions + kPageSize - 1) / kPageSize;
    memory_ = Checked(backend.Allocate(page_bytes * pages * count));
    backend.Zero(memory_.as<void>(), memory_.bytes());
    std::vector<std::vector<void*>> lists(count);
    std::vector<SequenceRows> of(count);
    for (int s = 0; s < count; ++s) {
      for (int p = 0; p < pages; ++p) {
        lists[s].push_back(memory_.as<uint8_t>() +
                           (int64_t{s} * pages + p) * page_bytes);
      }
      of[s] = {s * rows, rows, positions - rows, lists[s], nullptr};
    }
    table_ = Checked(backend.MakeRowTable(of));
  }
  KvView kv() const { return {table_.get(), part_, {}, kType}; }

 private:
  const KvPart part_;
  DeviceBuffer memory_;
  std::unique_ptr<RowTable> table_;
};

class OpsBench {
 public:
  OpsBench(const Settings& settings, const Ceilings& ceilings,
           const LlamaShape& shape, Backend& backend)
      : settings_(settings),
        ceilings_(ceilings),
        shape_(shape),
        backend_(backend),
        context_(settings.small ? 70 : 2048) {
    attention_.num_heads = shape.heads;
    attention_.num_kv_heads = shape.kv_heads;
    attention_.head_dim = shape.head_dim();
    attention_.scale = 0.1f;
    const int64_t widest = std::max(shape.hidden, shape.intermediate);
    const int64_t rows = settings.small ? 9 : 2048;
    for (DeviceBuffer& buffer : buffers_) {
      buffer = RandomFloats(backend_, rows * widest);
    }
  }

  void MatMuls(const std::vector<int>& row_counts) {
    const int h = shape_.hidden, m = shape_.intermediate;
    struct Kind {
      const char* name;
      std::vector<int> outs;  // of the products with one input
      int in;
      bool add;
    };
    const Kind kinds[] = {
        {"q, k, v", {h, shape_.kv_size(), shape_.kv_size()}, h, false},
        {"o", {h}, h, true},
        {"gate, up", {m, m}, h, false},
        {"down", {h}, m, true}};
    for (const Kind& kind : kinds) {
      std::vector<Weights> weights;
      int64_t outs = 0;
      for (int out : kind.outs) {
        weights.emplace_back(backend_, out, kind.in, settings_.small);
        outs += out;
      }
      for (int rows : row_counts) {
        size_t turn = 0;
        const double seconds = SecondsOf(backend_, settings_.small, [&] {
          std::vector<Product> products;
          for (size_t i = 0; i < weights.size(); ++i) {
            products.push_back({weights[i][turn], x(1 + i), kind.add});
          }
          ++turn;
          backend_.MatMul(x(0), products, rows);
        });
        Print(absl::StrCat("matmul ", kind.name), rows, seconds,
              2.0 * kind.in * outs + rows * (2.0 * kind.in + 4.0 * outs),
              2.0 * rows * kind.in * outs);
      }
    }
  }

  void LmHead() {
    const Weights weights(backend_, shape_.vocab, shape_.hidden,
                          settings_.small);
    const DeviceBuffer results =
        Checked(backend_.Allocate(64 * sizeof(LogitsRow)));
    for (int rows : {1, settings_.small ? 3 : 64}) {
      const DeviceBuffer logits =
          Checked(backend_.Allocate(int64_t{4} * rows * shape_.vocab));
      size_t turn = 0;
      const double product = SecondsOf(backend_, settings_.small, [&] {
        backend_.MatMul(x(0), {{weights[turn++], logits.as<float>()}}, rows);
      });
      const double values = static_cast<double>(rows) * shape_.vocab;
      Print("matmul lm_head", rows, product,
            2.0 * shape_.vocab * shape_.hidden + 4 * values,
            2 * values * shape_.hidden);
      const std::vector<int32_t> targets(rows, 1);
      const double reduced = SecondsOf(backend_, settings_.small, [&] {
        backend_.ReduceLogits(logits.as<float>(), shape_.vocab, targets,
                              results.as<LogitsRow>());
      });
      Print("reduce logits", rows, reduced, 4 * values, 0);
    }
  }

  void RowOps(const std::vector<int>& row_counts) {
    const DeviceBuffer table =
        RandomFloats(backend_, int64_t{2048} * attention_.head_dim);
    const DeviceBuffer squares =
        Checked(backend_.Allocate(int64_t{8} * attention_.q_size()));
    const double h = shape_.hidden, m = shape_.intermediate;
    for (int rows : row_counts) {
      Time("rms norm", rows, 8 * h * rows, [&] {
        backend_.RmsNorm(x(0), x(1), 1e-5f, rows, shape_.hidden, x(2));
      });
      Time("rope of q", rows, 8 * h * rows, [&] {
        backend_.Rope(x(0), rows, shape_.heads, attention_.head_dim,
                      attention_.head_dim, table.as<float>());
      });
      Time("silu times up", rows, 12 * m * rows, [&] {
        backend_.Activate(x(1), x(2), int64_t{rows} * shape_.intermediate,
                          Activation::kSilu);
      });
      const HeadRows q = {x(0), rows, shape_.heads, attention_.head_dim, 0};
      const MomentsJob job = {
          q, {0, rows, nullptr}, {squares.as<double>(), nullptr}, true};
      Time("sums of squares of q", rows, 4 * h * rows,
           [&] { backend_.AddMoments({job}); });
    }
  }

  void Attention(const std::vector<int>& sequences) {
    const double kv = 4.0 * shape_.kv_size();  // bytes of a position
    for (int count : sequences) {
      const Sequences cached(backend_, attention_, count, context_, 1);
      Time("append k, v", count, count * (2 * kv + kv), [&] {
        backend_.AppendKv(x(1), x(2), attention_.head_dim, cached.kv());
      });
      Time(
          absl::StrCat("attention, decode at ", context_), count,
          count * kv * context_, [&] {
            backend_.Attention(x(0), attention_, cached.kv(), {0, count}, x(3));
          });
    }
    const int prompt = settings_.small ? 9 : 2048;
    const Sequences fresh(backend_, attention_, 1, prompt, prompt);
    Time("append k, v", prompt, prompt * 3 * kv, [&] {
      backend_.AppendKv(x(1), x(2), attention_.head_dim, fresh.kv());
    });
    const double pairs = 0.5 * prompt * (prompt + 1.0);
    Time(
        "attention, prefill", prompt, prompt * (kv + 8.0 * shape_.hidden),
        [&] {
          backend_.Attention(x(0), attention_, fresh.kv(), {0, prompt}, x(3));
        },
        4 * pairs * shape_.hidden);
  }

 private:
  float* x(size_t i) const { return buffers_[i].as<float>(); }

  void Time(const std::string& name, int rows, double bytes,
            const std::function<void()>& work, double flops = 0) {
    Print(name, rows, SecondsOf(backend_, settings_.small, work), bytes, flops);
  }

  void Print(const std::string& name, int rows, double seconds, double bytes,
             double flops) const {
    const auto share = [](double rate, double most) {
      return most > 0 ? absl::StrFormat(" (%.0f %%)", 100 * rate / most) : "";
    };
    const double byte_rate = bytes / seconds, flop_rate = flops / seconds;
    std::printf("| %s | %s | %d | %.1f | %.0f%s | %s |\n", shape_.name.c_str(),
                name.c_str(), rows, 1e6 * seconds, byte_rate / 1e9,
                share(byte_rate, ceilings_.bytes_per_second).c_str(),
                flops == 0
                    ? ""
                    : absl::StrFormat("%.1f%s", flop_rate / 1e12,
                                      share(flop_rate, ceilings_.bf16_flops))
                          .c_str());
    std::fflush(stdout);
  }

  const Settings& settings_;
  const Ceilings& ceilings_;
  const LlamaShape shape_;
  Backend& backend_;
  const int context_;
  AttentionConfig attention_;
  DeviceBuffer buffers_[4];
};

}  // namespace

void TimeOps(const Settings& settings, const Ceilings& ceilings,
             Backend& backend) {
  std::printf(
      "\n### Ops, bf16\n\nIn brackets: of the ceilings above, if they were "
      "measured.\n\n| model | op | rows | us | GB/s | TFLOP/s "
      "|\n|---|---|---|---|---|---|\n");
  const std::vector<int> rows = settings.small
                                    ? std::vector<int>{1, 9}
                                    : std::vector<int>{1, 8, 64, 512, 2048};
  const std::vector<int> sequences =
      settings.small ? std::vector<int>{1, 2} : std::vector<int>{1, 8, 64};
  for (const LlamaShape& shape : settings.shapes()) {
    OpsBench bench(settings, ceilings, shape, backend);
    bench.MatMuls(rows);
    bench.LmHead();
    bench.RowOps(settings.small ? rows : std::vector<int>{1, 64, 2048});
    bench.Attention(sequences);
    Check(backend.Synchronize());
  }
}

}  // namespace qk::bench
