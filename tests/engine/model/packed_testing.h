// Layers of random 4-bit weights, both packed as AWQ and GPTQ and plain, and
// safetensors files of them. The code follows the published layouts, not the
// reader.
#ifndef QKSCOPE_TESTS_ENGINE_MODEL_PACKED_TESTING_H_
#define QKSCOPE_TESTS_ENGINE_MODEL_PACKED_TESTING_H_

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/half.h"
#include "engine/formats/packed_int4.h"
#include "engine/formats/safetensors.h"
#include "tests/engine/formats/listed_source.h"
#include "tests/engine/formats/testing.h"

namespace qk::testing {

struct FileTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::string data;
};

using FileTensors = std::map<std::string, FileTensor>;

template <typename T>
FileTensor MakeTensor(const std::string& dtype, std::vector<int64_t> shape,
                      const std::vector<T>& values) {
  return {dtype, std::move(shape),
          std::string(reinterpret_cast<const char*>(values.data()),
                      values.size() * sizeof(T))};
}

inline std::string Serialize(const FileTensors& tensors) {
  std::vector<std::string> entries;
  std::string data;
  for (const auto& [name, t] : tensors) {
    entries.push_back(
        absl::StrCat("\"", name, R"(":{"dtype":")", t.dtype, R"(","shape":[)",
                     absl::StrJoin(t.shape, ","), R"(],"data_offsets":[)",
                     data.size(), ",", data.size() + t.data.size(), "]}"));
    data += t.data;
  }
  const std::string header =
      absl::StrCat("{", absl::StrJoin(entries, ","), "}");
  return Raw<uint64_t>(header.size()) + header + data;
}

// A safetensors file in memory.
class MemorySource : public ListedSource {
 public:
  explicit MemorySource(const FileTensors& tensors)
      : file_(Serialize(tensors)) {
    auto contents = ParseSafetensors("m", AsBytes(file_));
    EXPECT_TRUE(contents.ok()) << contents.status();
    if (contents.ok()) tensors_ = std::move(contents->tensors);
  }

  int64_t file_bytes() const override { return file_.size(); }

 private:
  const std::string file_;
};

class RandomLayer {
 public:
  RandomLayer(int64_t out, int64_t in, const Int4Format& format, uint32_t seed)
      : out_(out), in_(in), format_(format) {
    std::mt19937 random(seed);
    const int64_t size = format.group_size == -1 ? in : format.group_size;
    groups_ = in / size;
    for (int64_t i = 0; i < in; ++i) group_.push_back(i / size);
    if (format.desc_act) std::shuffle(group_.begin(), group_.end(), random);
    for (int64_t i = 0; i < in * out; ++i) q_.push_back(random() % 16);
    for (int64_t i = 0; i < groups_ * out; ++i) {
      // A first-version file cannot hold a zero of 0, but it can hold 16.
      zeros_.push_back(random() % 16 + (format.zeros_minus_one ? 1 : 0));
      scales_.push_back(
          RoundToF16(1e-3f * static_cast<float>(1 + random() % 100)));
    }
  }

  // (out, in)
  std::vector<float> Weight() const {
    std::vector<float> weight;
    for (int64_t o = 0; o < out_; ++o) {
      for (int64_t i = 0; i < in_; ++i) {
        const int64_t at = group_[i] * out_ + o;
        const int q = static_cast<int>(q_[i * out_ + o]);
        weight.push_back(static_cast<float>(q - static_cast<int>(zeros_[at])) *
                         WidenF16(scales_[at]));
      }
    }
    return weight;
  }

  // Adds the packed tensors of `module`.
  void Put(const std::string& module, FileTensors* file) const {
    const bool awq = format_.method == Int4Format::Method::kAwq;
    std::vector<uint32_t> stored_zeros = zeros_;
    for (uint32_t& zero : stored_zeros) zero -= format_.zeros_minus_one;
    (*file)[module + ".qzeros"] = MakeTensor(
        "I32", {groups_, out_ / 8}, PackOutputs(stored_zeros, groups_, awq));
    (*file)[module + ".scales"] = MakeTensor("F16", {groups_, out_}, scales_);
    if (awq) {
      (*file)[module + ".qweight"] =
          MakeTensor("I32", {in_, out_ / 8}, PackOutputs(q_, in_, awq));
      return;
    }
    std::vector<uint32_t> words(in_ / 8 * out_);
    for (int64_t i = 0; i < in_; ++i) {
      for (int64_t o = 0; o < out_; ++o) {
        words[i / 8 * out_ + o] |= q_[i * out_ + o] << (4 * (i % 8));
      }
    }
    (*file)[module + ".qweight"] = MakeTensor("I32", {in_ / 8, out_}, words);
    (*file)[module + ".g_idx"] = MakeTensor("I32", {in_}, group_);
  }

 private:
  // This is exact for the scales above, which are normal numbers.
  static float WidenF16(uint16_t half) {
    const int exponent = (half >> 10 & 31) - 15;
    return std::ldexp(1.0f + static_cast<float>(half & 1023) / 1024, exponent);
  }

  // (rows, out) to (rows, out / 8).
  std::vector<uint32_t> PackOutputs(const std::vector<uint32_t>& values,
                                    int64_t rows, bool awq) const {
    constexpr int kAwqOrder[] = {0, 2, 4, 6, 1, 3, 5, 7};
    std::vector<uint32_t> words;
    for (int64_t word = 0; word < rows * out_ / 8; ++word) {
      words.push_back(0);
      for (int n = 0; n < 8; ++n) {
        const int from = awq ? kAwqOrder[n] : n;
        words.back() |= values[word * 8 + from] << (4 * n);
      }
    }
    return words;
  }

  int64_t out_, in_, groups_;
  Int4Format format_;
  std::vector<uint32_t> q_;       // (in, out)
  std::vector<uint32_t> zeros_;   // (groups, out)
  std::vector<uint16_t> scales_;  // (groups, out), F16
  std::vector<int32_t> group_;    // (in)
};

// A small layer `m`.
inline constexpr int64_t kOut = 16, kIn = 64;
inline const Int4Format kAwq = {Int4Format::Method::kAwq, 32, false, false};
inline const Int4Format kGptq = {Int4Format::Method::kGptq, 32, false, true};
inline const Int4Format kActOrder = {Int4Format::Method::kGptq, 32, true, true};

inline FileTensors Good(const Int4Format& format) {
  FileTensors file;
  RandomLayer(kOut, kIn, format, 1).Put("m", &file);
  return file;
}

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_MODEL_PACKED_TESTING_H_
