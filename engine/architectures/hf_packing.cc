#include "engine/architectures/hf_packing.h"

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "engine/architectures/hf_config.h"
#include "engine/base/check.h"
#include "engine/formats/excerpt.h"

namespace qk {
namespace {

// How the weights were quantised and which kernels run them; the packed numbers
// do not depend on it.
constexpr absl::string_view kNeutral[] = {"act_group_aware",
                                          "backend",
                                          "batch_size",
                                          "block_name_to_quantize",
                                          "cache_block_outputs",
                                          "damp_auto_increment",
                                          "damp_percent",
                                          "dataset",
                                          "desc_act",
                                          "disable_exllama",
                                          "do_fuse",
                                          "exllama_config",
                                          "fuse_max_seq_len",
                                          "is_marlin_format",
                                          "max_input_length",
                                          "meta",
                                          "model_file_base_name",
                                          "model_name_or_path",
                                          "model_seqlen",
                                          "module_name_preceding_first_block",
                                          "modules_in_block_to_quantize",
                                          "modules_to_fuse",
                                          "pad_token_id",
                                          "quant_method",
                                          "quantizer",
                                          "static_groups",
                                          "tokenizer",
                                          "true_sequential",
                                          "use_cuda_fp16",
                                          "use_exllama"};

constexpr absl::string_view kAwqMembers[] = {
    "bits",    "format",    "group_size", "modules_to_not_convert",
    "version", "zero_point"};
constexpr absl::string_view kGptqMembers[] = {
    "bits",    "checkpoint_format",      "format",     "group_size",
    "lm_head", "modules_to_not_convert", "pack_dtype", "sym"};

absl::Status RefuseUnknownMembers(const JsonValue& object,
                                  absl::Span<const absl::string_view> known) {
  return object.ForEachMember([&](absl::string_view key, JsonValue value) {
    if (value.is_null() || absl::c_linear_search(known, key) ||
        absl::c_linear_search(kNeutral, key)) {
      return absl::OkStatus();
    }
    return Unimplemented(object, key,
                         absl::StrCat("a field that is not implemented, got ",
                                      value.Describe()));
  });
}

// Reads a value such as "gemm" under either of two names, in upper or lower
// case.
absl::StatusOr<std::string> ReadFormat(const JsonValue& object, const char* key,
                                       const char* older, const char* missing) {
  if (object.Find(older).has_value()) key = older;
  QK_ASSIGN_OR_RETURN(const absl::string_view name,
                      object.GetStringOr(key, missing));
  return absl::AsciiStrToLower(name);
}

absl::Status ReadSizes(const JsonValue& object, Packing* packing) {
  QK_ASSIGN_OR_RETURN(const int64_t bits, object.GetInt64("bits"));
  if (bits != 4) {
    return Unimplemented(
        object, "bits",
        absl::StrCat(bits, " is not implemented (implemented: 4)"));
  }
  packing->bits = static_cast<int>(bits);
  QK_ASSIGN_OR_RETURN(
      const int64_t group,
      object.GetInt64InRangeOr("group_size", -1, kMaxWidth, 128));
  // At least 32 inputs, so that a packed word belongs to one group.
  if (group != -1 && (group == 0 || group % 32 != 0)) {
    return object.Error(absl::StrCat(
        "group_size: must be -1 or a multiple of 32, got ", group));
  }
  packing->group_size = static_cast<int>(group);
  if (!object.Find("modules_to_not_convert").has_value()) {
    return absl::OkStatus();
  }
  QK_ASSIGN_OR_RETURN(const JsonValue modules,
                      object.GetArray("modules_to_not_convert"));
  return modules.ForEachElement([&](JsonValue module) -> absl::Status {
    QK_ASSIGN_OR_RETURN(const absl::string_view name, module.AsString());
    packing->modules_to_not_convert.emplace_back(name);
    return absl::OkStatus();
  });
}

absl::StatusOr<Packing> ReadAwq(const JsonValue& object) {
  Packing packing;
  packing.method = Packing::Method::kAwq;
  QK_RETURN_IF_ERROR(RefuseUnknownMembers(object, kAwqMembers));
  QK_ASSIGN_OR_RETURN(const std::string format,
                      ReadFormat(object, "format", "version", "gemm"));
  if (format != "gemm") {
    return Unimplemented(
        object, object.Find("version").has_value() ? "version" : "format",
        absl::StrCat("'", Excerpt(format),
                     "' is not implemented (implemented: gemm)"));
  }
  QK_RETURN_IF_ERROR(ReadSizes(object, &packing));
  QK_ASSIGN_OR_RETURN(packing.zero_point, object.GetBoolOr("zero_point", true));
  if (!packing.zero_point) {
    return Unimplemented(object, "zero_point", "false is not implemented");
  }
  return packing;
}

absl::StatusOr<Packing> ReadGptq(const JsonValue& object) {
  Packing packing;
  packing.method = Packing::Method::kGptq;
  QK_RETURN_IF_ERROR(RefuseUnknownMembers(object, kGptqMembers));
  QK_ASSIGN_OR_RETURN(
      const std::string format,
      ReadFormat(object, "format", "checkpoint_format", "gptq"));
  if (format != "gptq" && format != "gptq_v2") {
    return Unimplemented(
        object,
        object.Find("checkpoint_format").has_value() ? "checkpoint_format"
                                                     : "format",
        absl::StrCat("'", Excerpt(format),
                     "' is not implemented (implemented: gptq, gptq_v2)"));
  }
  packing.v2 = format == "gptq_v2";
  QK_RETURN_IF_ERROR(RequireFalse(object, {"lm_head"}));
  QK_ASSIGN_OR_RETURN(const absl::string_view word,
                      object.GetStringOr("pack_dtype", "int32"));
  if (word != "int32") {
    return Unimplemented(object, "pack_dtype",
                         absl::StrCat(object.Get("pack_dtype")->Describe(),
                                      " is not implemented"));
  }
  QK_RETURN_IF_ERROR(ReadSizes(object, &packing));
  QK_ASSIGN_OR_RETURN(packing.desc_act, object.GetBoolOr("desc_act", false));
  QK_ASSIGN_OR_RETURN(packing.sym, object.GetBoolOr("sym", true));
  return packing;
}

}  // namespace

absl::StatusOr<Packing> ReadPacking(const JsonValue& config) {
  constexpr char kKey[] = "quantization_config";
  if (!config.Find(kKey).has_value()) return Packing{};
  QK_ASSIGN_OR_RETURN(const JsonValue object, config.GetObject(kKey));
  QK_ASSIGN_OR_RETURN(const absl::string_view method,
                      object.GetString("quant_method"));
  if (method == "awq") return ReadAwq(object);
  if (method == "gptq") return ReadGptq(object);
  return Unimplemented(object, "quant_method",
                       absl::StrCat(object.Get("quant_method")->Describe(),
                                    " is not implemented (implemented: awq, "
                                    "gptq)"));
}

}  // namespace qk
