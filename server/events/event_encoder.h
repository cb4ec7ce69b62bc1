// Turns what a run sends into AnalyzeEvents: numbers them, cuts payloads into
// chunks with checksums, and keeps the digests that go into the manifest.
#ifndef QKSCOPE_SERVER_EVENTS_EVENT_ENCODER_H_
#define QKSCOPE_SERVER_EVENTS_EVENT_ENCODER_H_

#include <compare>
#include <deque>
#include <map>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "engine/base/sha256.h"
#include "qkscope/v1/analysis.pb.h"
#include "server/common/pb.h"
#include "server/events/frame_queue.h"

namespace qk {

// Messages of parts that may be large are cut at this size, well under the
// 4 MiB that gRPC's clients accept.
inline constexpr int64_t kMaxEventBytes = 1 << 20;

pb::Statistics StatisticsToProto(const Statistics& statistics);
// Without seq, data and checksum. `spec`: of the run.
pb::Layer LayerToProto(const LayerFrame& frame, const pb::AnalyzeRequest& spec);

class EventEncoder {
 public:
  struct Options {
    std::string request_id;
    // Everything that is known before the run: model, backend, tokens, the
    // expanded request.
    pb::Manifest manifest;
    pb::Estimates estimate;
    // Seconds the request has waited when it first got onto the device.
    std::function<double()> queue_seconds;
  };
  explicit EventEncoder(Options options);

  // Takes the next item; only when Next has nothing more. Not a RunEnd that
  // failed.
  void Feed(StreamItem item);
  // The next event; false: feed more.
  bool Next(pb::AnalyzeEvent* event);
  // Payload bytes so far, and generated tokens.
  int64_t streamed_bytes() const { return streamed_bytes_; }
  int64_t generated_tokens() const { return generated_tokens_; }
  // Finished was handed out.
  bool done() const { return done_; }

 private:
  struct DigestKey {
    int arm, image, phase, layer, point, stage;
    auto operator<=>(const DigestKey&) const = default;
  };
  struct Digest {
    std::optional<Sha256> sha256;
    uint32_t crc32c = 0;
    int64_t bytes = 0;
  };

  void Take(QueuePosition position);
  void Take(LayerFrame frame);
  void Take(AppliedRule applied);
  void Take(TokenEvent token);
  void Take(ComparisonResult comparison);
  void Take(ArmLogits logits);
  void Take(const ScoreResult& score);
  void Take(RunEnd end);
  void Start();
  pb::AnalyzeEvent* Append();
  void NextChunk(pb::AnalyzeEvent* event);
  void UpdateDigest();
  void FillFinished(const RunEnd& end, pb::Finished* finished);
  const std::string& ArmName(int arm) const;

  Options options_;
  std::deque<pb::AnalyzeEvent> ready_;
  // The frame that is being cut, its message without data, and how far.
  std::optional<LayerFrame> frame_;
  pb::Layer header_;
  size_t offset_ = 0;
  std::map<DigestKey, Digest> digests_;
  std::optional<RunEnd> end_;
  absl::Time first_event_ = absl::InfiniteFuture();
  int64_t seq_ = 0;
  int64_t streamed_bytes_ = 0;
  int64_t generated_tokens_ = 0;
  bool started_ = false;
  bool done_ = false;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_EVENTS_EVENT_ENCODER_H_
