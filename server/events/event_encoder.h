// Encodes the output of a run as AnalyzeEvents: numbers them, splits payloads
// into chunks with checksums, and keeps the digests for the manifest.
#ifndef QKSCOPE_SERVER_EVENTS_EVENT_ENCODER_H_
#define QKSCOPE_SERVER_EVENTS_EVENT_ENCODER_H_

#include <compare>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "absl/time/time.h"
#include "engine/base/sha256.h"
#include "qkscope/v1/analysis.pb.h"
#include "server/common/pb.h"
#include "server/events/frame_queue.h"

namespace qk {

// Events that may be large are split at this size, well below the 4 MiB that
// gRPC clients accept by default.
inline constexpr int64_t kMaxEventBytes = 1 << 20;

pb::Statistics StatisticsToProto(const Statistics& statistics);
// Converts a frame without its data, offset and checksum. `spec` is the run's
// expanded request.
pb::Layer LayerToProto(const LayerFrame& frame, const pb::AnalyzeRequest& spec);

class EventEncoder {
 public:
  struct Options {
    std::string request_id;
    // What is known before the run: model, backend, tokens, the expanded
    // request.
    pb::Manifest manifest;
    pb::Estimates estimate;
    // Returns how many seconds the request waited before it first ran.
    std::function<double()> queue_seconds;
  };
  explicit EventEncoder(Options options);

  // Takes the next item. Call it only after Next has returned false, and not
  // with a RunEnd whose status is an error.
  void Feed(StreamItem item);
  // Writes the next event; returns false if another item is needed.
  bool Next(pb::AnalyzeEvent* event);
  // Payload bytes and generated tokens so far.
  int64_t streamed_bytes() const { return streamed_bytes_; }
  int64_t generated_tokens() const { return generated_tokens_; }
  // From the first event until Finished, or until now; 0 before.
  double stream_seconds() const;
  // Whether Next has returned Finished.
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

  // The values of one arm that are not finite.
  struct NonFinite {
    int64_t captured = 0;
    std::set<int> logits;  // positions
    int64_t kl = 0;
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
  void NextLogits(pb::AnalyzeEvent* event);
  void UpdateDigest();
  void FillArm(int index, const ArmSummary& arm, pb::ArmSummary* out);
  void FillFinished(const RunEnd& end, pb::Finished* finished);
  const std::string& ArmName(int arm) const;

  Options options_;
  std::deque<pb::AnalyzeEvent> ready_;
  // The frame that is being split, its message without data, and the offset of
  // the next chunk.
  std::optional<LayerFrame> frame_;
  pb::Layer header_;
  size_t offset_ = 0;
  // The logits that are being split, and the next of their positions.
  std::optional<ArmLogits> logits_;
  size_t next_position_ = 0;
  std::map<DigestKey, Digest> digests_;
  std::map<int, NonFinite> non_finite_;  // by arm
  std::optional<RunEnd> end_;
  absl::Time first_event_ = absl::InfiniteFuture();
  absl::Time last_event_ = absl::InfiniteFuture();  // Finished
  int64_t seq_ = 0;
  int64_t streamed_bytes_ = 0;
  int64_t generated_tokens_ = 0;
  bool started_ = false;
  bool done_ = false;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_EVENTS_EVENT_ENCODER_H_
