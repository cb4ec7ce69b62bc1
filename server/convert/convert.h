// Validates and converts requests with pure functions: messages and a model's
// description go in, engine specs and expanded requests come out. No request
// that passes can trip a check of the engine.
#ifndef QKSCOPE_SERVER_CONVERT_CONVERT_H_
#define QKSCOPE_SERVER_CONVERT_CONVERT_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/types/model_config.h"
#include "engine/types/spec.h"
#include "qkscope/v1/analysis.pb.h"
#include "server/common/limits.h"
#include "server/common/pb.h"
#include "server/common/priority.h"

namespace qk {

// What validation needs to know about a model.
struct ModelView {
  std::string name;
  const ModelConfig* config = nullptr;
  const Tokenizer* tokenizer = nullptr;  // nullptr: the model takes no text,
  std::string text_problem;              // because of this
  std::shared_ptr<const Model> model;    // copied to ArmSpec
};

// Finds a loaded model. Its errors name the model but no field.
using ModelLookup =
    std::function<absl::StatusOr<ModelView>(const std::string& name)>;

// FAILED_PRECONDITION: `model 'x' takes no text (reason)`.
absl::Status TakesNoText(const ModelView& model);

struct ConvertContext {
  ModelLookup find_model;
  Limits limits;
};

struct ConvertedRequest {
  ModelView model;
  RunSpec spec;
  // The request with presets resolved, defaults filled in and the input as
  // token ids. Converting it again gives the same spec.
  pb::AnalyzeRequest expanded;
};

absl::StatusOr<ConvertedRequest> ConvertAnalyze(
    const pb::AnalyzeRequest& request, const ConvertContext& context);

// Converts AnalyzeMany's spec with the input of one prompt.
absl::StatusOr<ConvertedRequest> ConvertPrompt(const pb::AnalyzeManySpec& spec,
                                               const pb::Input& input,
                                               const ConvertContext& context);

// Checks what can be checked of AnalyzeMany's spec before the first prompt.
absl::Status CheckManySpec(const pb::AnalyzeManySpec& spec,
                           const ConvertContext& context);

absl::StatusOr<ConvertedRequest> ConvertGenerate(
    const pb::GenerateRequest& request, const ConvertContext& context);

// INVALID_ARGUMENT `priority: ...` for a value that the enum does not have.
absl::Status CheckPriority(pb::Priority priority);
Priority PriorityOf(pb::Priority priority);

// One run per pair.
struct ConvertedScore {
  ModelView model;
  Priority priority = Priority::kInteractive;
  std::vector<RunSpec> specs;
  std::vector<int> context_tokens;
};
absl::StatusOr<ConvertedScore> ConvertScore(const pb::ScoreRequest& request,
                                            const ConvertContext& context);

// Checks the form of a model's name and finds the model.
absl::StatusOr<ModelView> FindModel(const std::string& name,
                                    const ConvertContext& context);
// Returns an input's token ids, all within the vocabulary, and their byte
// offsets in the text. `field`: its path, e.g. "pairs[3].context".
// `add_special` is the default for text that does not set add_special_tokens.
absl::StatusOr<std::vector<TokenSpan>> ConvertInput(
    const pb::Input& input, absl::string_view field, const ModelView& model,
    const Limits& limits, std::optional<bool> add_special);
absl::StatusOr<std::vector<int32_t>> CheckTokenIds(
    const google::protobuf::RepeatedField<int32_t>& ids,
    absl::string_view field, int vocab_size);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CONVERT_CONVERT_H_
