// The C++ client of qkscope.v1.Analysis and ModelAdmin. Results are plain data
// (messages and tensors); failures are absl::Status with the server's code and
// message.
//
//   auto client = AnalysisClient::Create(ClientOptions::FromEnvironment());
//   auto result = client->Analyze(request);   // checked, tensors whole
//
// Thread-safe.
#ifndef QKSCOPE_CLIENT_CPP_ANALYSIS_CLIENT_H_
#define QKSCOPE_CLIENT_CPP_ANALYSIS_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cpp/analysis_result.h"
#include "client/cpp/cancellation.h"
#include "qkscope/v1/admin.pb.h"
#include "qkscope/v1/analysis.pb.h"

namespace qk::client {

// All PEM.
struct ClientTls {
  std::string ca;  // whom to trust; empty: the system's
  // Shown to a server that asks for it; both or none.
  std::string certificate;
  std::string key;
  // The name that the server's certificate must have; empty: that of `server`.
  std::string server_name;
};

struct ClientOptions {
  std::string server = "127.0.0.1:7461";
  // Sent as `authorization: Bearer TOKEN` when not empty; one that cannot be
  // sent (IsSendableToken) is as none.
  std::string token;
  std::optional<ClientTls> tls;  // absent: plaintext

  // QKSCOPE_SERVER and QKSCOPE_TOKEN where set.
  static ClientOptions FromEnvironment();
};

// Whether it is printable ASCII without spaces.
bool IsSendableToken(const std::string& token);

struct CallOptions {
  // DEADLINE_EXCEEDED after it. Infinite: the server's own limit.
  absl::Duration timeout = absl::InfiniteDuration();
  Cancellation* cancellation = nullptr;
  // Of a call that got no answer yet: the server cannot be reached, or says
  // that it is busy and when to come back. Waits in between, longer each time.
  int retries = 0;
};

// Called on the calling thread while a stream runs; each may be empty.
struct AnalyzeObserver {
  // Every event but Layer, as it came.
  std::function<void(const qkscope::v1::AnalyzeEvent&)> on_event;
  // Each tensor once it is whole; `seq` is of its last chunk.
  std::function<void(int64_t seq, const Tensor&)> on_tensor;
  // False: AnalysisResult::tensors stays empty, for streams too big to keep.
  bool keep_tensors = true;
};

// Of AnalyzeMany: as AnalyzeObserver, with the prompt's id.
struct ManyObserver {
  std::function<void(const std::string& id, const qkscope::v1::AnalyzeEvent&)>
      on_event;
  std::function<void(const std::string& id, int64_t seq, const Tensor&)>
      on_tensor;
  // A prompt's end, in the order of the prompts: its result, or why there is
  // none; the others go on.
  std::function<void(const std::string& id, absl::StatusOr<AnalysisResult>)>
      on_prompt;
  bool keep_tensors = true;
};

struct ManyResult {
  int64_t failed = 0;  // prompts
  // Per (arm, phase, layer, point, stage) over the prompts that did not fail;
  // empty unless AnalyzeManySpec::aggregate was set.
  std::vector<qkscope::v1::AggregateEntry> aggregate;
};

// Whether a call failed because its stream broke off, or broke a promise, after
// it had begun: an answer that must not be used.
bool IsIncompleteStream(const absl::Status& status);

// By which the server's log knows the call that failed; empty when the failure
// is not the server's.
std::string RequestIdOf(const absl::Status& status);

struct ClientStubs;

class AnalysisClient {
 public:
  // Connects at the first call.
  static std::unique_ptr<AnalysisClient> Create(const ClientOptions& options);
  ~AnalysisClient();

  // A stream that ends without Finished is an error, whatever its status says
  // (IsIncompleteStream), and so is one that StreamChecker rejects. One that
  // breaks off is taken up where it ended if the request is `resumable`; when
  // the caller cancels such a one, the server is told.
  absl::StatusOr<AnalysisResult> Analyze(
      const qkscope::v1::AnalyzeRequest& request,
      const AnalyzeObserver& observer = {}, const CallOptions& options = {});

  // Many prompts under one spec, in one call: the server runs them together.
  // Their ids must differ. The status is of the call; a prompt that fails tells
  // it to `on_prompt`. What Analyze says of incomplete streams holds for each
  // prompt and for the whole, but nothing is resumed.
  absl::StatusOr<ManyResult> AnalyzeMany(
      const qkscope::v1::AnalyzeManySpec& spec,
      const std::vector<qkscope::v1::AnalyzeManyPrompt>& prompts,
      const ManyObserver& observer, const CallOptions& options = {});

  // Starts the request and leaves it; gives its id for FetchResult.
  absl::StatusOr<std::string> Detach(qkscope::v1::AnalyzeRequest request,
                                     const CallOptions& options = {});
  // All events of a detached or resumable request, as Analyze would have given
  // them; waits for those to come. Taken up again when it breaks off.
  absl::StatusOr<AnalysisResult> FetchResult(
      const std::string& request_id, const AnalyzeObserver& observer = {},
      const CallOptions& options = {});

  absl::StatusOr<qkscope::v1::GetUsageResponse> GetUsage(
      bool all_users, const CallOptions& options = {});
  absl::StatusOr<qkscope::v1::ListRequestsResponse> ListRequests(
      bool all_users, const CallOptions& options = {});
  absl::StatusOr<qkscope::v1::CancelResponse> Cancel(
      const std::string& request_id, const CallOptions& options = {});

  // Calls `on_token` for each token; gives the end of the stream.
  absl::StatusOr<qkscope::v1::GenerateFinished> Generate(
      const qkscope::v1::GenerateRequest& request,
      const std::function<void(const qkscope::v1::Token&)>& on_token,
      const CallOptions& options = {});

  absl::StatusOr<qkscope::v1::ServerInfo> GetServerInfo(
      const CallOptions& options = {});
  absl::StatusOr<qkscope::v1::ListModelsResponse> ListModels(
      const CallOptions& options = {});
  absl::StatusOr<qkscope::v1::ModelInfo> GetModel(
      const std::string& model, const CallOptions& options = {});
  absl::StatusOr<qkscope::v1::EstimateResponse> Estimate(
      const qkscope::v1::AnalyzeRequest& request,
      const CallOptions& options = {});
  absl::StatusOr<qkscope::v1::ScoreResponse> Score(
      const qkscope::v1::ScoreRequest& request,
      const CallOptions& options = {});
  absl::StatusOr<qkscope::v1::TokenizeResponse> Tokenize(
      const qkscope::v1::TokenizeRequest& request,
      const CallOptions& options = {});
  absl::StatusOr<qkscope::v1::DetokenizeResponse> Detokenize(
      const qkscope::v1::DetokenizeRequest& request,
      const CallOptions& options = {});

  // For operators. `on_progress` is called on the calling thread. A load goes
  // on at the server when its caller cancels it.
  absl::StatusOr<qkscope::v1::ModelInfo> LoadModel(
      const qkscope::v1::LoadModelRequest& request,
      const std::function<void(const qkscope::v1::LoadProgress&)>& on_progress,
      const CallOptions& options = {});
  // Returns when the model's memory is free.
  absl::Status UnloadModel(const std::string& model,
                           const CallOptions& options = {});
  absl::StatusOr<qkscope::v1::ReloadConfigResponse> ReloadConfig(
      const CallOptions& options = {});

  // grpc.health.v1: OK when the server, or the named model, is serving;
  // UNAVAILABLE when it is not; NOT_FOUND when it knows no such name.
  absl::Status CheckHealth(const std::string& model,
                           const CallOptions& options = {});

 private:
  explicit AnalysisClient(std::unique_ptr<ClientStubs> stubs);

  std::unique_ptr<ClientStubs> stubs_;
};

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_CPP_ANALYSIS_CLIENT_H_
