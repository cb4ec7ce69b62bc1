// The flags that describe a request: model, prompt, arms, capture, generation.
#ifndef QKSCOPE_CLIENT_QKCTL_FLAGS_REQUEST_FLAGS_H_
#define QKSCOPE_CLIENT_QKCTL_FLAGS_REQUEST_FLAGS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/qkctl/flags/flags.h"
#include "qkscope/v1/analysis.pb.h"

namespace qk::client {

class InputFlags {
 public:
  void AddTo(FlagSet* flags);
  // Reads the prompt and the images.
  absl::StatusOr<qkscope::v1::Input> Build() const;
  bool any() const;
  // Appends the files of --image.
  absl::Status AddImages(qkscope::v1::Input* input) const;

 private:
  absl::StatusOr<qkscope::v1::Input> BuildPrompt() const;

  std::optional<std::string> prompt_, prompt_file_, token_ids_, chat_, system_;
  std::optional<std::string> special_tokens_;
  std::vector<std::string> images_;
  std::optional<int32_t> min_pixels_, max_pixels_;
  bool parse_special_ = false;
};

class ArmFlags {
 public:
  void AddTo(FlagSet* flags);
  // Fills `request` from --arms FILE, then appends each --arm.
  absl::Status Build(qkscope::v1::AnalyzeRequest* request) const;
  const std::vector<std::string>& arms() const { return arms_; }

 private:
  std::vector<std::string> arms_;
  std::optional<std::string> file_;
};

class CaptureFlags {
 public:
  void AddTo(FlagSet* flags);
  absl::Status Build(qkscope::v1::AnalyzeRequest* request) const;

 private:
  absl::Status BuildLists(qkscope::v1::Capture* capture) const;
  absl::Status BuildEnums(qkscope::v1::Capture* capture) const;

  std::optional<std::string> points_, layers_, vision_layers_, heads_,
      positions_;
  std::optional<std::string> form_, stage_, phase_, raw_dtype_;
  std::optional<double> lambda_;
  std::optional<int32_t> top_n_;
  bool raw_sha256_ = false;
};

class GenerateFlags {
 public:
  // `default_new_tokens` appears in the help text only.
  void AddTo(FlagSet* flags, const std::string& default_new_tokens);
  bool any() const;
  absl::StatusOr<qkscope::v1::GenerateSpec> Build() const;

 private:
  std::optional<int32_t> max_new_tokens_, top_k_;
  std::optional<double> temperature_, top_p_;
  std::optional<uint64_t> seed_;
  std::vector<std::string> stop_;
  std::optional<std::string> stop_ids_;
  bool ignore_eos_ = false;
};

// The flags of a whole Analyze or Estimate or, without a prompt, of
// AnalyzeMany's spec.
class RequestFlags {
 public:
  enum class Prompt { kOne, kNone };

  explicit RequestFlags(Prompt prompt = Prompt::kOne) : prompt_(prompt) {}

  void AddTo(FlagSet* flags);
  absl::StatusOr<qkscope::v1::AnalyzeRequest> Build() const;
  // The values of --arm, unparsed.
  const std::vector<std::string>& arms() const { return arms_.arms(); }

 private:
  absl::Status ChooseComparison(qkscope::v1::AnalyzeRequest* request) const;
  absl::Status BuildInput(qkscope::v1::AnalyzeRequest* request) const;

  Prompt prompt_;
  std::optional<std::string> model_, baseline_, client_tag_, priority_;
  std::optional<int32_t> logits_;
  bool no_compare_ = false;
  InputFlags input_;
  ArmFlags arms_;
  CaptureFlags capture_;
  GenerateFlags generate_;
};

// The explanation of --arm in --help.
extern const char kArmHelp[];

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_FLAGS_REQUEST_FLAGS_H_
