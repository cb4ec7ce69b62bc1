// The C++ client of qkscope.v1.Analysis and ModelAdmin. Results are plain data
// (messages and tensors). Failures are absl::Status with the server's code and
// message.
//
//   auto client = AnalysisClient::Create(ClientOptions::FromEnvironment());
//   auto result = client->Analyze(request);  // checked, with complete tensors
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

// Certificates and key are PEM.
struct ClientTls {
  std::string ca;  // authorities to trust; empty: the system's
  // The client's certificate and its key. Set both or neither.
  std::string certificate;
  std::string key;
  // The name that the server's certificate must have. Empty: the host of
  // `server`.
  std::string server_name;
};

struct ClientOptions {
  // HOST:PORT, another target of gRPC's, or file:///PATH: a file, or a folder
  // of files, that lists servers (server_list.h). It is read again when it
  // changes; calls take turns on the servers that can be reached and serve, as
  // they do on the addresses of ipv4:, ipv6: and dns: targets. FetchResult and
  // Cancel go to the server that is listed with the replica's name in the id.
  std::string server = "127.0.0.1:7461";
  // Sent as `authorization: Bearer TOKEN` unless it is empty. A token that
  // cannot be sent (IsSendableToken) is ignored.
  std::string token;
  std::optional<ClientTls> tls;  // absent: plaintext

  // Reads QKSCOPE_SERVER and QKSCOPE_TOKEN.
  static ClientOptions FromEnvironment();
};

// Whether the token is printable ASCII without spaces, and not empty.
bool IsSendableToken(const std::string& token);

struct CallOptions {
  // The call fails with DEADLINE_EXCEEDED after this time. Infinite: only the
  // server's own limit applies.
  absl::Duration timeout = absl::InfiniteDuration();
  Cancellation* cancellation = nullptr;
  // Number of retries of a call that got no answer because the server cannot be
  // reached, or is busy and says when to retry. The delay grows each time. A
  // stream that may be resumed is asked for so often in a row, at least 3
  // times.
  int retries = 0;
};

// Callbacks on the calling thread while a stream runs. Each may be empty.
struct AnalyzeObserver {
  // Gets every event but Layer, in order of arrival.
  std::function<void(const qkscope::v1::AnalyzeEvent&)> on_event;
  // Gets each tensor once it is complete; `seq` is that of its last chunk.
  std::function<void(int64_t seq, const Tensor&)> on_tensor;
  // If false, AnalysisResult::tensors stays empty, for streams too large to
  // keep.
  bool keep_tensors = true;
};

// Callbacks of AnalyzeMany: as in AnalyzeObserver, with the prompt's id.
struct ManyObserver {
  std::function<void(const std::string& id, const qkscope::v1::AnalyzeEvent&)>
      on_event;
  std::function<void(const std::string& id, int64_t seq, const Tensor&)>
      on_tensor;
  // Gets each prompt's result or error, in the order of the prompts. A failed
  // prompt does not end the others.
  std::function<void(const std::string& id, absl::StatusOr<AnalysisResult>)>
      on_prompt;
  bool keep_tensors = true;
};

struct ManyResult {
  int64_t failed = 0;  // prompts
  // One entry per (arm, phase, layer, point, stage), over the prompts that did
  // not fail. Empty unless AnalyzeManySpec::aggregate was set.
  std::vector<qkscope::v1::AggregateEntry> aggregate;
};

// Whether a call failed because its stream broke off, or violated the protocol,
// after it had begun. What has arrived must not be used.
bool IsIncompleteStream(const absl::Status& status);

// The failed call's id in the server's log. Empty if the failure did not come
// from the server.
std::string RequestIdOf(const absl::Status& status);

class Channels;

class AnalysisClient {
 public:
  // Does not connect before the first call.
  static std::unique_ptr<AnalysisClient> Create(const ClientOptions& options);
  ~AnalysisClient();

  // A stream that ends without Finished is an error (IsIncompleteStream),
  // whatever its status says, and so is a stream that StreamChecker rejects. If
  // the request is `resumable`, a stream that breaks off is resumed where it
  // ended; if the caller cancels it then, the request is cancelled on the
  // server as well.
  absl::StatusOr<AnalysisResult> Analyze(
      const qkscope::v1::AnalyzeRequest& request,
      const AnalyzeObserver& observer = {}, const CallOptions& options = {});

  // Runs many prompts under one spec in one call; the server runs them
  // together. Their ids must differ. The status is the call's; a prompt's error
  // goes to `on_prompt`. As in Analyze, incomplete streams are errors, for each
  // prompt and for the whole, but nothing is resumed.
  absl::StatusOr<ManyResult> AnalyzeMany(
      const qkscope::v1::AnalyzeManySpec& spec,
      const std::vector<qkscope::v1::AnalyzeManyPrompt>& prompts,
      const ManyObserver& observer, const CallOptions& options = {});

  // Starts the request and leaves it running. Returns its id for FetchResult.
  absl::StatusOr<std::string> Detach(qkscope::v1::AnalyzeRequest request,
                                     const CallOptions& options = {});
  // Fetches all events of a detached or resumable request, as Analyze would
  // have returned them, and waits for those still to come. Resumes a stream
  // that breaks off.
  absl::StatusOr<AnalysisResult> FetchResult(
      const std::string& request_id, const AnalyzeObserver& observer = {},
      const CallOptions& options = {});

  // Long lists of users, requests, models and tokens come in several answers;
  // these calls return the whole list (Tokenize: from the request's offset on).
  absl::StatusOr<qkscope::v1::GetUsageResponse> GetUsage(
      bool all_users, const CallOptions& options = {});
  absl::StatusOr<qkscope::v1::ListRequestsResponse> ListRequests(
      bool all_users, const CallOptions& options = {});
  absl::StatusOr<qkscope::v1::CancelResponse> Cancel(
      const std::string& request_id, const CallOptions& options = {});

  // Calls `on_token` for each token, and returns the stream's end.
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

  // For operators. `on_progress` is called on the calling thread. Cancelling
  // the call does not stop the load on the server.
  absl::StatusOr<qkscope::v1::ModelInfo> LoadModel(
      const qkscope::v1::LoadModelRequest& request,
      const std::function<void(const qkscope::v1::LoadProgress&)>& on_progress,
      const CallOptions& options = {});
  // Returns when the model's memory is free.
  absl::Status UnloadModel(const std::string& model,
                           const CallOptions& options = {});
  absl::StatusOr<qkscope::v1::ReloadConfigResponse> ReloadConfig(
      const CallOptions& options = {});

  // Makes the mean of what the model has shown its baseline. AnalyzeMany with
  // AnalyzeManySpec::save_baseline makes one of chosen prompts.
  absl::StatusOr<qkscope::v1::Baseline> SaveBaseline(
      const std::string& model, const CallOptions& options = {});
  // Returns the whole list; `model`: empty for all.
  absl::StatusOr<qkscope::v1::ListBaselinesResponse> ListBaselines(
      const std::string& model, const CallOptions& options = {});
  absl::Status RemoveBaseline(const std::string& model,
                              const CallOptions& options = {});

  // Calls grpc.health.v1. OK: the server, or the named model, is serving.
  // UNAVAILABLE: it is not. NOT_FOUND: the server does not know the name.
  absl::Status CheckHealth(const std::string& model,
                           const CallOptions& options = {});

 private:
  explicit AnalysisClient(std::unique_ptr<Channels> channels);

  const std::unique_ptr<Channels> channels_;
};

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_CPP_ANALYSIS_CLIENT_H_
