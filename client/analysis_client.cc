#include "client/analysis_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "client/health.grpc.pb.h"
#include "client/stream_checker.h"
#include "qkscope/v1/analysis.grpc.pb.h"
#include "qkscope/v1/error.pb.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

constexpr char kIncompleteUrl[] = "qkscope/incomplete_stream";
constexpr char kRequestInfoUrl[] = "type.googleapis.com/google.rpc.RequestInfo";

// Tokenize of a long text and Finished of a long prompt pass gRPC's 4 MiB.
constexpr int kMaxReceiveBytes = 256 << 20;

// Keeps a deadline inside the range of the system clock.
const absl::Duration kLongestTimeout = absl::Hours(24 * 3650);

// gRPC's codes are absl's, number for number.
absl::Status ToStatus(const grpc::Status& status) {
  absl::Status out(static_cast<absl::StatusCode>(status.error_code()),
                   status.error_message());
  v1::RpcStatus details;
  if (!details.ParseFromString(status.error_details())) return out;
  for (const google::protobuf::Any& any : details.details()) {
    v1::RequestInfo request;
    if (any.type_url() == kRequestInfoUrl &&
        request.ParseFromString(any.value()) && !request.request_id().empty()) {
      out.SetPayload(kRequestInfoUrl, absl::Cord(request.request_id()));
    }
  }
  return out;
}

absl::Status Incomplete(absl::StatusCode code, const std::string& why) {
  absl::Status status(code, absl::StrCat("incomplete stream: ", why));
  status.SetPayload(kIncompleteUrl, absl::Cord("1"));
  return status;
}

// How a stream that has begun and did not finish is reported. A status that
// tells why (cancelled, deadline, refused by the server) keeps its code; one
// that only says the connection is gone becomes an incomplete stream.
absl::Status BrokenOff(const grpc::Status& status, int64_t events) {
  switch (status.error_code()) {
    case grpc::StatusCode::OK:
    case grpc::StatusCode::UNKNOWN:
    case grpc::StatusCode::INTERNAL:
    case grpc::StatusCode::UNAVAILABLE:
      return Incomplete(
          absl::StatusCode::kDataLoss,
          absl::StrCat("it ended after ", events, " events without Finished (",
                       status.ok() ? "status OK" : status.error_message(),
                       ")"));
    default:
      return ToStatus(status);
  }
}

void Store(v1::AnalyzeEvent* event, AnalysisResult* result) {
  switch (event->event_case()) {
    case v1::AnalyzeEvent::kAccepted:
      result->request_id = event->accepted().request_id();
      break;
    case v1::AnalyzeEvent::kStarted:
      result->started = std::move(*event->mutable_started());
      break;
    case v1::AnalyzeEvent::kApplied:
      result->applied.push_back(std::move(*event->mutable_applied()));
      break;
    case v1::AnalyzeEvent::kToken:
      result->tokens.push_back(std::move(*event->mutable_token()));
      break;
    case v1::AnalyzeEvent::kComparison:
      result->comparisons.push_back(std::move(*event->mutable_comparison()));
      break;
    case v1::AnalyzeEvent::kLogits:
      result->logits.push_back(std::move(*event->mutable_logits()));
      break;
    case v1::AnalyzeEvent::kFinished:
      result->finished = std::move(*event->mutable_finished());
      break;
    default:
      break;
  }
}

absl::Status Take(v1::AnalyzeEvent* event, const AnalyzeObserver& observer,
                  StreamChecker* checker, AnalysisResult* result) {
  absl::StatusOr<std::optional<Tensor>> tensor = checker->Add(event);
  if (!tensor.ok()) {
    return Incomplete(tensor.status().code(),
                      std::string(tensor.status().message()));
  }
  if (tensor->has_value()) {
    if (observer.on_tensor) observer.on_tensor(event->seq(), **tensor);
    if (observer.keep_tensors) {
      result->tensors.push_back(std::move(**tensor));
    }
  }
  if (event->event_case() == v1::AnalyzeEvent::kLayer) return absl::OkStatus();
  if (observer.on_event) observer.on_event(*event);
  Store(event, result);
  return absl::OkStatus();
}

std::shared_ptr<grpc::ChannelCredentials> Credentials(
    const ClientOptions& options) {
  if (!options.tls.has_value()) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions ssl;
  ssl.pem_root_certs = options.tls->ca;
  ssl.pem_cert_chain = options.tls->certificate;
  ssl.pem_private_key = options.tls->key;
  return grpc::SslCredentials(ssl);
}

std::string FromEnvironmentOr(const char* name, std::string fallback) {
  const char* value = std::getenv(name);
  return value == nullptr || *value == '\0' ? std::move(fallback) : value;
}

}  // namespace

struct AnalysisClient::Stubs {
  std::string token;
  std::unique_ptr<v1::Analysis::Stub> analysis;
  std::unique_ptr<grpc::health::v1::Health::Stub> health;
};

// One call: its context, with token, deadline and cancellation.
class AnalysisClient::Call {
 public:
  Call(const Stubs& stubs, const CallOptions& options)
      : registration_(options.cancellation, [this] { context_.TryCancel(); }) {
    if (IsSendableToken(stubs.token)) {
      context_.AddMetadata("authorization",
                           absl::StrCat("Bearer ", stubs.token));
    }
    if (options.timeout != absl::InfiniteDuration()) {
      context_.set_deadline(std::chrono::system_clock::now() +
                            absl::ToChronoMicroseconds(
                                std::min(options.timeout, kLongestTimeout)));
    }
  }

  grpc::ClientContext* context() { return &context_; }

  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Unary(
      Stub* stub,
      grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                   Response*),
      const Request& request) {
    Response response;
    const grpc::Status status = (stub->*method)(&context_, request, &response);
    if (!status.ok()) return ToStatus(status);
    return response;
  }

 private:
  grpc::ClientContext context_;
  Cancellation::Registration registration_;  // ends before the context
};

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

bool IsIncompleteStream(const absl::Status& status) {
  return status.GetPayload(kIncompleteUrl).has_value();
}

std::string RequestIdOf(const absl::Status& status) {
  const auto id = status.GetPayload(kRequestInfoUrl);
  return id.has_value() ? std::string(*id) : "";
}

AnalysisClient::AnalysisClient(std::unique_ptr<Stubs> stubs)
    : stubs_(std::move(stubs)) {}

AnalysisClient::~AnalysisClient() = default;

std::unique_ptr<AnalysisClient> AnalysisClient::Create(
    const ClientOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxReceiveBytes);
  if (options.tls.has_value() && !options.tls->server_name.empty()) {
    arguments.SetSslTargetNameOverride(options.tls->server_name);
  }
  const std::shared_ptr<grpc::Channel> channel = grpc::CreateCustomChannel(
      options.server, Credentials(options), arguments);
  auto stubs = std::make_unique<Stubs>();
  stubs->token = options.token;
  stubs->analysis = v1::Analysis::NewStub(channel);
  stubs->health = grpc::health::v1::Health::NewStub(channel);
  return std::unique_ptr<AnalysisClient>(new AnalysisClient(std::move(stubs)));
}

absl::StatusOr<AnalysisResult> AnalysisClient::Analyze(
    const v1::AnalyzeRequest& request, const AnalyzeObserver& observer,
    const CallOptions& options) {
  Call call(*stubs_, options);
  auto reader = stubs_->analysis->Analyze(call.context(), request);
  AnalysisResult result;
  StreamChecker checker;
  v1::AnalyzeEvent event;
  bool begun = false;
  while (reader->Read(&event)) {
    begun = true;
    absl::Status status = Take(&event, observer, &checker, &result);
    if (!status.ok()) {
      call.context()->TryCancel();
      reader->Finish();
      return status;
    }
  }
  const grpc::Status status = reader->Finish();
  // The answer is whole once Finished has come; what the status says then
  // (a late cancel, a closing server) does not change it.
  if (checker.finished()) return result;
  if (begun || status.ok()) return BrokenOff(status, checker.events());
  return ToStatus(status);
}

absl::StatusOr<v1::GenerateFinished> AnalysisClient::Generate(
    const v1::GenerateRequest& request,
    const std::function<void(const v1::Token&)>& on_token,
    const CallOptions& options) {
  Call call(*stubs_, options);
  auto reader = stubs_->analysis->Generate(call.context(), request);
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
  if (events > 0 || status.ok()) return BrokenOff(status, events);
  return ToStatus(status);
}

absl::StatusOr<v1::ServerInfo> AnalysisClient::GetServerInfo(
    const CallOptions& options) {
  return Call(*stubs_, options)
      .Unary(stubs_->analysis.get(), &v1::Analysis::Stub::GetServerInfo,
             v1::GetServerInfoRequest());
}

absl::StatusOr<v1::ListModelsResponse> AnalysisClient::ListModels(
    const CallOptions& options) {
  return Call(*stubs_, options)
      .Unary(stubs_->analysis.get(), &v1::Analysis::Stub::ListModels,
             v1::ListModelsRequest());
}

absl::StatusOr<v1::ModelInfo> AnalysisClient::GetModel(
    const std::string& model, const CallOptions& options) {
  v1::GetModelRequest request;
  request.set_model(model);
  return Call(*stubs_, options)
      .Unary(stubs_->analysis.get(), &v1::Analysis::Stub::GetModel, request);
}

absl::StatusOr<v1::EstimateResponse> AnalysisClient::Estimate(
    const v1::AnalyzeRequest& request, const CallOptions& options) {
  return Call(*stubs_, options)
      .Unary(stubs_->analysis.get(), &v1::Analysis::Stub::Estimate, request);
}

absl::StatusOr<v1::ScoreResponse> AnalysisClient::Score(
    const v1::ScoreRequest& request, const CallOptions& options) {
  return Call(*stubs_, options)
      .Unary(stubs_->analysis.get(), &v1::Analysis::Stub::Score, request);
}

absl::StatusOr<v1::TokenizeResponse> AnalysisClient::Tokenize(
    const v1::TokenizeRequest& request, const CallOptions& options) {
  return Call(*stubs_, options)
      .Unary(stubs_->analysis.get(), &v1::Analysis::Stub::Tokenize, request);
}

absl::StatusOr<v1::DetokenizeResponse> AnalysisClient::Detokenize(
    const v1::DetokenizeRequest& request, const CallOptions& options) {
  return Call(*stubs_, options)
      .Unary(stubs_->analysis.get(), &v1::Analysis::Stub::Detokenize, request);
}

absl::Status AnalysisClient::CheckHealth(const std::string& model,
                                         const CallOptions& options) {
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(model);
  const auto response =
      Call(*stubs_, options)
          .Unary(stubs_->health.get(), &grpc::health::v1::Health::Stub::Check,
                 request);
  if (!response.ok()) return response.status();
  if (response->status() == grpc::health::v1::HealthCheckResponse::SERVING) {
    return absl::OkStatus();
  }
  return absl::UnavailableError(
      absl::StrCat("the server says ",
                   grpc::health::v1::HealthCheckResponse::ServingStatus_Name(
                       response->status())));
}

}  // namespace qk::client
