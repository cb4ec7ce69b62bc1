// A model with packed layers, and the same model with those layers plain.
#ifndef QKSCOPE_TESTS_ENGINE_MODEL_PACKED_TWINS_H_
#define QKSCOPE_TESTS_ENGINE_MODEL_PACKED_TWINS_H_

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "tests/engine/forward_driver.h"
#include "tests/engine/model/packed_testing.h"

namespace qk::testing {

struct PackedCase {
  const char* name;
  const char* model;              // a golden of plain weights
  std::set<std::string> modules;  // endings of the packed modules' names
  Int4Format format;
  const char* quantization;  // the configuration's members
};

inline constexpr char kAwqConfig[] =
    R"("quant_method":"awq","bits":4,"group_size":32,"version":"gemm")";
inline FileTensors ReadGoldenTensors(const std::string& model) {
  const auto source = OpenSafetensors(GoldenPath(model)).value();
  FileTensors tensors;
  for (const TensorInfo& t : source->tensors()) {
    tensors[t.name] = {std::string(DTypeName(t.dtype)), t.shape,
                       std::string(t.data.begin(), t.data.end())};
  }
  return tensors;
}

inline std::vector<float> Transpose(const std::vector<float>& values,
                                    int64_t rows) {
  const int64_t columns = static_cast<int64_t>(values.size()) / rows;
  std::vector<float> out;
  for (int64_t c = 0; c < columns; ++c) {
    for (int64_t r = 0; r < rows; ++r) out.push_back(values[r * columns + c]);
  }
  return out;
}

// The golden's files with some layers replaced: once packed, once plain.
class Twins {
 public:
  explicit Twins(const PackedCase& c)
      : config_(ReadFile(GoldenPath(absl::StrCat(c.model, "/config.json")))) {
    packed_config_ = config_;
    packed_config_.insert(
        config_.find('{') + 1,
        absl::StrCat(R"("quantization_config":{)", c.quantization, "},"));
    for (const auto& [name, tensor] : ReadGoldenTensors(c.model)) {
      absl::string_view module = name;
      const bool chosen = absl::ConsumeSuffix(&module, ".weight") &&
                          std::any_of(c.modules.begin(), c.modules.end(),
                                      [&](const std::string& ending) {
                                        return absl::EndsWith(module, ending);
                                      });
      if (!chosen) {
        packed_tensors[name] = full_tensors[name] = tensor;
        continue;
      }
      // GPT-2's file has (in, out), but its packed layers have the usual order.
      const bool transposed = absl::StartsWith(c.model, "tiny_gpt2");
      const int64_t out = tensor.shape[transposed ? 1 : 0];
      const int64_t in = tensor.shape[transposed ? 0 : 1];
      const RandomLayer layer(out, in, c.format, ++layers_);
      layer.Put(std::string(module), &packed_tensors);
      const std::vector<float> weight = layer.Weight();
      full_tensors[name] = MakeTensor(
          "F32", tensor.shape, transposed ? Transpose(weight, out) : weight);
    }
  }

  std::shared_ptr<const Model> LoadPacked(ComputeType type, Backend* backend) {
    return Load(Write(packed_, packed_config_, packed_tensors), type, backend);
  }
  std::shared_ptr<const Model> LoadFull(ComputeType type, Backend* backend) {
    return Load(Write(full_, config_, full_tensors), type, backend);
  }
  absl::StatusOr<ModelDescription> DescribePacked() const {
    return DescribeModel(Write(packed_, packed_config_, packed_tensors),
                         ComputeType::kF32);
  }

  std::string& packed_config() { return packed_config_; }
  uint32_t layers() const { return layers_; }

  FileTensors packed_tensors, full_tensors;

 private:
  static std::string Write(const TempFolder& folder, const std::string& config,
                           const FileTensors& tensors) {
    folder.Write("config.json", config);
    folder.Write("model.safetensors", Serialize(tensors));
    return folder.path();
  }

  static std::shared_ptr<const Model> Load(const std::string& path,
                                           ComputeType type, Backend* backend) {
    ModelOptions options;
    options.compute = type;
    options.kv_cache_bytes = 16 << 20;
    options.max_rows_per_pass = 64;
    options.check_weights_below = 0;  // as large files are loaded
    const auto model = Model::Load(path, options, backend);
    EXPECT_TRUE(model.ok()) << model.status();
    return model.ok() ? *model : nullptr;
  }

  TempFolder packed_, full_;
  std::string config_, packed_config_;
  uint32_t layers_ = 0;
};

inline const PackedCase kPhi3Awq = {
    "Phi3FusedAwq",
    "tiny_phi3",
    {"self_attn.qkv_proj", "self_attn.o_proj"},
    {Int4Format::Method::kAwq, 32, false, false},
    kAwqConfig};

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_MODEL_PACKED_TWINS_H_
