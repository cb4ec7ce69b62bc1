// Everything that is checked of a request, as pure functions: messages and a
// model's description in, engine specs and expanded requests out. After it
// nothing that a client sent can trip a check of the engine.
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

// What validation needs to know of a model.
struct ModelView {
  std::string name;
  const ModelConfig* config = nullptr;
  const Tokenizer* tokenizer = nullptr;  // nullptr: it has none
  std::shared_ptr<const Model> model;    // goes into ArmSpec
};

// Finds a loaded model. Errors name the model, not the field.
using ModelLookup =
    std::function<absl::StatusOr<ModelView>(const std::string& name)>;

struct ConvertContext {
  ModelLookup find_model;
  Limits limits;
};

struct ConvertedRequest {
  ModelView model;
  RunSpec spec;
  // Presets resolved, defaults filled in, input as token ids: converting it
  // again gives the same spec.
  pb::AnalyzeRequest expanded;
};

absl::StatusOr<ConvertedRequest> ConvertAnalyze(
    const pb::AnalyzeRequest& request, const ConvertContext& context);

// A request of AnalyzeMany with the input of one of its prompts.
absl::StatusOr<ConvertedRequest> ConvertPrompt(const pb::AnalyzeManySpec& spec,
                                               const pb::Input& input,
                                               const ConvertContext& context);

// What can be said of AnalyzeMany's first message before any prompt came.
absl::Status CheckManySpec(const pb::AnalyzeManySpec& spec,
                           const ConvertContext& context);

absl::StatusOr<ConvertedRequest> ConvertGenerate(
    const pb::GenerateRequest& request, const ConvertContext& context);

// INVALID_ARGUMENT `priority: ...` for a value that is none of the enum's.
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

// Checks a model's name as text and finds it.
absl::StatusOr<ModelView> FindModel(const std::string& name,
                                    const ConvertContext& context);
// Token ids of an input, all inside the vocabulary, with their place in the
// text. `prefix` comes before field names, e.g. "pairs[3].context.".
// `add_special`: used where neither the input nor a chat format says.
absl::StatusOr<std::vector<TokenSpan>> ConvertInput(
    const pb::Input& input, absl::string_view prefix, const ModelView& model,
    const Limits& limits, std::optional<bool> add_special);
absl::StatusOr<std::vector<int32_t>> CheckTokenIds(
    const google::protobuf::RepeatedField<int32_t>& ids,
    absl::string_view prefix, int vocab_size);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CONVERT_CONVERT_H_
