#include "client/cpp/stream_checker.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/crc32c.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

template <typename... Parts>
absl::Status Violation(const Parts&... parts) {
  return absl::DataLossError(absl::StrCat("broken stream: ", parts...));
}

template <typename Message>
int ImageOf(const Message& message) {
  return message.has_image() ? message.image() : -1;
}

std::string LayerText(int image, int layer) {
  return image < 0 ? absl::StrCat("layer ", layer)
                   : absl::StrCat("image ", image, ", vision layer ", layer);
}

// Whether two chunks, without their data, belong to the same tensor.
bool SameTensor(const v1::Layer& a, const v1::Layer& b) {
  auto essence = [](v1::Layer layer) {
    layer.clear_offset();
    layer.clear_crc32c();
    layer.clear_statistics();
    return layer.SerializeAsString();
  };
  return essence(a) == essence(b);
}

// Checks a chunk's numbers, after `have` bytes of its tensor have arrived.
absl::Status CheckChunk(const v1::Layer& layer, const std::string& chunk,
                        size_t have) {
  const std::string name = TensorName(layer);
  if (ShapeBytes(layer) != layer.total_bytes()) {
    return Violation(name, " has ", layer.total_bytes(),
                     " bytes, its shape needs ", ShapeBytes(layer));
  }
  if (Crc32c(chunk.data(), chunk.size()) != layer.crc32c()) {
    return Violation(name, ": checksum of the chunk at byte ", layer.offset(),
                     " is wrong");
  }
  if (layer.offset() != static_cast<int64_t>(have)) {
    return Violation(name, ": chunk at byte ", layer.offset(), ", expected ",
                     have);
  }
  if (chunk.empty() && layer.total_bytes() > 0) {
    return Violation(name, ": an empty chunk");
  }
  if (have + chunk.size() > static_cast<size_t>(layer.total_bytes())) {
    return Violation(name, ": more data than its ", layer.total_bytes(),
                     " bytes");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::optional<Tensor>> StreamChecker::Add(
    v1::AnalyzeEvent* event) {
  if (finished_) return Violation("an event after Finished");
  if (event->event_case() == v1::AnalyzeEvent::kAccepted) return std::nullopt;
  if (event->seq() != next_seq_) {
    return Violation("event ", next_seq_, " is missing, got ", event->seq());
  }
  ++next_seq_;
  if (!started_ && event->event_case() != v1::AnalyzeEvent::kStarted) {
    return Violation("event ", event->seq(), " came before Started");
  }
  absl::Status status;
  switch (event->event_case()) {
    case v1::AnalyzeEvent::kStarted:
      status = CheckStarted(event->started());
      break;
    case v1::AnalyzeEvent::kLayer:
      status = CheckOrder(event->layer());
      if (!status.ok()) return status;
      return AddChunk(event->mutable_layer());
    case v1::AnalyzeEvent::kApplied:
      status = CheckArm(event->applied().arm());
      break;
    case v1::AnalyzeEvent::kToken:
      status = CheckToken(event->token());
      break;
    case v1::AnalyzeEvent::kComparison:
      status = CheckArm(event->comparison().arm());
      compared_.insert(event->comparison().arm());
      break;
    case v1::AnalyzeEvent::kLogits:
      status = CheckArm(event->logits().arm());
      break;
    case v1::AnalyzeEvent::kFinished:
      status = CheckFinished(*event);
      break;
    default:  // An event of a newer server: only its seq is checked.
      break;
  }
  if (!status.ok()) return status;
  return std::nullopt;
}

absl::Status StreamChecker::CheckStarted(const v1::Started& started) {
  if (started_) return Violation("a second Started");
  started_ = true;
  const v1::Capture& capture = started.expanded().capture();
  hash_payloads_ = capture.form() != v1::RAW || capture.raw_sha256();
  images_ = started.expanded().input().images_size();
  for (const v1::Arm& arm : started.expanded().arms()) arms_.insert(arm.name());
  return absl::OkStatus();
}

absl::Status StreamChecker::CheckArm(const std::string& arm) const {
  if (arms_.count(arm) > 0) return absl::OkStatus();
  return Violation("arm '", arm, "' is not one of the request's");
}

absl::Status StreamChecker::CheckToken(const v1::Token& token) {
  absl::Status status = CheckArm(token.arm());
  if (!status.ok()) return status;
  auto [last, first_of_arm] = last_token_.emplace(token.arm(), token.step());
  if (!first_of_arm && token.step() != last->second + 1) {
    return Violation("token of step ", token.step(), " of arm '", token.arm(),
                     "' after step ", last->second);
  }
  last->second = token.step();
  return absl::OkStatus();
}

absl::Status StreamChecker::CheckOrder(const v1::Layer& layer) {
  absl::Status status = CheckArm(layer.arm());
  if (!status.ok()) return status;
  if (layer.has_image() && (layer.image() < 0 || layer.image() >= images_)) {
    return Violation(TensorName(layer), ": the request has ", images_,
                     " images");
  }
  const int step = layer.has_step() ? layer.step() : -1;
  auto [last, first] = last_layer_.emplace(
      StepKey{layer.arm(), ImageOf(layer), layer.phase(), step}, layer.layer());
  if (!first && layer.layer() < last->second) {
    return Violation(TensorName(layer), " came after layer ", last->second);
  }
  last->second = layer.layer();
  if (layer.phase() == v1::PREFILL && compared_.count(layer.arm()) > 0) {
    return Violation(TensorName(layer), " came after its arm's Comparison");
  }
  const auto token = last_token_.find(layer.arm());
  if (step >= 0 && token != last_token_.end() && token->second > step) {
    return Violation(TensorName(layer), " came after its step's token");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Tensor>> StreamChecker::AddChunk(
    v1::Layer* layer) {
  const std::string name = TensorName(*layer);
  if (complete_.count(name) > 0) return Violation(name, " came twice");
  const std::string chunk = std::move(*layer->mutable_data());
  layer->clear_data();
  auto [found, is_first] = partial_.try_emplace(name);
  Tensor& tensor = found->second;
  absl::Status status = CheckChunk(*layer, chunk, tensor.data.size());
  if (!status.ok()) return status;
  if (is_first) {
    tensor.header = *layer;
  } else if (!SameTensor(tensor.header, *layer)) {
    return Violation(name, ": its chunks have different fields");
  }
  if (layer->has_statistics()) {
    *tensor.header.mutable_statistics() =
        std::move(*layer->mutable_statistics());
  }
  tensor.data += chunk;
  if (static_cast<int64_t>(tensor.data.size()) < layer->total_bytes()) {
    return std::nullopt;
  }
  tensor.header.clear_offset();
  tensor.header.set_crc32c(Crc32c(tensor.data.data(), tensor.data.size()));
  std::optional<Tensor> done = std::move(tensor);
  partial_.erase(found);
  complete_.insert(name);
  AddToDigest(*done);
  return done;
}

void StreamChecker::AddToDigest(const Tensor& tensor) {
  const v1::Layer& header = tensor.header;
  Digest& digest = digests_[{header.arm(), ImageOf(header), header.phase(),
                             header.layer(), header.point(), header.stage()}];
  digest.bytes += static_cast<int64_t>(tensor.data.size());
  digest.crc32c =
      ExtendCrc32c(digest.crc32c, tensor.data.data(), tensor.data.size());
  if (hash_payloads_) {
    digest.sha256.Update(tensor.data.data(), tensor.data.size());
  }
  payload_bytes_ += static_cast<int64_t>(tensor.data.size());
}

absl::Status StreamChecker::CheckFinished(const v1::AnalyzeEvent& event) {
  const v1::Finished& finished = event.finished();
  if (finished.events() != event.seq()) {
    return Violation("Finished counts ", finished.events(),
                     " events, but its seq is ", event.seq());
  }
  if (!partial_.empty()) {
    return Violation(partial_.begin()->first, " is incomplete");
  }
  if (finished.streamed_bytes() != payload_bytes_) {
    return Violation("Finished counts ", finished.streamed_bytes(),
                     " bytes of payload, got ", payload_bytes_);
  }
  for (const v1::PayloadDigest& digest : finished.manifest().digests()) {
    absl::Status status = CheckDigest(digest);
    if (!status.ok()) return status;
  }
  if (!digests_.empty()) {
    const auto& [arm, image, phase, layer, point, stage] =
        digests_.begin()->first;
    return Violation("the manifest has no digest of arm '", arm, "', ",
                     LayerText(image, layer), ", ",
                     v1::HookPoint_Name(static_cast<v1::HookPoint>(point)));
  }
  finished_ = true;
  return absl::OkStatus();
}

absl::Status StreamChecker::CheckDigest(const v1::PayloadDigest& digest) {
  const auto found =
      digests_.find({digest.arm(), ImageOf(digest), digest.phase(),
                     digest.layer(), digest.point(), digest.stage()});
  const std::string what = absl::StrCat(
      "arm '", digest.arm(), "', ", LayerText(ImageOf(digest), digest.layer()),
      ", ", v1::HookPoint_Name(digest.point()));
  if (found == digests_.end()) {
    return Violation("the manifest has a digest of ", what,
                     ", which never came");
  }
  Digest& got = found->second;
  if (got.bytes != digest.bytes() || got.crc32c != digest.crc32c()) {
    return Violation("the manifest's digest of ", what, " differs");
  }
  if (!digest.sha256().empty() && hash_payloads_ &&
      got.sha256.FinishHex() != digest.sha256()) {
    return Violation("the manifest's SHA-256 of ", what, " differs");
  }
  digests_.erase(found);
  return absl::OkStatus();
}

}  // namespace qk::client
