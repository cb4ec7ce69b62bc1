#include <cmath>
#include <string>

#include "engine/base/crc32c.h"
#include "google/protobuf/stubs/logging.h"
#include "qkscope/v1/baseline.pb.h"
#include "server/observe/activation_baseline.h"
#include "tests/fuzz/fuzz.h"

namespace {

constexpr char kSha256[] = "0123";

// Layers 0 and 2 have attention, layer 1 has none.
qk::ModelConfig Config() {
  qk::ModelConfig config;
  config.layers.resize(3);
  for (int layer : {0, 2}) {
    qk::AttentionConfig& attention = config.layers[layer].attention;
    attention.num_heads = 2;
    attention.num_kv_heads = layer == 0 ? 1 : 2;
    attention.head_dim = 2;
  }
  return config;
}

void Check(const std::string& file) {
  static const qk::ModelConfig config = Config();
  const auto baseline = qk::ParseBaseline(file, kSha256, config);
  if (!baseline.ok()) {
    QK_CHECK(absl::IsDataLoss(baseline.status()) ||
             absl::IsFailedPrecondition(baseline.status()));
    qk::fuzz::CheckMessage(baseline.status());
    return;
  }
  QK_CHECK(!baseline->patterns.means().empty());
  for (const auto& [place, mean] : baseline->patterns.means()) {
    QK_CHECK(config.has_attention(place.layer));
    QK_CHECK(mean.shape == qk::ActivationShape(config, place));
    QK_CHECK(mean.values.size() ==
             static_cast<size_t>(mean.shape[0]) * mean.shape[1]);
    // A prompt can be compared with it.
    const double drift = qk::DriftBetween(mean.values, mean.values);
    QK_CHECK(drift >= 0 && drift <= 1);
  }
  // It can be written again.
  QK_CHECK(qk::ParseBaseline(qk::SerializeBaseline(*baseline), kSha256, config)
               .ok());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  google::protobuf::SetLogHandler(nullptr);  // as the server does
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  Check(bytes);
  // With the right checksum, because the reader looks at nothing after a wrong
  // one.
  qkscope::v1::BaselineFile file;
  file.set_baseline(bytes);
  file.set_crc32c(qk::Crc32c(bytes.data(), bytes.size()));
  Check(file.SerializeAsString());
  return 0;
}
