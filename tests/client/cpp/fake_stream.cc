#include "tests/client/cpp/fake_stream.h"

#include <algorithm>
#include <utility>

#include "engine/base/crc32c.h"
#include "engine/base/sha256.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

constexpr v1::HookPoint kPoints[] = {v1::HOOK_ROT_Q, v1::HOOK_ROT_K,
                                     v1::HOOK_V};
constexpr int kTokens = 3;

std::string Payload(const FakeStreamOptions& options, const std::string& arm,
                    v1::HookPoint point) {
  const auto of_arm = options.shift_of_arm.find(arm);
  const float shift =
      options.shift +
      (of_arm == options.shift_of_arm.end() ? 0 : of_arm->second);
  std::vector<float> values(options.heads * options.head_dim, 1.0f + shift);
  if (point == v1::HOOK_ROT_Q) values[3] = 40.0f + shift;
  return std::string(reinterpret_cast<const char*>(values.data()),
                     values.size() * sizeof(float));
}

v1::Statistics StatisticsOf(v1::HookPoint point) {
  v1::Statistics statistics;
  const bool massive = point == v1::HOOK_ROT_Q;
  statistics.set_massive_count(massive ? 1 : 0);
  statistics.set_ratio(massive ? 3.7f : 1.0f);
  statistics.mutable_largest()->set_dim(massive ? 3 : 0);
  statistics.mutable_largest()->set_wavelength(628.3);
  return statistics;
}

v1::AnalyzeRequest Expanded(const FakeStreamOptions& options) {
  v1::AnalyzeRequest request;
  request.set_model("fake");
  for (const std::string& name : options.arms) {
    v1::Arm* arm = request.add_arms();
    arm->set_name(name);
    if (options.clean_arms.count(name) > 0) continue;
    arm->add_disruptions()->mutable_top_k()->set_k(1);
  }
  v1::Capture* capture = request.mutable_capture();
  for (const v1::HookPoint point : kPoints) capture->add_points(point);
  capture->set_form(options.form);
  for (int i = 0; i < options.images; ++i) {
    request.mutable_input()->add_images()->set_sha256("00");
  }
  if (options.images > 0) capture->add_vision_layers(0);
  request.mutable_compare()->set_baseline(options.arms[0]);
  return request;
}

class Builder {
 public:
  explicit Builder(const FakeStreamOptions& options) : options_(options) {}

  std::vector<v1::AnalyzeEvent> Build() {
    v1::AnalyzeEvent accepted;
    accepted.mutable_accepted()->set_request_id("fake-1");
    events_.push_back(accepted);
    v1::Started* started = Next()->mutable_started();
    for (int t = 0; t < kTokens; ++t) started->add_token_ids(10 + t);
    *started->mutable_expanded() = Expanded(options_);
    for (const std::string& arm : options_.arms) {
      for (const v1::HookPoint point : kPoints) {
        for (int i = 0; i < options_.images; ++i) AddTensor(arm, 0, point, i);
      }
    }
    // Arms interleave, as in a ragged batch.
    for (int layer = 0; layer < options_.layers; ++layer) {
      for (const std::string& arm : options_.arms) AddLayer(arm, layer);
    }
    for (const std::string& arm : options_.arms) AddComparison(arm);
    AddFinished();
    return std::move(events_);
  }

 private:
  v1::AnalyzeEvent* Next() {
    events_.emplace_back();
    events_.back().set_seq(seq_++);
    return &events_.back();
  }

  void AddLayer(const std::string& arm, int layer) {
    for (const v1::HookPoint point : kPoints) AddTensor(arm, layer, point);
    if (options_.clean_arms.count(arm) > 0) return;
    v1::Applied* applied = Next()->mutable_applied();
    applied->set_arm(arm);
    applied->set_layer(layer);
    applied->set_replaced(kTokens);
  }

  void AddTensor(const std::string& arm, int layer, v1::HookPoint point,
                 int image = -1) {
    const std::string data = Payload(options_, arm, point);
    v1::Layer header;
    header.set_arm(arm);
    if (image >= 0) header.set_image(image);
    header.set_layer(layer);
    header.set_point(point);
    header.set_stage(v1::BEFORE);
    header.set_phase(v1::PREFILL);
    header.set_dtype(v1::F32);
    header.set_form(options_.form);
    if (options_.form == v1::RAW) header.add_shape(1);
    header.add_shape(options_.heads);
    header.add_shape(options_.head_dim);
    header.set_total_bytes(static_cast<int64_t>(data.size()));
    if (options_.form == v1::NORM_OVER_TOKENS) {
      *header.mutable_statistics() = StatisticsOf(point);
      if (image >= 0) {
        header.mutable_statistics()->mutable_largest()->clear_wavelength();
      }
    }
    for (size_t offset = 0; offset < data.size();
         offset += options_.chunk_bytes) {
      v1::Layer* chunk = Next()->mutable_layer();
      *chunk = header;
      chunk->set_data(data.substr(offset, options_.chunk_bytes));
      chunk->set_offset(static_cast<int64_t>(offset));
      chunk->set_crc32c(Crc32c(chunk->data().data(), chunk->data().size()));
    }
    AddDigest(header, data);
  }

  void AddDigest(const v1::Layer& header, const std::string& data) {
    v1::PayloadDigest* digest = manifest_.add_digests();
    digest->set_arm(header.arm());
    if (header.has_image()) digest->set_image(header.image());
    digest->set_phase(header.phase());
    digest->set_layer(header.layer());
    digest->set_point(header.point());
    digest->set_stage(header.stage());
    digest->set_crc32c(Crc32c(data.data(), data.size()));
    digest->set_bytes(static_cast<int64_t>(data.size()));
    if (options_.form != v1::RAW) {
      Sha256 sha256;
      sha256.Update(data.data(), data.size());
      digest->set_sha256(sha256.FinishHex());
    }
    bytes_ += static_cast<int64_t>(data.size());
  }

  void AddComparison(const std::string& arm) {
    v1::Comparison* comparison = Next()->mutable_comparison();
    comparison->set_arm(arm);
    comparison->set_baseline(options_.arms[0]);
    const bool same =
        arm == options_.arms[0] || options_.clean_arms.count(arm) > 0;
    for (int t = 0; t < kTokens; ++t) {
      comparison->add_kl(same ? 0.0f : 0.5f);
      comparison->add_top1_flip(!same);
      comparison->add_token_logprob(t == 0 ? 0.0f : -2.0f);
    }
    comparison->set_mean_kl(same ? 0.0f : 0.5f);
    comparison->set_top1_flips(same ? 0 : kTokens);
    comparison->set_mean_logprob(same ? -2.0f : -3.0f);
  }

  void AddFinished() {
    v1::AnalyzeEvent* event = Next();
    v1::Finished* finished = event->mutable_finished();
    finished->set_events(event->seq());
    finished->set_streamed_bytes(bytes_);
    finished->set_prompt_tokens(kTokens);
    manifest_.set_model("fake");
    manifest_.set_backend("fake");
    for (const std::string& id : options_.kernel_ids) {
      manifest_.add_kernel_ids(id);
    }
    for (int t = 0; t < kTokens; ++t) manifest_.add_token_ids(10 + t);
    *manifest_.mutable_expanded() = Expanded(options_);
    *finished->mutable_manifest() = manifest_;
  }

  FakeStreamOptions options_;
  std::vector<v1::AnalyzeEvent> events_;
  int64_t seq_ = 0;
  int64_t bytes_ = 0;
  v1::Manifest manifest_;
};

}  // namespace

std::vector<v1::AnalyzeEvent> FakeStream(const FakeStreamOptions& options) {
  return Builder(options).Build();
}

size_t IndexOf(const std::vector<v1::AnalyzeEvent>& events,
               v1::AnalyzeEvent::EventCase kind) {
  for (size_t i = 0; i < events.size(); ++i) {
    if (events[i].event_case() == kind) return i;
  }
  return events.size();
}

}  // namespace qk::client
