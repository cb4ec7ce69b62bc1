// The massive counts of the last prompts of the models used last, for the heat
// maps of the status page.
#ifndef QKSCOPE_SERVER_OBSERVE_RECENT_ACTIVATIONS_H_
#define QKSCOPE_SERVER_OBSERVE_RECENT_ACTIVATIONS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "engine/base/mutex.h"
#include "engine/types/spec.h"
#include "server/observe/activation_model.h"

namespace qk {

// One arm of one prompt.
struct RecentPrompt {
  static constexpr int kNotCaptured = -1;
  static constexpr int kNotFinite = -2;  // the norms hold NaN or infinities

  // The number of massive entries in a layer, or one of the values above.
  int count(Qkv tensor, int layer) const {
    const std::vector<int>& layers = counts[static_cast<size_t>(tensor)];
    return layer < static_cast<int>(layers.size())
               ? layers[static_cast<size_t>(layer)]
               : kNotCaptured;
  }
  int num_layers() const;

  ArmKind arm = ArmKind::kClean;
  absl::Time at;  // of its first matrix, as MonotonicNow
  // For Q, K and V: by layer.
  std::array<std::vector<int>, 3> counts;
};

struct RecentModel {
  std::string model;
  std::vector<RecentPrompt> prompts;  // oldest first
};

// Thread-safe. Takes at most some 400 KiB with models of 128 layers.
class RecentActivations {
 public:
  static constexpr int kModels = 8;
  static constexpr int kPrompts = 24;  // of each model

  // A number for a run, as Add needs it.
  uint64_t NewRun() { return ++runs_; }

  struct ArmOfRun {
    uint64_t run = 0;  // of NewRun
    int index = 0;     // of the arm
    ArmKind kind = ArmKind::kClean;
  };
  // Adds what is known of a layer. Everything of an arm of a run makes up one
  // prompt. Ignores Q and K before RoPE.
  void Add(const ArmOfRun& arm, const std::string& model,
           ActivationMatrix matrix, int layer, const ActivationGauges& gauges)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Another model has the name from now on.
  void Forget(const std::string& model) ABSL_LOCKS_EXCLUDED(mutex_);

  // Models for which `may_see` is true, the one used last first.
  std::vector<RecentModel> Read(
      const std::function<bool(const std::string& model)>& may_see) const
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Entry {
    uint64_t run = 0;
    int arm = 0;
    RecentPrompt prompt;
  };
  struct Ring {
    std::string model;
    std::deque<Entry> prompts;
  };

  Ring& RingOf(const std::string& model) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  std::atomic<uint64_t> runs_ = 0;
  mutable Mutex mutex_;
  std::list<Ring> models_ ABSL_GUARDED_BY(mutex_);  // the last used first
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_OBSERVE_RECENT_ACTIVATIONS_H_
