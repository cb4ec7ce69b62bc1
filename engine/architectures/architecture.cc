#include "engine/architectures/architecture.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "engine/architectures/families.h"
#include "engine/architectures/hf_config.h"
#include "engine/architectures/hf_packing.h"
#include "engine/base/check.h"
#include "engine/formats/excerpt.h"

namespace qk {
namespace {

// The one table of model names.
struct HfFamily {
  absl::string_view type;
  FromConfig* read;
  // The beginnings of class names in the "auto_map" of releases that are older
  // than transformers' support for the family: they name the code that it took
  // over.
  absl::string_view auto_map_class = {};
};
constexpr HfFamily kHfFamilies[] = {
    {"gemma2", GemmaFromConfig},         {"gemma3", GemmaFromConfig},
    {"gemma3_text", GemmaFromConfig},    {"gpt2", Gpt2FromConfig},
    {"gpt_neo", GptNeoFromConfig},       {"gpt_neox", GptNeoxFromConfig},
    {"jamba", JambaFromConfig, "Jamba"}, {"llama", LlamaFromConfig},
    {"mistral", LlamaFromConfig},        {"opt", OptFromConfig},
    {"phi3", Phi3FromConfig, "Phi3"},    {"qwen2", QwenFromConfig},
    {"qwen2_vl", QwenVlFromConfig},      {"qwen2_vl_text", QwenVlFromConfig},
    {"qwen3", QwenFromConfig},
};

struct GgufFamily {
  absl::string_view type;
  FromGguf* read;
};
constexpr GgufFamily kGgufFamilies[] = {
    {"gemma2", GemmaFromGguf}, {"gemma3", GemmaFromGguf},
    {"gpt2", Gpt2FromGguf},    {"gptneox", GptNeoxFromGguf},
    {"llama", LlamaFromGguf},  {"phi3", Phi3FromGguf},
    {"qwen2", QwenFromGguf},   {"qwen3", QwenFromGguf},
};

template <typename Table>
std::string Names(const Table& families) {
  return absl::StrJoin(families, ", ", [](std::string* out, const auto& f) {
    out->append(f.type.data(), f.type.size());
  });
}

// Accepts "configuration_phi3.Phi3Config" for Phi3. Code of another repository
// ("owner/name--module.Class") or of another class is refused.
absl::Status CheckAutoMap(const JsonValue& config, absl::string_view prefix) {
  const std::optional<JsonValue> map = config.Find("auto_map");
  if (!map.has_value()) return absl::OkStatus();
  const absl::Status refused =
      Unimplemented(config, "auto_map", "code of the model's own is never run");
  if (prefix.empty() || !map->is_object()) return refused;
  return map->ForEachMember([&](absl::string_view key,
                                JsonValue value) -> absl::Status {
    if (absl::StrContains(key, "Tokenizer")) return absl::OkStatus();
    QK_ASSIGN_OR_RETURN(const absl::string_view name, value.AsString());
    const std::vector<absl::string_view> parts = absl::StrSplit(name, '.');
    const bool known = parts.size() == 2 && !absl::StrContains(name, "--") &&
                       absl::StartsWith(parts[1], prefix);
    return known ? absl::OkStatus() : refused;
  });
}

void Append(std::initializer_list<WeightRef*> refs,
            std::vector<WeightRef*>* all) {
  for (WeightRef* ref : refs) {
    if (!ref->name.empty()) all->push_back(ref);
  }
}

void Append(MlpWeightRefs& mlp, std::vector<WeightRef*>* all) {
  Append({&mlp.gate_proj, &mlp.up_proj, &mlp.down_proj, &mlp.gate_bias,
          &mlp.up_bias, &mlp.down_bias},
         all);
}

void Append(LayerWeightRefs& l, std::vector<WeightRef*>* all) {
  for (NormRef* norm : {&l.attention_norm, &l.mlp_norm, &l.post_attention_norm,
                        &l.post_mlp_norm}) {
    Append({&norm->weight, &norm->bias}, all);
  }
  Append({&l.q_proj, &l.k_proj, &l.v_proj, &l.o_proj, &l.q_bias, &l.k_bias,
          &l.v_bias, &l.o_bias, &l.q_norm, &l.k_norm, &l.router},
         all);
  MambaWeightRefs& m = l.mamba;
  Append({&m.in_proj, &m.in_bias, &m.conv, &m.conv_bias, &m.x_proj, &m.dt_proj,
          &m.dt_bias, &m.a_log, &m.d, &m.out_proj, &m.out_bias, &m.dt_norm,
          &m.b_norm, &m.c_norm},
         all);
  for (MlpWeightRefs& mlp : l.mlps) Append(mlp, all);
}

}  // namespace

absl::StatusOr<Architecture> ArchitectureFromConfig(const JsonValue& config) {
  QK_ASSIGN_OR_RETURN(const absl::string_view type,
                      config.GetString("model_type"));
  for (const HfFamily& family : kHfFamilies) {
    if (family.type != type) continue;
    QK_RETURN_IF_ERROR(CheckAutoMap(config, family.auto_map_class));
    QK_ASSIGN_OR_RETURN(const Packing packing, ReadPacking(config));
    QK_ASSIGN_OR_RETURN(Architecture a, family.read(config, type));
    a.config.architecture = std::string(type);
    a.packing = packing;
    return a;
  }
  return Unimplemented(config, "model_type",
                       absl::StrCat(config.Get("model_type")->Describe(),
                                    " is not implemented (implemented: ",
                                    Names(kHfFamilies), ")"));
}

absl::StatusOr<Architecture> ArchitectureFromGguf(const GgufFile& file) {
  QK_ASSIGN_OR_RETURN(const absl::string_view kind,
                      file.GetStringOr("general.type", "model"));
  if (kind != "model") {
    return absl::UnimplementedError(absl::StrCat(
        file.name(), ": general.type: '", Excerpt(kind),
        "' is no model: merge an adapter into its base model; a projector of "
        "pictures is not served"));
  }
  QK_ASSIGN_OR_RETURN(const absl::string_view type,
                      file.GetString("general.architecture"));
  for (const GgufFamily& family : kGgufFamilies) {
    if (family.type != type) continue;
    QK_ASSIGN_OR_RETURN(Architecture a, family.read(file, type));
    a.config.architecture = std::string(type);
    return a;
  }
  return absl::UnimplementedError(absl::StrCat(
      "general.architecture: '", Excerpt(type),
      "' is not implemented (implemented: ", Names(kGgufFamilies), ")"));
}

std::vector<WeightRef*> AllWeights(Architecture* a) {
  std::vector<WeightRef*> all;
  Append({&a->embedding, &a->positions, &a->project_in, &a->project_out,
          &a->final_norm.weight, &a->final_norm.bias, &a->lm_head,
          &a->rope_factors, &a->rope_factors_long, &a->rope_factors_short},
         &all);
  for (LayerWeightRefs& layer : a->layers) Append(layer, &all);
  VisionWeightRefs& v = a->vision;
  for (LayerWeightRefs& layer : v.layers) Append(layer, &all);
  Append({&v.patch_embed, &v.merger_norm.weight, &v.merger_norm.bias}, &all);
  Append(v.merger, &all);
  return all;
}

std::vector<const WeightRef*> AllWeights(const Architecture& a) {
  // Only the refs are needed.
  const std::vector<WeightRef*> all = AllWeights(const_cast<Architecture*>(&a));
  return {all.begin(), all.end()};
}

void ResolvePrefixes(const TensorSource& source, Architecture* architecture) {
  const std::vector<WeightRef*> all = AllWeights(architecture);
  for (const auto& [ours, theirs] : architecture->other_prefixes) {
    std::vector<std::pair<WeightRef*, std::string>> renamed;
    int with_ours = 0, with_theirs = 0;
    for (WeightRef* ref : all) {
      if (!absl::StartsWith(ref->name, ours)) continue;
      renamed.emplace_back(ref,
                           absl::StrCat(theirs, ref->name.substr(ours.size())));
      with_ours += source.Find(ref->name) != nullptr;
      with_theirs += source.Find(renamed.back().second) != nullptr;
    }
    if (with_theirs <= with_ours) continue;
    for (auto& [ref, name] : renamed) ref->name = std::move(name);
  }
  if (architecture->config.tied_lm_head &&
      source.Find(architecture->embedding.name) == nullptr &&
      source.Find(architecture->own_lm_head) != nullptr) {
    architecture->embedding.name = architecture->own_lm_head;
    architecture->lm_head.name = architecture->own_lm_head;
  }
}

}  // namespace qk
