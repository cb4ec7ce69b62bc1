// Whether a file holds a configuration's weights, all of them and no others.
#include <functional>
#include <set>
#include <string>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "engine/check.h"
#include "engine/formats/dequantize.h"
#include "engine/formats/packed_int4.h"
#include "engine/weight_reader.h"
#include "engine/weights.h"

namespace qk {
namespace {

using Names = std::set<std::string, std::less<>>;

std::vector<const WeightRef*> AllRefs(const Architecture& a) {
  std::vector<const WeightRef*> refs;
  const auto add = [&](std::initializer_list<const WeightRef*> more) {
    refs.insert(refs.end(), more);
  };
  const auto add_norm = [&](const NormRef& norm) {
    add({&norm.weight, &norm.bias});
  };
  add({&a.embedding, &a.positions, &a.project_in, &a.project_out, &a.lm_head,
       &a.rope_factors, &a.rope_factors_long, &a.rope_factors_short});
  add_norm(a.final_norm);
  for (const LayerWeightRefs& l : a.layers) {
    for (const NormRef* norm : {&l.attention_norm, &l.mlp_norm,
                                &l.post_attention_norm, &l.post_mlp_norm}) {
      add_norm(*norm);
    }
    add({&l.q_proj, &l.k_proj, &l.v_proj, &l.o_proj, &l.q_bias, &l.k_bias,
         &l.v_bias, &l.o_bias, &l.q_norm, &l.k_norm, &l.router});
    const MambaWeightRefs& s = l.mamba;
    add({&s.in_proj, &s.in_bias, &s.conv, &s.conv_bias, &s.x_proj, &s.dt_proj,
         &s.dt_bias, &s.a_log, &s.d, &s.out_proj, &s.out_bias, &s.dt_norm,
         &s.b_norm, &s.c_norm});
    for (const MlpWeightRefs& m : l.mlps) {
      add({&m.gate_proj, &m.up_proj, &m.down_proj, &m.gate_bias, &m.up_bias,
           &m.down_bias});
    }
  }
  return refs;
}

// Whether no number depends on it.
bool IsDerived(const TensorInfo& tensor, const Architecture& a) {
  // Integers outside of packed layers are position ids and masks.
  if (tensor.dtype == DType::kI32) return !IsPackedInt4Name(tensor.name);
  return absl::EndsWith(tensor.name, ".rotary_emb.inv_freq") ||
         (a.config.tied_head && tensor.name == "lm_head.weight") ||
         absl::c_any_of(a.ignored,
                        [&](const std::string& ending) {
                          return absl::EndsWith(tensor.name, ending);
                        }) ||
         absl::c_any_of(a.ignored_parts, [&](const std::string& beginning) {
           return absl::StartsWith(tensor.name, beginning);
         });
}

// GPTQ's writers give every layer that they pack a bias, of zeros where the
// model has none.
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

}  // namespace

absl::Status CheckWeights(const Architecture& architecture,
                          const TensorSource& source) {
  Names known;
  for (const WeightRef* ref : AllRefs(architecture)) {
    if (ref->name.empty()) continue;
    QK_ASSIGN_OR_RETURN(const WeightReader reader,
                        WeightReader::Open(*ref, architecture.packing, source));
    for (std::string& name : reader.tensor_names()) {
      known.insert(std::move(name));
    }
  }
  // A tensor that nobody reads may be a layer or a bias that the configuration
  // does not know of: the numbers would be wrong without it.
  for (const TensorInfo& tensor : source.tensors()) {
    if (known.count(tensor.name) == 0 && !IsDerived(tensor, architecture) &&
        !IsSpareBias(tensor, known)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "extra '", tensor.name, "': not a tensor of this configuration"));
    }
  }
  return absl::OkStatus();
}

int64_t CountElements(const Architecture& architecture) {
  int64_t total = 0;
  for (const WeightRef* ref : AllRefs(architecture)) {
    int64_t elements = ref->name.empty() ? 0 : 1;
    for (int64_t dim : ref->shape) elements *= dim;
    total += elements;
  }
  return total;
}

}  // namespace qk
