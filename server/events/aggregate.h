// Mean and variance over prompts of every norm and statistic, computed in
// float64 and in the order of the prompts, so that the same stream always gives
// the same bytes.
#ifndef QKSCOPE_SERVER_EVENTS_AGGREGATE_H_
#define QKSCOPE_SERVER_EVENTS_AGGREGATE_H_

#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/types/results.h"
#include "qkscope/v1/analysis.pb.h"
#include "server/common/pb.h"

namespace qk {

// Welford's running mean and sum of squared differences.
struct RunningMoments {
  int64_t count = 0;
  double mean = 0;
  double squares = 0;

  void Add(double value);
  pb::Moments ToProto() const;
};

class Aggregator {
 public:
  // Adds one prompt: all of its frames in order, each with norms over tokens.
  void Add(const std::vector<LayerFrame>& frames);

  // Splits the aggregate into messages of about `max_bytes` at most. `spec` is
  // the expanded request.
  std::vector<pb::Aggregate> ToProto(const pb::AnalyzeRequest& spec,
                                     int64_t max_bytes) const;

 private:
  struct Key {
    int arm, phase;
    bool vision;
    int layer, point, stage;
    auto operator<=>(const Key&) const = default;
  };
  struct Entry {
    std::vector<int> shape;
    int group_size = 1;
    std::vector<double> mean, squares;  // one value per norm
    int64_t count = 0, non_finite_count = 0;
    RunningMoments massive_count, ratio, max, low_frequency_share;
  };

  std::map<Key, Entry> entries_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_EVENTS_AGGREGATE_H_
