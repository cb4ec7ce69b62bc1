#include "engine/cuda/rope_lists.h"

#include <vector>

namespace qk::cuda {

RopeLists::RopeLists(absl::Span<const RopeRows> all) {
  std::vector<int32_t> positions, sets, places;
  std::vector<float> frequencies;
  absl::Span<const double> last;
  int set = -1;
  for (const RopeRows& r : all) {
    // Sequences mostly rotate by the same frequencies.
    if (set < 0 || r.frequencies != last) {
      last = r.frequencies;
      frequencies.insert(frequencies.end(), last.begin(), last.end());
      ++set;
    }
    for (size_t i = 0; i < r.positions.size(); ++i) {
      positions.insert(positions.end(), r.positions[i].begin(),
                       r.positions[i].end());
      sets.push_back(set);
      places.push_back(r.row_begin + static_cast<int32_t>(i));
    }
  }
  rows_ = static_cast<int>(places.size());
  positions_ = arguments_.Add(positions);
  sets_ = arguments_.Add(sets);
  places_ = arguments_.Add(places);
  frequencies_ = arguments_.Add(frequencies);
}

RopeTable RopeLists::Table(const RopeConfig& rope, const uint8_t* data) const {
  RopeTable t;
  t.positions = reinterpret_cast<const int32_t*>(data + positions_);
  t.frequencies_of_row = reinterpret_cast<const int32_t*>(data + sets_);
  t.places = reinterpret_cast<const int32_t*>(data + places_);
  t.frequencies = reinterpret_cast<const float*>(data + frequencies_);
  t.half = rope.rotary_dims / 2;
  t.factor = static_cast<float>(rope.attention_factor);
  for (int pairs : rope.sections) {
    const int i = t.num_sections++;
    t.section_end[i] = pairs + (i == 0 ? 0 : t.section_end[i - 1]);
  }
  return t;
}

}  // namespace qk::cuda
