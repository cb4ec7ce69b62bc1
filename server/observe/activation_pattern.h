// Where the large entries of Q, K and V are, without how large they are: the
// pattern of a matrix of norms is norm / mean of its head, (heads, head_dim).
#ifndef QKSCOPE_SERVER_OBSERVE_ACTIVATION_PATTERN_H_
#define QKSCOPE_SERVER_OBSERVE_ACTIVATION_PATTERN_H_

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "engine/types/results.h"
#include "engine/types/spec.h"

namespace qk {

// The matrices of norms that are measured, (heads, head_dim). In a layer
// without RoPE, those after it hold the same values as those before.
enum class ActivationMatrix { kQAfter, kKAfter, kV, kQBefore, kKBefore };
inline constexpr int kActivationMatrices = 5;
// nullopt: the point is none of them.
std::optional<ActivationMatrix> ActivationMatrixOf(HookPoint point);

// A layer's matrix.
struct ActivationPlace {
  ActivationMatrix matrix = ActivationMatrix::kQAfter;
  int layer = 0;
  auto operator<=>(const ActivationPlace&) const = default;
};

// The pattern of `norms` (heads, head_dim). nullopt: a norm is not finite, or
// all of a head's are 0.
std::optional<std::vector<float>> PatternOf(absl::Span<const float> norms,
                                            int heads, int head_dim);
std::optional<std::vector<float>> PatternOf(const LayerFrame& frame);

// 1 - cosine of two patterns with as many entries: 0 if they are the same, up
// to 1 if no entry is in both.
double DriftBetween(absl::Span<const float> a, absl::Span<const float> b);

// The mean of patterns over prompts, in the place of each matrix. It takes 4
// bytes for an entry. Not thread-safe.
class MeanPatterns {
 public:
  struct Mean {
    std::vector<int> shape;     // (heads, head_dim)
    std::vector<float> values;  // of that shape
    int64_t prompts = 0;
  };

  // Adds a prompt's pattern. `shape` must always be the same in a place.
  void Add(const ActivationPlace& place, const std::vector<int>& shape,
           absl::Span<const float> pattern);
  // Sets a place.
  void Set(const ActivationPlace& place, Mean mean) {
    means_[place] = std::move(mean);
  }
  // nullptr: there was none.
  const Mean* Find(const ActivationPlace& place) const;

  const std::map<ActivationPlace, Mean>& means() const { return means_; }
  // The most prompts of a place.
  int64_t prompts() const;
  int64_t bytes() const;

 private:
  std::map<ActivationPlace, Mean> means_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_OBSERVE_ACTIVATION_PATTERN_H_
