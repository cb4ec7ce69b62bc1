// Checks an Analyze stream event by event: sequence numbers without gaps, the
// guaranteed order, complete tensors with the right checksums, and at the end
// that the manifest's digests match what arrived.
//
// DATA_LOSS describes the first violation.
#ifndef QKSCOPE_CLIENT_CPP_STREAM_CHECKER_H_
#define QKSCOPE_CLIENT_CPP_STREAM_CHECKER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cpp/analysis_result.h"
#include "engine/base/sha256.h"

namespace qk::client {

class StreamChecker {
 public:
  // Checks the next event and moves its data out of it. Returns a tensor if the
  // event completes one.
  absl::StatusOr<std::optional<Tensor>> Add(qkscope::v1::AnalyzeEvent* event);

  bool started() const { return started_; }
  bool finished() const { return finished_; }
  // Events with a sequence number so far.
  int64_t events() const { return next_seq_; }

 private:
  // (arm, image, phase, layer, point, stage): what one digest in the manifest
  // covers. image is -1 for the text.
  using DigestKey = std::tuple<std::string, int, int, int, int, int>;
  // (arm, image, phase, step); step is -1 if there is none.
  using StepKey = std::tuple<std::string, int, int, int>;

  struct Digest {
    int64_t bytes = 0;
    uint32_t crc32c = 0;
    Sha256 sha256;
  };

  absl::Status CheckStarted(const qkscope::v1::Started& started);
  absl::Status CheckArm(const std::string& arm) const;
  absl::Status CheckToken(const qkscope::v1::Token& token);
  absl::Status CheckOrder(const qkscope::v1::Layer& layer);
  absl::StatusOr<std::optional<Tensor>> AddChunk(qkscope::v1::Layer* layer);
  absl::Status CheckFinished(const qkscope::v1::AnalyzeEvent& event);
  absl::Status CheckDigest(const qkscope::v1::PayloadDigest& digest);
  void AddToDigest(const Tensor& tensor);

  int64_t next_seq_ = 0;
  bool started_ = false;
  bool finished_ = false;
  bool hash_payloads_ = true;
  int images_ = 0;  // of the request
  std::set<std::string> arms_;
  std::set<std::string> compared_;         // arms whose Comparison has arrived
  std::map<std::string, int> last_token_;  // step of the last token, by arm
  std::map<StepKey, int> last_layer_;
  std::map<std::string, Tensor> partial_;  // by name
  std::set<std::string> complete_;         // names
  std::map<DigestKey, Digest> digests_;
  int64_t payload_bytes_ = 0;
};

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_CPP_STREAM_CHECKER_H_
