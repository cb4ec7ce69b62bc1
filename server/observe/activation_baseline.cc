#include "server/observe/activation_baseline.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/crc32c.h"
#include "qkscope/v1/baseline.pb.h"
#include "server/common/pb.h"
#include "server/common/text.h"

namespace qk {
namespace {

// Little-endian values are copied without conversion.
static_assert(std::endian::native == std::endian::little);

absl::Status Damaged(absl::string_view what) {
  return absl::DataLossError(absl::StrCat("the file is damaged: ", what));
}

absl::StatusOr<ActivationPlace> PlaceOf(const pb::StoredPattern& in,
                                        const ModelConfig& config) {
  for (int i = 0; i < kActivationMatrices; ++i) {
    const auto matrix = static_cast<ActivationMatrix>(i);
    if (PointOf(matrix) != in.point() || in.layer() < 0 ||
        in.layer() >= config.num_layers() ||
        !config.has_attention(in.layer())) {
      continue;
    }
    return ActivationPlace{matrix, in.layer()};
  }
  return Damaged("it has a matrix that the model has not");
}

absl::StatusOr<MeanPatterns::Mean> MeanOf(const pb::StoredPattern& in,
                                          const std::vector<int>& shape) {
  MeanPatterns::Mean out;
  out.shape.assign(in.shape().begin(), in.shape().end());
  out.prompts = in.prompts();
  const size_t entries = static_cast<size_t>(shape[0]) * shape[1];
  if (out.shape != shape || in.values().size() != entries * sizeof(float) ||
      out.prompts < 1) {
    return Damaged("a matrix has another shape than the model's");
  }
  out.values.resize(entries);
  std::memcpy(out.values.data(), in.values().data(), in.values().size());
  double sum = 0;
  for (float value : out.values) {
    if (!std::isfinite(value) || value < 0) {
      return Damaged("a value is not finite, or negative");
    }
    sum += value;
  }
  if (sum <= 0) return Damaged("a matrix is 0");
  return out;
}

}  // namespace

pb::HookPoint PointOf(ActivationMatrix matrix) {
  constexpr pb::HookPoint kPoints[kActivationMatrices] = {
      pb::HOOK_ROT_Q, pb::HOOK_ROT_K, pb::HOOK_V, pb::HOOK_Q, pb::HOOK_K};
  return kPoints[static_cast<size_t>(matrix)];
}

std::vector<int> ActivationShape(const ModelConfig& config,
                                 const ActivationPlace& place) {
  const AttentionConfig& attention =
      config.layers[static_cast<size_t>(place.layer)].attention;
  const bool of_q = place.matrix == ActivationMatrix::kQAfter ||
                    place.matrix == ActivationMatrix::kQBefore;
  return {of_q ? attention.num_heads : attention.num_kv_heads,
          attention.head_dim};
}

std::string SerializeBaseline(const ActivationBaseline& baseline) {
  pb::StoredBaseline stored;
  stored.set_model(baseline.model);
  stored.set_weights_sha256(baseline.weights_sha256);
  stored.set_created_unix_ms(absl::ToUnixMillis(baseline.created));
  for (const auto& [place, mean] : baseline.patterns.means()) {
    pb::StoredPattern* out = stored.add_patterns();
    out->set_point(PointOf(place.matrix));
    out->set_layer(place.layer);
    out->mutable_shape()->Assign(mean.shape.begin(), mean.shape.end());
    out->set_prompts(mean.prompts);
    out->set_values(mean.values.data(), mean.values.size() * sizeof(float));
  }
  pb::BaselineFile file;
  file.set_baseline(stored.SerializeAsString());
  file.set_crc32c(Crc32c(file.baseline().data(), file.baseline().size()));
  return file.SerializeAsString();
}

absl::StatusOr<ActivationBaseline> ParseBaseline(
    absl::string_view content, const std::string& weights_sha256,
    const ModelConfig& config) {
  pb::BaselineFile file;
  if (!file.ParseFromArray(content.data(), static_cast<int>(content.size()))) {
    return Damaged("it is no BaselineFile");
  }
  const std::string& inner = file.baseline();
  if (Crc32c(inner.data(), inner.size()) != file.crc32c()) {
    return Damaged("its checksum is wrong");
  }
  pb::StoredBaseline stored;
  if (!stored.ParseFromString(inner)) {
    return Damaged("it holds no StoredBaseline");
  }
  if (stored.weights_sha256() != weights_sha256) {
    return absl::FailedPreconditionError(absl::StrCat(
        "it was made of other weights: sha256 ", Echo(stored.weights_sha256()),
        ", the model's is ", weights_sha256));
  }
  ActivationBaseline out;
  out.model = stored.model();
  out.weights_sha256 = stored.weights_sha256();
  out.created = absl::FromUnixMillis(stored.created_unix_ms());
  for (const pb::StoredPattern& pattern : stored.patterns()) {
    QK_ASSIGN_OR_RETURN(const ActivationPlace place, PlaceOf(pattern, config));
    QK_ASSIGN_OR_RETURN(MeanPatterns::Mean mean,
                        MeanOf(pattern, ActivationShape(config, place)));
    if (out.patterns.Find(place) != nullptr) {
      return Damaged("it has a matrix twice");
    }
    out.patterns.Set(place, std::move(mean));
  }
  if (out.patterns.means().empty()) return Damaged("it has no matrices");
  return out;
}

}  // namespace qk
