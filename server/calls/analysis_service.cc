#include "server/calls/analysis_service.h"

#include <optional>
#include <utility>

#include "engine/base/check.h"
#include "google/protobuf/descriptor.h"
#include "server/calls/call_record.h"
#include "server/calls/many_call.h"
#include "server/calls/model_info.h"
#include "server/calls/pages.h"
#include "server/calls/result_stream.h"
#include "server/calls/run_cost.h"
#include "server/calls/run_stream.h"
#include "server/calls/score_call.h"
#include "server/calls/unary_call.h"
#include "server/common/bad_field.h"
#include "server/common/limits.h"
#include "server/common/model_name.h"
#include "server/common/text.h"
#include "server/convert/convert.h"
#include "server/convert/convert_fields.h"
#include "server/events/raw_message.h"

namespace qk {
namespace {

// Fails with FAILED_PRECONDITION if the model takes no text.
absl::StatusOr<ModelView> FindTokenizing(const std::string& name,
                                         CallRecord* call) {
  QK_ASSIGN_OR_RETURN(ModelView model,
                      FindModel(name, call->convert_context()));
  call->model = model.name;
  if (model.tokenizer == nullptr) return TakesNoText(model);
  return model;
}

pb::TokenPiece PieceOf(const TokenSpan& token, const Tokenizer& tokenizer) {
  pb::TokenPiece out;
  out.set_id(token.id);
  if (token.id < tokenizer.vocab_size()) {
    out.set_piece(tokenizer.Piece(token.id));
    out.set_special(tokenizer.IsSpecial(token.id));
  }
  out.set_begin(static_cast<int>(token.begin));
  out.set_end(static_cast<int>(token.end));
  return out;
}

absl::Status TextTooLarge() {
  return BadField("token_ids", absl::StrCat("their text exceeds ",
                                            HumanBytes(kMaxAnswerBytes),
                                            "; send fewer at once"));
}

// Decodes no text that is far larger than an answer may be.
absl::StatusOr<std::string> DecodeSmall(const Tokenizer& tokenizer,
                                        const std::vector<int32_t>& ids,
                                        bool keep_special) {
  // A text may be shorter than its pieces: a space is a piece of 3 bytes in
  // SentencePiece's vocabularies.
  int64_t left = 4 * kMaxAnswerBytes;
  for (const int32_t id : ids) {
    if (!keep_special && tokenizer.IsSpecial(id)) continue;
    left -= static_cast<int64_t>(tokenizer.Piece(id).size());
    if (left < 0) return TextTooLarge();
  }
  QK_ASSIGN_OR_RETURN(std::string text, tokenizer.Decode(ids, keep_special));
  if (static_cast<int64_t>(text.size()) > kMaxAnswerBytes) {
    return TextTooLarge();
  }
  return text;
}

absl::StatusOr<ConvertedRequest> ParseAnalyze(const grpc::ByteBuffer& bytes,
                                              const ConvertContext& context,
                                              const KeepPrompt& keep_prompt) {
  pb::AnalyzeRequest request;
  QK_RETURN_IF_ERROR(ParseRaw(bytes, &request));
  // HasTrue would have found them among fewer fields.
  for (const auto& [set, field] :
       {std::pair(request.detach(), "detach"),
        std::pair(request.resumable(), "resumable")}) {
    if (set) return BadField(field, "comes after too many other fields");
  }
  keep_prompt(request.input());
  return ConvertAnalyze(request, context);
}

absl::StatusOr<ConvertedRequest> ParseGenerate(const grpc::ByteBuffer& bytes,
                                               const ConvertContext& context,
                                               const KeepPrompt& keep_prompt) {
  pb::GenerateRequest request;
  QK_RETURN_IF_ERROR(ParseRaw(bytes, &request));
  keep_prompt(request.input());
  return ConvertGenerate(request, context);
}

std::optional<grpc::ByteBuffer> ToAnalyzeEvent(pb::AnalyzeEvent* event) {
  return ToByteBuffer(*event);
}

// Generate streams only tokens and the end.
std::optional<grpc::ByteBuffer> ToGenerateEvent(pb::AnalyzeEvent* event) {
  pb::GenerateEvent to;
  if (event->has_token()) {
    *to.mutable_token() = std::move(*event->mutable_token());
    return ToByteBuffer(to);
  }
  if (!event->has_finished()) return std::nullopt;
  pb::Finished& finished = *event->mutable_finished();
  pb::GenerateFinished* out = to.mutable_finished();
  out->set_prompt_tokens(finished.prompt_tokens());
  if (!finished.arms().empty()) {
    *out->mutable_summary() = std::move(*finished.mutable_arms(0));
  }
  *out->mutable_times() = std::move(*finished.mutable_times());
  return ToByteBuffer(to);
}

}  // namespace

std::vector<std::string> AnalysisService::Methods() {
  std::vector<std::string> names;
  const auto* service = pb::AnalyzeRequest::descriptor()->file()->service(0);
  names.reserve(service->method_count());
  for (int i = 0; i < service->method_count(); ++i) {
    names.push_back(service->method(i)->name());
  }
  return names;
}

grpc::ServerUnaryReactor* AnalysisService::GetServerInfo(
    Context* context, const grpc::ByteBuffer* bytes,
    grpc::ByteBuffer* response) {
  return Answer<pb::GetServerInfoRequest, pb::ServerInfo>(
      core_->call, context, "GetServerInfo", Budget::kNotNeeded, bytes,
      response, [this](CallRecord*, const auto&, pb::ServerInfo* info) {
        *info = ServerInfoOf(*core_->run.server, *core_->call.limits,
                             core_->results.store);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* AnalysisService::ListModels(
    Context* context, const grpc::ByteBuffer* bytes,
    grpc::ByteBuffer* response) {
  return Answer<pb::ListModelsRequest, pb::ListModelsResponse>(
      core_->call, context, "ListModels", Budget::kNotNeeded, bytes, response,
      [this](CallRecord* call, const pb::ListModelsRequest& request,
             pb::ListModelsResponse* list) -> absl::Status {
        QK_RETURN_IF_ERROR(CheckOffset(request.offset()));
        const std::vector<ModelEntry> models =
            core_->call.registry->List(*call->user());
        const BackendInfo& backend = core_->run.server->backend;
        const auto next = FillPage(
            static_cast<int>(models.size()), request.offset(),
            [&](int i) { return ModelInfoOf(models[i], backend); },
            list->mutable_models());
        if (next.has_value()) list->set_next_offset(*next);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* AnalysisService::GetModel(
    Context* context, const grpc::ByteBuffer* bytes,
    grpc::ByteBuffer* response) {
  return Answer<pb::GetModelRequest, pb::ModelInfo>(
      core_->call, context, "GetModel", Budget::kNotNeeded, bytes, response,
      [this](CallRecord* call, const pb::GetModelRequest& request,
             pb::ModelInfo* info) -> absl::Status {
        QK_RETURN_IF_ERROR(CheckModelName("model", request.model()));
        QK_ASSIGN_OR_RETURN(
            const ModelEntry entry,
            core_->call.registry->Get(request.model(), *call->user()));
        call->model = entry.name;
        *info = ModelInfoOf(entry, core_->run.server->backend);
        return absl::OkStatus();
      });
}

AnalysisService::RawStream* AnalysisService::Analyze(
    Context* context, const grpc::ByteBuffer* bytes) {
  if (HasTrue(*bytes, {pb::AnalyzeRequest::kDetachFieldNumber,
                       pb::AnalyzeRequest::kResumableFieldNumber})) {
    return ResultStream::Analyze(core_, context, *bytes);
  }
  return RunStream::Start(&core_->call, &core_->run, context, "Analyze",
                          ActivationSource::kAnalyze, *bytes, ToAnalyzeEvent,
                          ParseAnalyze);
}

AnalysisService::RawBidi* AnalysisService::AnalyzeMany(Context* context) {
  return ManyCall::Start(&core_->call, &core_->run, context);
}

grpc::ServerUnaryReactor* AnalysisService::Score(Context* context,
                                                 const grpc::ByteBuffer* bytes,
                                                 grpc::ByteBuffer* response) {
  return ScoreCall::Start(&core_->call, &core_->run, context, *bytes, response);
}

AnalysisService::RawStream* AnalysisService::Generate(
    Context* context, const grpc::ByteBuffer* bytes) {
  return RunStream::Start(&core_->call, &core_->run, context, "Generate",
                          ActivationSource::kGenerate, *bytes, ToGenerateEvent,
                          ParseGenerate);
}

grpc::ServerUnaryReactor* AnalysisService::Estimate(
    Context* context, const grpc::ByteBuffer* bytes,
    grpc::ByteBuffer* response) {
  return Answer<pb::AnalyzeRequest, pb::EstimateResponse>(
      core_->call, context, "Estimate", Budget::kNeeded, bytes, response,
      [this](CallRecord* call, const pb::AnalyzeRequest& request,
             pb::EstimateResponse* out) -> absl::Status {
        call->KeepPrompt(request.input());
        QK_ASSIGN_OR_RETURN(ConvertedRequest converted,
                            ConvertAnalyze(request, call->convert_context()));
        call->model = converted.model.name;
        QK_ASSIGN_OR_RETURN(
            const RunCost cost,
            CostOf(converted.spec, converted.expanded, *core_->call.limits));
        *out->mutable_estimate() =
            EstimatesOf(cost, static_cast<int>(converted.spec.tokens.size()),
                        core_->run.scheduler->state());
        *out->mutable_expanded() = std::move(converted.expanded);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* AnalysisService::Tokenize(
    Context* context, const grpc::ByteBuffer* bytes,
    grpc::ByteBuffer* response) {
  return Answer<pb::TokenizeRequest, pb::TokenizeResponse>(
      core_->call, context, "Tokenize", Budget::kNeeded, bytes, response,
      [this](CallRecord* call, const pb::TokenizeRequest& request,
             pb::TokenizeResponse* out) -> absl::Status {
        call->KeepPrompt(request.input());
        QK_RETURN_IF_ERROR(CheckOffset(request.offset()));
        QK_ASSIGN_OR_RETURN(const ModelView model,
                            FindTokenizing(request.model(), call));
        QK_ASSIGN_OR_RETURN(const auto tokens,
                            ConvertInput(request.input(), "input", model,
                                         *core_->call.limits, std::nullopt));
        const int count = static_cast<int>(tokens.size());
        const auto next = FillPage(
            count, request.offset(),
            [&](int i) { return PieceOf(tokens[i], *model.tokenizer); },
            out->mutable_tokens());
        if (next.has_value()) out->set_next_offset(*next);
        out->set_total_tokens(count);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* AnalysisService::Detokenize(
    Context* context, const grpc::ByteBuffer* bytes,
    grpc::ByteBuffer* response) {
  return Answer<pb::DetokenizeRequest, pb::DetokenizeResponse>(
      core_->call, context, "Detokenize", Budget::kNeeded, bytes, response,
      [](CallRecord* call, const pb::DetokenizeRequest& request,
         pb::DetokenizeResponse* out) -> absl::Status {
        QK_ASSIGN_OR_RETURN(const ModelView model,
                            FindTokenizing(request.model(), call));
        QK_ASSIGN_OR_RETURN(const auto ids,
                            CheckTokenIds(request.token_ids(), "token_ids",
                                          model.tokenizer->vocab_size()));
        QK_ASSIGN_OR_RETURN(
            *out->mutable_text(),
            DecodeSmall(*model.tokenizer, ids, request.keep_special()));
        return absl::OkStatus();
      });
}

}  // namespace qk
