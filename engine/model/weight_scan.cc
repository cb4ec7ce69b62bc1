#include "engine/model/weight_scan.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace qk {
namespace {

// The exponent bits of a float32: all are set in NaN and in infinities.
constexpr uint32_t kExponent = 0x7f800000u;

// Needs no branch per value, so that it costs little beside packing them.
bool AllFinite(const float* values, int64_t n) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t exponent = std::bit_cast<uint32_t>(values[i]) & kExponent;
    largest = largest < exponent ? exponent : largest;
  }
  return largest != kExponent;
}

}  // namespace

std::string NonFiniteWeights::Text() const {
  return absl::StrCat(count, count == 1 ? " weight is" : " weights are",
                      " not finite (NaN or infinite); the first is '", tensor,
                      "'[", absl::StrJoin(index, ", "),
                      "] = ", std::isnan(value) ? "nan" : "",
                      std::isnan(value) ? ""
                      : value > 0       ? "inf"
                                        : "-inf");
}

bool WeightScan::Begin(const WeightRef& ref) {
  MutexLock lock(&mutex_);
  return seen_.insert({ref.name, ref.first_row}).second;
}

void WeightScan::Look(const WeightReader& reader, int64_t begin, int64_t end,
                      const float* rows) {
  if (AllFinite(rows, (end - begin) * reader.width())) return;
  Count(reader, begin, end, rows);
}

void WeightScan::Count(const WeightReader& reader, int64_t begin, int64_t end,
                       const float* rows) {
  MutexLock lock(&mutex_);
  const int64_t width = reader.width();
  for (int64_t r = begin; r < end; ++r, rows += width) {
    const auto bad = [](float value) { return !std::isfinite(value); };
    const float* const first = std::find_if(rows, rows + width, bad);
    if (first == rows + width) continue;
    found_.count += std::count_if(first, rows + width, bad);
    // Threads take a weight's rows in any order: the lowest index is kept, so
    // that every load says the same.
    const bool any = !found_.tensor.empty();
    if (any && found_.tensor != reader.name()) continue;
    std::vector<int64_t> index = reader.FileIndex(r, first - rows);
    if (any && found_.index <= index) continue;
    found_.tensor = reader.name();
    found_.index = std::move(index);
    found_.value = *first;
  }
}

NonFiniteWeights WeightScan::found() const {
  MutexLock lock(&mutex_);
  return found_;
}

}  // namespace qk
