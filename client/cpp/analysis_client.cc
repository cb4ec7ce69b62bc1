#include "client/cpp/analysis_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/analyze_stream.h"
#include "client/cpp/channels.h"
#include "client/cpp/client_call.h"
#include "client/cpp/many_stream.h"
#include "client/cpp/retry.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

std::string FromEnvironmentOr(const char* name, std::string fallback) {
  const char* value = std::getenv(name);
  return value == nullptr || *value == '\0' ? std::move(fallback) : value;
}

}  // namespace

ClientOptions ClientOptions::FromEnvironment() {
  ClientOptions options;
  options.server = FromEnvironmentOr("QKSCOPE_SERVER", options.server);
  options.token = FromEnvironmentOr("QKSCOPE_TOKEN", "");
  return options;
}

bool IsSendableToken(const std::string& token) {
  return !token.empty() && std::all_of(token.begin(), token.end(), [](char c) {
    return c > ' ' && c <= '~';
  });
}

AnalysisClient::AnalysisClient(std::unique_ptr<Channels> channels)
    : channels_(std::move(channels)) {}

AnalysisClient::~AnalysisClient() = default;

namespace {

// Asks one server for all parts of a list, and returns them as one answer.
template <typename Service, typename Request, typename Response>
absl::StatusOr<Response> AllParts(
    Channels* channels, const CallOptions& options,
    grpc::Status (Service::*method)(grpc::ClientContext*, const Request&,
                                    Response*),
    Request request) {
  Response all;
  std::shared_ptr<const ClientStubs> stubs;
  for (;;) {
    absl::StatusOr<Response> part = [&] {
      if (stubs != nullptr)
        return ClientCall(stubs, options).Unary(method, request);
      ClientCall first(channels, options);
      if (first.status().ok()) stubs = first.stubs();
      return first.Unary(method, request);
    }();
    if (!part.ok()) return part.status();
    const bool more = part->has_next_offset();
    const int next = part->next_offset();
    all.MergeFrom(*part);
    all.clear_next_offset();
    if (!more) return all;
    if (next <= request.offset()) {
      return absl::InternalError(absl::StrCat("the server's next_offset ", next,
                                              " follows offset ",
                                              request.offset()));
    }
    request.set_offset(next);
  }
}

}  // namespace

std::unique_ptr<AnalysisClient> AnalysisClient::Create(
    const ClientOptions& options) {
  return std::unique_ptr<AnalysisClient>(
      new AnalysisClient(Channels::Create(options)));
}

absl::StatusOr<AnalysisResult> AnalysisClient::Analyze(
    const v1::AnalyzeRequest& request, const AnalyzeObserver& observer,
    const CallOptions& options) {
  return WithRetries(options, [&] {
    return AnalyzeStream(channels_.get(), observer, options).Analyze(request);
  });
}

absl::StatusOr<AnalysisResult> AnalysisClient::FetchResult(
    const std::string& request_id, const AnalyzeObserver& observer,
    const CallOptions& options) {
  return WithRetries(options, [&] {
    return AnalyzeStream(channels_.get(), observer, options).Resume(request_id);
  });
}

absl::StatusOr<ManyResult> AnalysisClient::AnalyzeMany(
    const v1::AnalyzeManySpec& spec,
    const std::vector<v1::AnalyzeManyPrompt>& prompts,
    const ManyObserver& observer, const CallOptions& options) {
  return WithRetries(options, [&] {
    return ManyStream(channels_.get(), spec, prompts, observer, options).Run();
  });
}

absl::StatusOr<std::string> AnalysisClient::Detach(v1::AnalyzeRequest request,
                                                   const CallOptions& options) {
  request.set_detach(true);
  return WithRetries(options, [&]() -> absl::StatusOr<std::string> {
    ClientCall call(channels_.get(), options);
    if (!call.status().ok()) return call.status();
    const auto reader = call.analysis()->Analyze(call.context(), request);
    v1::AnalyzeEvent event;
    std::string id;
    while (reader->Read(&event)) {
      if (event.has_accepted()) id = event.accepted().request_id();
    }
    const grpc::Status status = reader->Finish();
    if (!status.ok()) return ToStatus(status);
    if (id.empty()) return BrokenStreamError(status, 0);
    return id;
  });
}

absl::StatusOr<v1::GetUsageResponse> AnalysisClient::GetUsage(
    bool all_users, const CallOptions& options) {
  v1::GetUsageRequest request;
  request.set_all_users(all_users);
  return AllParts(channels_.get(), options, &v1::Analysis::Stub::GetUsage,
                  request);
}

absl::StatusOr<v1::ListRequestsResponse> AnalysisClient::ListRequests(
    bool all_users, const CallOptions& options) {
  v1::ListRequestsRequest request;
  request.set_all_users(all_users);
  return AllParts(channels_.get(), options, &v1::Analysis::Stub::ListRequests,
                  request);
}

absl::StatusOr<v1::CancelResponse> AnalysisClient::Cancel(
    const std::string& request_id, const CallOptions& options) {
  v1::CancelRequest request;
  request.set_request_id(request_id);
  return ClientCall(channels_.get(), options, request_id)
      .Unary(&v1::Analysis::Stub::Cancel, request);
}

absl::StatusOr<v1::GenerateFinished> AnalysisClient::Generate(
    const v1::GenerateRequest& request,
    const std::function<void(const v1::Token&)>& on_token,
    const CallOptions& options) {
  ClientCall call(channels_.get(), options);
  if (!call.status().ok()) return call.status();
  auto reader = call.analysis()->Generate(call.context(), request);
  v1::GenerateEvent event;
  int64_t events = 0;
  std::optional<v1::GenerateFinished> finished;
  while (reader->Read(&event)) {
    ++events;
    if (event.has_token() && on_token) on_token(event.token());
    if (event.has_finished()) finished = event.finished();
  }
  const grpc::Status status = reader->Finish();
  if (finished.has_value()) return *std::move(finished);
  if (events > 0 || status.ok()) return BrokenStreamError(status, events);
  return ToStatus(status);
}

absl::StatusOr<v1::ServerInfo> AnalysisClient::GetServerInfo(
    const CallOptions& options) {
  return ClientCall(channels_.get(), options)
      .Unary(&v1::Analysis::Stub::GetServerInfo, v1::GetServerInfoRequest());
}

absl::StatusOr<v1::ListModelsResponse> AnalysisClient::ListModels(
    const CallOptions& options) {
  return AllParts(channels_.get(), options, &v1::Analysis::Stub::ListModels,
                  v1::ListModelsRequest());
}

absl::StatusOr<v1::ModelInfo> AnalysisClient::GetModel(
    const std::string& model, const CallOptions& options) {
  v1::GetModelRequest request;
  request.set_model(model);
  return ClientCall(channels_.get(), options)
      .Unary(&v1::Analysis::Stub::GetModel, request);
}

absl::StatusOr<v1::EstimateResponse> AnalysisClient::Estimate(
    const v1::AnalyzeRequest& request, const CallOptions& options) {
  return ClientCall(channels_.get(), options)
      .Unary(&v1::Analysis::Stub::Estimate, request);
}

absl::StatusOr<v1::ScoreResponse> AnalysisClient::Score(
    const v1::ScoreRequest& request, const CallOptions& options) {
  return ClientCall(channels_.get(), options)
      .Unary(&v1::Analysis::Stub::Score, request);
}

absl::StatusOr<v1::TokenizeResponse> AnalysisClient::Tokenize(
    const v1::TokenizeRequest& request, const CallOptions& options) {
  return AllParts(channels_.get(), options, &v1::Analysis::Stub::Tokenize,
                  request);
}

absl::StatusOr<v1::DetokenizeResponse> AnalysisClient::Detokenize(
    const v1::DetokenizeRequest& request, const CallOptions& options) {
  return ClientCall(channels_.get(), options)
      .Unary(&v1::Analysis::Stub::Detokenize, request);
}

absl::StatusOr<v1::ModelInfo> AnalysisClient::LoadModel(
    const v1::LoadModelRequest& request,
    const std::function<void(const v1::LoadProgress&)>& on_progress,
    const CallOptions& options) {
  ClientCall call(channels_.get(), options);
  if (!call.status().ok()) return call.status();
  const auto reader = call.stubs()->admin->LoadModel(call.context(), request);
  v1::LoadModelEvent event;
  int64_t events = 0;
  std::optional<v1::ModelInfo> model;
  while (reader->Read(&event)) {
    ++events;
    if (event.has_progress() && on_progress) on_progress(event.progress());
    if (event.has_model()) model = event.model();
  }
  const grpc::Status status = reader->Finish();
  if (model.has_value()) return *std::move(model);
  return status.ok() ? BrokenStreamError(status, events) : ToStatus(status);
}

absl::Status AnalysisClient::UnloadModel(const std::string& model,
                                         const CallOptions& options) {
  v1::UnloadModelRequest request;
  request.set_name(model);
  return ClientCall(channels_.get(), options)
      .Unary(&v1::ModelAdmin::Stub::UnloadModel, request)
      .status();
}

absl::StatusOr<v1::ReloadConfigResponse> AnalysisClient::ReloadConfig(
    const CallOptions& options) {
  return ClientCall(channels_.get(), options)
      .Unary(&v1::ModelAdmin::Stub::ReloadConfig, v1::ReloadConfigRequest());
}

absl::StatusOr<v1::Baseline> AnalysisClient::SaveBaseline(
    const std::string& model, const CallOptions& options) {
  v1::SaveBaselineRequest request;
  request.set_model(model);
  return ClientCall(channels_.get(), options)
      .Unary(&v1::ModelAdmin::Stub::SaveBaseline, request);
}

absl::StatusOr<v1::ListBaselinesResponse> AnalysisClient::ListBaselines(
    const std::string& model, const CallOptions& options) {
  v1::ListBaselinesRequest request;
  request.set_model(model);
  return AllParts(channels_.get(), options,
                  &v1::ModelAdmin::Stub::ListBaselines, std::move(request));
}

absl::Status AnalysisClient::RemoveBaseline(const std::string& model,
                                            const CallOptions& options) {
  v1::RemoveBaselineRequest request;
  request.set_model(model);
  return ClientCall(channels_.get(), options)
      .Unary(&v1::ModelAdmin::Stub::RemoveBaseline, request)
      .status();
}

absl::Status AnalysisClient::CheckHealth(const std::string& model,
                                         const CallOptions& options) {
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(model);
  const auto response =
      ClientCall(channels_.get(), options)
          .Unary(&grpc::health::v1::Health::Stub::Check, request);
  if (!response.ok()) return response.status();
  if (response->status() == grpc::health::v1::HealthCheckResponse::SERVING) {
    return absl::OkStatus();
  }
  return absl::UnavailableError(
      absl::StrCat("the server reports ",
                   grpc::health::v1::HealthCheckResponse::ServingStatus_Name(
                       response->status())));
}

}  // namespace qk::client
