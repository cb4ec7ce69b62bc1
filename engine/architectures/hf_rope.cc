#include "engine/architectures/hf_rope.h"

#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "engine/architectures/hf_config.h"
#include "engine/architectures/hf_rope_kinds.h"
#include "engine/architectures/rope_scaling.h"
#include "engine/base/check.h"
#include "engine/formats/excerpt.h"

namespace qk {
namespace {

constexpr absl::string_view kMembers[] = {"attention_factor",
                                          "beta_fast",
                                          "beta_slow",
                                          "factor",
                                          "finetuned",
                                          "high_freq_factor",
                                          "long_factor",
                                          "low_freq_factor",
                                          "mrope_section",
                                          "mscale",
                                          "mscale_all_dim",
                                          "original_max_position_embeddings",
                                          "partial_rotary_factor",
                                          "rope_theta",
                                          "rope_type",
                                          "short_factor",
                                          "truncate",
                                          "type"};

// Reads one place that describes RoPE; `object` may be missing.
class Reader {
 public:
  Reader(const JsonValue& config, const std::optional<JsonValue>& object,
         const RopeFields& fields, int head_dim, int context)
      : config_(config),
        object_(object),
        fields_(fields),
        head_dim_(head_dim),
        context_(context) {}

  absl::StatusOr<RopeConfig> Read();

 private:
  absl::Status CheckMembers() const;
  absl::StatusOr<std::string> Kind() const;
  // Reads a number that may stand in the object, beside it, or in both if they
  // agree.
  absl::StatusOr<double> Number(const char* inside, const char* beside,
                                double missing) const;
  absl::StatusOr<int> RotaryDims() const;
  absl::StatusOr<int> OriginalContext() const;
  absl::Status ReadSections(RopeConfig* rope) const;

  const JsonValue& config_;
  const std::optional<JsonValue>& object_;
  const RopeFields& fields_;
  const int head_dim_;
  const int context_;
};

absl::Status Reader::CheckMembers() const {
  if (!object_.has_value()) return absl::OkStatus();
  if (!object_->is_object()) {
    return object_->Error(
        absl::StrCat("must be an object, got ", object_->Describe()));
  }
  return object_->ForEachMember([&](absl::string_view key, JsonValue value) {
    if (value.is_null() || absl::c_linear_search(kMembers, key)) {
      return absl::OkStatus();
    }
    return Unimplemented(*object_, key,
                         absl::StrCat("a field that is not implemented, got ",
                                      value.Describe()));
  });
}

// Older files say "type".
absl::StatusOr<std::string> Reader::Kind() const {
  if (!object_.has_value()) return std::string("default");
  QK_ASSIGN_OR_RETURN(const absl::string_view type,
                      object_->GetStringOr("type", "default"));
  QK_ASSIGN_OR_RETURN(absl::string_view kind,
                      object_->GetStringOr("rope_type", type));
  const bool has_sections = !fields_.default_sections.empty();
  if (object_->Find("type").has_value() && kind != type &&
      !(has_sections && type == "mrope" && kind == "default")) {
    return object_->Error(absl::StrCat("rope_type: '", Excerpt(kind),
                                       "', but type is '", Excerpt(type), "'"));
  }
  if (has_sections && kind == "mrope") kind = "default";
  if (fields_.yarn_is_longrope && (kind == "su" || kind == "yarn")) {
    kind = "longrope";
  }
  return std::string(kind);
}

absl::StatusOr<double> Reader::Number(const char* inside, const char* beside,
                                      double missing) const {
  const bool has_inside =
      object_.has_value() && object_->Find(inside).has_value();
  const bool has_beside = beside != nullptr && config_.Find(beside).has_value();
  double value = missing;
  if (has_inside) {
    QK_ASSIGN_OR_RETURN(value, ReadPositive(*object_, inside));
  }
  if (!has_beside) return value;
  QK_ASSIGN_OR_RETURN(const double other, ReadPositive(config_, beside));
  if (has_inside && other != value) {
    return config_.Error(absl::StrCat(beside, ": ", other, ", but ",
                                      object_->Path(), ".", inside, " is ",
                                      value));
  }
  return other;
}

absl::StatusOr<int> Reader::RotaryDims() const {
  QK_ASSIGN_OR_RETURN(const double share,
                      Number("partial_rotary_factor", fields_.rotary_share,
                             fields_.default_rotary_share));
  if (fields_.rotary_share == nullptr && share != 1.0) {
    return Unimplemented(*object_, "partial_rotary_factor",
                         absl::StrCat(share,
                                      " is not implemented for this "
                                      "architecture"));
  }
  if (share > 1) {
    return config_.Error(
        absl::StrCat(fields_.rotary_share, ": must be in (0, 1], got ", share));
  }
  const int dims = static_cast<int>(head_dim_ * share);
  if (dims % 2 == 0 && dims > 0) return dims;
  return config_.Error(
      share == 1
          ? absl::StrCat("head_dim: must be even, got ", head_dim_)
          : absl::StrCat(fields_.rotary_share, ": ", share, " of ", head_dim_,
                         " dims is ", dims, ", must be even and > 0"));
}

absl::StatusOr<int> Reader::OriginalContext() const {
  constexpr char kKey[] = "original_max_position_embeddings";
  const bool has_inside =
      object_.has_value() && object_->Find(kKey).has_value();
  int64_t original = fields_.default_original_context > 0
                         ? fields_.default_original_context
                         : context_;
  if (has_inside) {
    QK_ASSIGN_OR_RETURN(original,
                        object_->GetInt64InRange(kKey, 2, kMaxContext));
  }
  QK_ASSIGN_OR_RETURN(
      const int64_t beside,
      config_.GetInt64InRangeOr(kKey, 2, kMaxContext, original));
  if (has_inside && beside != original) {
    return config_.Error(absl::StrCat(kKey, ": ", beside, ", but ",
                                      object_->Path(), ".", kKey, " is ",
                                      original));
  }
  return static_cast<int>(beside);
}

absl::Status Reader::ReadSections(RopeConfig* rope) const {
  rope->sections = fields_.default_sections;
  const std::optional<JsonValue> sections =
      object_.has_value() ? object_->Find("mrope_section") : std::nullopt;
  if (rope->sections.empty()) {
    return sections.has_value()
               ? Unimplemented(*object_, "mrope_section",
                               "not a field of this architecture")
               : absl::OkStatus();
  }
  const int64_t pairs = rope->rotary_dims / 2;
  if (sections.has_value()) {
    rope->sections.clear();
    QK_RETURN_IF_ERROR(
        sections->ForEachElement([&](JsonValue v) -> absl::Status {
          QK_ASSIGN_OR_RETURN(const int64_t section, v.AsInt64());
          if (section < 0 || section > pairs) {
            return v.Error(
                absl::StrCat("must be in [0, ", pairs, "], got ", section));
          }
          rope->sections.push_back(static_cast<int>(section));
          return absl::OkStatus();
        }));
  }
  const int64_t sum =
      std::accumulate(rope->sections.begin(), rope->sections.end(), int64_t{0});
  if (rope->sections.size() == 3 && sum == pairs) return absl::OkStatus();
  return config_.Error(absl::StrCat("mrope_section: must be 3 numbers of sum ",
                                    pairs, ", got ", rope->sections.size(),
                                    " of sum ", sum));
}

absl::StatusOr<RopeConfig> Reader::Read() {
  QK_RETURN_IF_ERROR(CheckMembers());
  QK_ASSIGN_OR_RETURN(const double theta, Number("rope_theta", fields_.theta,
                                                 fields_.default_theta));
  QK_ASSIGN_OR_RETURN(const int dims, RotaryDims());
  RopeConfig rope = PlainRope(theta, dims);
  QK_ASSIGN_OR_RETURN(const std::string kind, Kind());
  QK_ASSIGN_OR_RETURN(const int original, OriginalContext());
  if (kind != "default") {
    QK_RETURN_IF_ERROR(
        ApplyRopeKind(*object_, kind, {context_, original}, &rope));
  }
  QK_RETURN_IF_ERROR(ReadSections(&rope));
  for (const std::vector<double>* frequencies :
       {&rope.frequencies, &rope.long_frequencies}) {
    for (const double frequency : *frequencies) {
      if (frequency > 0 && std::isfinite(frequency)) continue;
      return config_.Error(absl::StrCat(fields_.theta, ": ", theta,
                                        " gives a frequency of ", frequency));
    }
  }
  if (rope.attention_factor > 0 && std::isfinite(rope.attention_factor)) {
    return rope;
  }
  return config_.Error(
      absl::StrCat("attention_factor: must be finite and > 0, "
                   "got ",
                   rope.attention_factor));
}

}  // namespace

absl::StatusOr<RopeConfig> ReadRope(const JsonValue& config,
                                    const RopeFields& fields, int head_dim,
                                    int context) {
  const auto read = [&](const std::optional<JsonValue>& object,
                        const RopeFields& f) {
    return Reader(config, object, f, head_dim, context).Read();
  };
  std::optional<JsonValue> parameters = config.Find("rope_parameters");
  if (parameters.has_value() && fields.layer_type != nullptr) {
    if (!parameters->is_object()) return read(parameters, fields);
    QK_ASSIGN_OR_RETURN(parameters, parameters->GetObject(fields.layer_type));
  }
  const std::optional<JsonValue> scaling =
      fields.reads_scaling ? config.Find("rope_scaling") : std::nullopt;
  if (!parameters.has_value()) return read(scaling, fields);
  QK_ASSIGN_OR_RETURN(RopeConfig rope, read(parameters, fields));
  if (scaling.has_value()) {
    RopeFields same_theta = fields;
    same_theta.default_theta = rope.theta;
    QK_ASSIGN_OR_RETURN(const RopeConfig other, read(scaling, same_theta));
    if (other != rope) {
      return config.Error(
          "rope_scaling: says something else than "
          "rope_parameters");
    }
  }
  return rope;
}

absl::Status SetRope(const JsonValue& config, const RopeFields& fields,
                     ModelConfig* model) {
  const int head_dim = model->layers[0].attention.head_dim;
  QK_ASSIGN_OR_RETURN(const RopeConfig rope, ReadRope(config, fields, head_dim,
                                                      model->context_length));
  for (LayerConfig& layer : model->layers) layer.attention.rope = rope;
  // Beyond its context, dynamic NTK keeps the model going.
  if (rope.dynamic_factor > 0) {
    const double context = model->context_length * rope.dynamic_factor;
    if (context > kMaxContext) {
      return config.Error(absl::StrCat("factor: gives a context of ", context,
                                       " positions, limit ", kMaxContext));
    }
    model->context_length = static_cast<int>(context);
    const double slowest = rope.FrequenciesFor(model->context_length).back();
    if (!(slowest > 0)) {
      return config.Error(absl::StrCat("factor: gives a frequency of ", slowest,
                                       " at ", model->context_length,
                                       " positions"));
    }
  }
  return absl::OkStatus();
}

}  // namespace qk
