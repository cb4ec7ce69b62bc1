// Checks that a file holds all weights of a configuration and no others.
#include <functional>
#include <set>
#include <string>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "engine/base/check.h"
#include "engine/formats/dequantize.h"
#include "engine/formats/packed_int4.h"
#include "engine/model/weight_reader.h"
#include "engine/model/weights.h"

namespace qk {
namespace {

using Names = std::set<std::string, std::less<>>;

// Endings of tensors that older releases stored: what the code computes itself.
constexpr absl::string_view kDerived[] = {
    "rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached",
    ".masked_bias"};

// Returns whether no number depends on the tensor.
bool IsDerived(const TensorInfo& tensor, const Architecture& a) {
  // Integers outside packed layers are position ids and masks.
  if (tensor.dtype == DType::kI32) return !IsPackedInt4Name(tensor.name);
  return absl::c_any_of(kDerived,
                        [&](absl::string_view ending) {
                          return absl::EndsWith(tensor.name, ending);
                        }) ||
         (a.config.tied_lm_head && tensor.name == "lm_head.weight") ||
         absl::c_any_of(a.ignored, [&](const std::string& ending) {
           return absl::EndsWith(tensor.name, ending);
         });
}

// Returns whether the tensor belongs to a part of the checkpoint that is not
// served.
bool IsOfOtherPart(const TensorInfo& tensor, const Architecture& a) {
  return absl::c_any_of(a.ignored_prefixes, [&](const std::string& beginning) {
    return absl::StartsWith(tensor.name, beginning);
  });
}

// The file of a tied model may also hold lm_head. If that differs from the
// embedding, the model was not meant to be tied.
absl::Status CheckSpareLmHead(const TensorInfo& tensor, const Architecture& a,
                              const TensorSource& source) {
  if (!a.config.tied_lm_head ||
      !absl::EndsWith(tensor.name, "lm_head.weight")) {
    return absl::OkStatus();
  }
  const TensorInfo* embedding = source.Find(a.embedding.name);
  if (embedding != nullptr && tensor.dtype == embedding->dtype &&
      tensor.shape == embedding->shape && tensor.data == embedding->data) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", tensor.name, "': differs from '", a.embedding.name,
                   "', but tie_word_embeddings is true"));
}

// GPTQ's writers give every packed layer a bias, which is zero where the model
// has none.
bool IsSpareBias(const TensorInfo& tensor, const Names& known) {
  absl::string_view module = tensor.name;
  if (!absl::ConsumeSuffix(&module, ".bias") || tensor.shape.size() != 1 ||
      known.count(absl::StrCat(module, ".qweight")) == 0) {
    return false;
  }
  std::vector<float> values(tensor.shape[0]);
  Dequantize(tensor.dtype, tensor.data.data(), tensor.shape[0], values.data());
  return absl::c_all_of(values, [](float value) { return value == 0.0f; });
}

// Whether the name fits the pattern, in which `*` stands for any characters.
// The work is bounded by the product of the lengths.
bool Fits(absl::string_view name, absl::string_view pattern) {
  constexpr size_t kNone = absl::string_view::npos;
  size_t at = 0, in = 0, star = kNone, after_star = 0;
  while (at < name.size()) {
    if (in < pattern.size() && pattern[in] == '*') {
      star = in++;
      after_star = at;
    } else if (in < pattern.size() && pattern[in] == name[at]) {
      ++in, ++at;
    } else if (star != kNone) {
      in = star + 1;
      at = ++after_star;
    } else {
      return false;
    }
  }
  while (in < pattern.size() && pattern[in] == '*') ++in;
  return in == pattern.size();
}

bool IsNamed(absl::string_view name, const std::vector<std::string>& patterns) {
  return absl::c_any_of(patterns, [&](const std::string& pattern) {
    return Fits(name, pattern);
  });
}

// A pattern that names nothing, or a weight of the model, is a mistake.
absl::Status CheckIgnored(const std::vector<std::string>& patterns,
                          const Names& known, const TensorSource& source) {
  for (const std::string& pattern : patterns) {
    bool used = false;
    for (const TensorInfo& tensor : source.tensors()) {
      if (!Fits(tensor.name, pattern)) continue;
      used = true;
      if (known.count(tensor.name) == 0) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("ignore_tensors: '", pattern, "' names '", tensor.name,
                       "', which is a weight of the model"));
    }
    if (!used) {
      return absl::InvalidArgumentError(absl::StrCat(
          "ignore_tensors: '", pattern, "' names no tensor of the files"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckWeights(const Architecture& architecture,
                          const TensorSource& source,
                          const std::vector<std::string>& ignored) {
  Names known;
  for (const WeightRef* ref : AllWeights(architecture)) {
    QK_ASSIGN_OR_RETURN(const WeightReader reader,
                        WeightReader::Open(*ref, architecture.packing, source));
    for (std::string& name : reader.tensor_names()) {
      known.insert(std::move(name));
    }
  }
  if (architecture.packing.method != Packing::Method::kNone &&
      absl::c_none_of(known, [](const std::string& name) {
        return absl::EndsWith(name, ".qweight");
      })) {
    return absl::InvalidArgumentError(
        "config: quantization_config: no weight of the file is packed");
  }
  // A tensor that nobody reads may be a layer or a bias that the configuration
  // does not mention: without it the numbers would be wrong.
  for (const TensorInfo& tensor : source.tensors()) {
    QK_RETURN_IF_ERROR(CheckSpareLmHead(tensor, architecture, source));
    if (known.count(tensor.name) == 0 && !IsDerived(tensor, architecture) &&
        !IsOfOtherPart(tensor, architecture) && !IsSpareBias(tensor, known) &&
        !IsNamed(tensor.name, ignored)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "extra '", tensor.name,
          "': not a tensor of this configuration; to load the model without "
          "it, name it in the model's `ignore_tensors`"));
    }
  }
  return CheckIgnored(ignored, known, source);
}

int64_t CountElements(const Architecture& architecture) {
  int64_t total = 0;
  for (const WeightRef* ref : AllWeights(architecture)) {
    int64_t elements = 1;
    for (int64_t dim : ref->shape) elements *= dim;
    total += elements;
  }
  return total;
}

}  // namespace qk
