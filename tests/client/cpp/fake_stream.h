// A synthetic but valid Analyze stream, which tests send unchanged or break.
#ifndef QKSCOPE_TESTS_CLIENT_CPP_FAKE_STREAM_H_
#define QKSCOPE_TESTS_CLIENT_CPP_FAKE_STREAM_H_

#include <map>
#include <set>
#include <string>
#include <vector>

#include "qkscope/v1/analysis.pb.h"

namespace qk::client {

struct FakeStreamOptions {
  std::vector<std::string> arms = {"clean", "top_k:1"};
  // Arms that disrupt nothing.
  std::set<std::string> clean_arms = {"clean"};
  int layers = 2;
  // Each image has one layer of a vision tower, before the text's layers.
  int images = 0;
  int heads = 2, head_dim = 4;
  // Bytes per chunk of a payload.
  size_t chunk_bytes = 1 << 20;
  // Added to every value, so that two runs differ.
  float shift = 0;
  std::map<std::string, float> shift_of_arm;  // also added
  std::vector<std::string> kernel_ids = {"fake-kernel"};
  qkscope::v1::CaptureForm form = qkscope::v1::NORM_OVER_TOKENS;
};

// Returns Accepted, Started, layers of hook_rot_q, hook_rot_k and hook_v per
// arm, Applied, Comparison, and Finished with a manifest. In head 0 of Q, dim 3
// is massive.
std::vector<qkscope::v1::AnalyzeEvent> FakeStream(
    const FakeStreamOptions& options = {});

// Returns the index of the first event of this kind.
size_t IndexOf(const std::vector<qkscope::v1::AnalyzeEvent>& events,
               qkscope::v1::AnalyzeEvent::EventCase kind);

}  // namespace qk::client

#endif  // QKSCOPE_TESTS_CLIENT_CPP_FAKE_STREAM_H_
