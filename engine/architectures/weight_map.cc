#include "engine/architectures/weight_map.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"

namespace qk {
namespace {

// Builds the refs of one layer, or of what lies outside the layers.
class Mapper {
 public:
  Mapper(const ModelConfig& config, const WeightNames& names,
         std::string prefix)
      : config_(config), names_(names), prefix_(std::move(prefix)) {}

  // (out, in)
  WeightRef Projection(absl::string_view name, int64_t out, int64_t in) const {
    WeightRef ref = Plain(name, ".weight", {out, in});
    ref.transposed = names_.transposed;
    return ref;
  }

  WeightRef Bias(bool wanted, absl::string_view name, int64_t size) const {
    return wanted ? Plain(name, ".bias", {size}) : WeightRef{};
  }

  WeightRef Table(absl::string_view name, int64_t rows, int64_t width) const {
    return Plain(name, ".weight", {rows, width});
  }

  WeightRef RmsWeight(absl::string_view name, int64_t size) const {
    WeightRef ref = Plain(name, ".weight", {size});
    ref.plus = names_.plus;
    return ref;
  }

  NormRef Norm(const char* name) const {
    return {RmsWeight(name, config_.hidden_size),
            Bias(config_.norm == NormKind::kLayer, name, config_.hidden_size)};
  }

  WeightRef Plain(absl::string_view name, absl::string_view ending,
                  std::vector<int64_t> shape) const {
    WeightRef ref;
    ref.name = absl::StrCat(prefix_, name, ending);
    ref.shape = std::move(shape);
    return ref;
  }

  void Attention(const AttentionConfig& c, LayerWeightRefs* refs) const;
  void Mamba(const MambaConfig& c, MambaWeightRefs* refs) const;
  MlpWeightRefs Mlp(const MlpConfig& c, const std::string& expert) const;

 private:
  void Qkv(const AttentionConfig& c, LayerWeightRefs* refs) const;
  void FusedQkv(const AttentionConfig& c, LayerWeightRefs* refs) const;
  void Interleave(const AttentionConfig& c, LayerWeightRefs* refs) const;

  const ModelConfig& config_;
  const WeightNames& names_;
  std::string prefix_;
};

void Mapper::Qkv(const AttentionConfig& c, LayerWeightRefs* refs) const {
  const int64_t hidden = config_.hidden_size;
  refs->q_proj = Projection(names_.q, c.q_size(), hidden);
  refs->k_proj = Projection(names_.k, c.kv_size(), hidden);
  refs->v_proj = Projection(names_.v, c.kv_size(), hidden);
  refs->q_bias = Bias(c.qkv_bias, names_.q, c.q_size());
  refs->k_bias = Bias(c.qkv_bias, names_.k, c.kv_size());
  refs->v_bias = Bias(c.qkv_bias, names_.v, c.kv_size());
}

void Mapper::FusedQkv(const AttentionConfig& c, LayerWeightRefs* refs) const {
  WeightRef* const parts[] = {&refs->q_proj, &refs->k_proj, &refs->v_proj};
  WeightRef* const biases[] = {&refs->q_bias, &refs->k_bias, &refs->v_bias};
  const int64_t sizes[] = {c.q_size(), c.kv_size(), c.kv_size()};
  int64_t first = 0;
  for (int i = 0; i < 3; ++i) {
    *parts[i] = Projection(names_.qkv, sizes[i], config_.hidden_size);
    *biases[i] = Bias(c.qkv_bias, names_.qkv, sizes[i]);
    for (WeightRef* ref : {parts[i], biases[i]}) {
      if (ref->name.empty()) continue;
      ref->fused_rows = c.q_size() + int64_t{2} * c.kv_size();
      ref->first_row = first;
      if (names_.qkv_per_head) {
        ref->block_rows = c.head_dim;
        ref->block_stride = int64_t{3} * c.head_dim;
      }
    }
    first += names_.qkv_per_head ? c.head_dim : sizes[i];
  }
}

void Mapper::Interleave(const AttentionConfig& c, LayerWeightRefs* refs) const {
  for (WeightRef* ref : {&refs->q_proj, &refs->q_bias}) {
    if (!ref->name.empty()) ref->interleaved_heads = c.num_heads;
  }
  for (WeightRef* ref : {&refs->k_proj, &refs->k_bias}) {
    if (!ref->name.empty()) ref->interleaved_heads = c.num_kv_heads;
  }
}

void Mapper::Attention(const AttentionConfig& c, LayerWeightRefs* refs) const {
  names_.qkv != nullptr ? FusedQkv(c, refs) : Qkv(c, refs);
  if (names_.interleaved) Interleave(c, refs);
  refs->o_proj = Projection(names_.o, config_.hidden_size, c.q_size());
  refs->o_bias = Bias(c.o_bias, names_.o, config_.hidden_size);
  if (c.qk_norm) {
    refs->q_norm = RmsWeight(names_.q_norm, c.head_dim);
    refs->k_norm = RmsWeight(names_.k_norm, c.head_dim);
  }
}

void Mapper::Mamba(const MambaConfig& c, MambaWeightRefs* refs) const {
  const int64_t inner = c.inner_size, state = c.state_size, rank = c.dt_rank;
  const int64_t hidden = config_.hidden_size;
  const auto name = [&](const char* rest) {
    return absl::StrCat(names_.mamba, rest);
  };
  refs->in_proj = Projection(name("in_proj"), 2 * inner, hidden);
  refs->in_bias = Bias(c.proj_bias, name("in_proj"), 2 * inner);
  refs->conv = Plain(name("conv1d"), ".weight", {inner, 1, c.conv_kernel});
  refs->conv_bias = Bias(c.conv_bias, name("conv1d"), inner);
  refs->x_proj = Projection(name("x_proj"), rank + 2 * state, inner);
  refs->dt_proj = Projection(name("dt_proj"), inner, rank);
  refs->dt_bias = Bias(true, name("dt_proj"), inner);
  refs->a_log = Plain(name("A_log"), "", {inner, state});
  refs->d = Plain(name("D"), "", {inner});
  refs->out_proj = Projection(name("out_proj"), hidden, inner);
  refs->out_bias = Bias(c.proj_bias, name("out_proj"), hidden);
  refs->dt_norm = RmsWeight(name("dt_layernorm"), rank);
  refs->b_norm = RmsWeight(name("b_layernorm"), state);
  refs->c_norm = RmsWeight(name("c_layernorm"), state);
}

MlpWeightRefs Mapper::Mlp(const MlpConfig& c, const std::string& expert) const {
  const int64_t hidden = config_.hidden_size, width = c.intermediate_size;
  const auto name = [&](const char* rest) {
    return absl::StrCat(expert, rest);
  };
  MlpWeightRefs refs;
  if (names_.gate_up != nullptr) {
    refs.gate_proj = Projection(name(names_.gate_up), width, hidden);
    refs.up_proj = Projection(name(names_.gate_up), width, hidden);
    refs.gate_proj.fused_rows = refs.up_proj.fused_rows = 2 * width;
    refs.up_proj.first_row = width;
    QK_CHECK(!c.bias);
  } else {
    if (c.gated) {
      refs.gate_proj = Projection(name(names_.gate), width, hidden);
      refs.gate_bias = Bias(c.bias, name(names_.gate), width);
    }
    refs.up_proj = Projection(name(names_.up), width, hidden);
    refs.up_bias = Bias(c.bias, name(names_.up), width);
  }
  refs.down_proj = Projection(name(names_.down), hidden, width);
  refs.down_bias = Bias(c.bias, name(names_.down), hidden);
  return refs;
}

}  // namespace

LayerWeightRefs MapLayer(const ModelConfig& config, const WeightNames& names,
                         int layer) {
  const LayerConfig& c = config.layers[layer];
  const Mapper mapper(config, names, absl::StrCat(names.layer, layer, "."));
  LayerWeightRefs refs;
  refs.attention_norm = mapper.Norm(names.attention_norm);
  refs.mlp_norm = mapper.Norm(names.mlp_norm);
  if (config.norm_placement == NormPlacement::kSandwich) {
    refs.post_attention_norm = mapper.Norm(names.post_attention_norm);
    refs.post_mlp_norm = mapper.Norm(names.post_mlp_norm);
  }
  if (c.attention.num_heads > 0) mapper.Attention(c.attention, &refs);
  if (c.mamba.inner_size > 0) mapper.Mamba(c.mamba, &refs.mamba);
  if (c.mlp.num_experts == 1) {
    refs.mlps.push_back(mapper.Mlp(c.mlp, names.mlp));
    return refs;
  }
  refs.router =
      mapper.Table(names.router, c.mlp.num_experts, config.hidden_size);
  for (int expert = 0; expert < c.mlp.num_experts; ++expert) {
    refs.mlps.push_back(
        mapper.Mlp(c.mlp, absl::StrCat(names.experts, expert, ".")));
  }
  return refs;
}

WeightNames LlamaNames() {
  WeightNames names;
  names.root = "model.";
  names.embedding = "model.embed_tokens";
  names.final_norm = "model.norm";
  names.lm_head = "lm_head";
  names.layer = "model.layers.";
  names.attention_norm = "input_layernorm";
  names.mlp_norm = "post_attention_layernorm";
  names.q = "self_attn.q_proj";
  names.k = "self_attn.k_proj";
  names.v = "self_attn.v_proj";
  names.o = "self_attn.o_proj";
  names.gate = "mlp.gate_proj";
  names.up = "mlp.up_proj";
  names.down = "mlp.down_proj";
  return names;
}

WeightNames Gpt2Names() {
  WeightNames names;
  names.root = "transformer.";
  names.embedding = "transformer.wte";
  names.positions = "transformer.wpe";
  names.final_norm = "transformer.ln_f";
  names.lm_head = "lm_head";
  names.layer = "transformer.h.";
  names.attention_norm = "ln_1";
  names.mlp_norm = "ln_2";
  names.up = "mlp.c_fc";
  names.down = "mlp.c_proj";
  return names;
}

Architecture MapWeights(ModelConfig config, const WeightNames& names) {
  Architecture a;
  const Mapper mapper(config, names, "");
  const int64_t hidden = config.hidden_size, width = config.embedding_size;
  a.embedding = mapper.Table(names.embedding, config.vocab_size, width);
  if (config.position_rows > 0) {
    a.positions = mapper.Table(names.positions, config.position_rows, hidden);
  }
  if (width != hidden) {
    a.project_in = mapper.Projection(names.project_in, hidden, width);
    a.project_out = mapper.Projection(names.project_out, width, hidden);
  }
  if (config.final_norm) a.final_norm = mapper.Norm(names.final_norm);
  a.lm_head = config.tied_lm_head
                  ? a.embedding
                  : mapper.Table(names.lm_head, config.vocab_size, width);
  for (int i = 0; i < config.num_layers(); ++i) {
    a.layers.push_back(MapLayer(config, names, i));
  }
  if (names.root != nullptr) a.other_prefixes = {{names.root, ""}};
  if (names.lm_head != nullptr) {
    a.own_lm_head = absl::StrCat(names.lm_head, ".weight");
  }
  a.config = std::move(config);
  return a;
}

}  // namespace qk
