// The Analysis service.
#ifndef QKSCOPE_SERVER_CALLS_ANALYSIS_SERVICE_H_
#define QKSCOPE_SERVER_CALLS_ANALYSIS_SERVICE_H_

#include <string>
#include <vector>

#include "qkscope/v1/analysis.grpc.pb.h"
#include "server/calls/server_core.h"

namespace qk {

// RPCs that stream a run's events are served raw: their messages are bytes
// (raw_message.h).
class AnalysisService final
    : public pb::Analysis::WithRawCallbackMethod_Analyze<
          pb::Analysis::WithRawCallbackMethod_Generate<
              pb::Analysis::WithRawCallbackMethod_GetResult<
                  pb::Analysis::CallbackService>>> {
 public:
  // `core` must outlive the service and its calls.
  explicit AnalysisService(const ServerCore* core) : core_(core) {}

  // The names of the RPCs, for the metrics.
  static std::vector<std::string> Methods();

  using Context = grpc::CallbackServerContext;
  using Unary = grpc::ServerUnaryReactor;
  using RawStream = grpc::ServerWriteReactor<grpc::ByteBuffer>;

  Unary* GetServerInfo(Context* context,
                       const pb::GetServerInfoRequest* request,
                       pb::ServerInfo* response) override;
  Unary* ListModels(Context* context, const pb::ListModelsRequest* request,
                    pb::ListModelsResponse* response) override;
  Unary* GetModel(Context* context, const pb::GetModelRequest* request,
                  pb::ModelInfo* response) override;
  RawStream* Analyze(Context* context, const grpc::ByteBuffer* bytes) override;
  grpc::ServerBidiReactor<pb::AnalyzeManyRequest, pb::AnalyzeManyEvent>*
  AnalyzeMany(Context* context) override;
  Unary* Score(Context* context, const pb::ScoreRequest* request,
               pb::ScoreResponse* response) override;
  RawStream* Generate(Context* context, const grpc::ByteBuffer* bytes) override;
  Unary* Estimate(Context* context, const pb::AnalyzeRequest* request,
                  pb::EstimateResponse* response) override;
  Unary* Tokenize(Context* context, const pb::TokenizeRequest* request,
                  pb::TokenizeResponse* response) override;
  Unary* Detokenize(Context* context, const pb::DetokenizeRequest* request,
                    pb::DetokenizeResponse* response) override;

  // These are defined in analysis_requests.cc.
  Unary* GetUsage(Context* context, const pb::GetUsageRequest* request,
                  pb::GetUsageResponse* response) override;
  Unary* ListRequests(Context* context, const pb::ListRequestsRequest* request,
                      pb::ListRequestsResponse* response) override;
  Unary* Cancel(Context* context, const pb::CancelRequest* request,
                pb::CancelResponse* response) override;
  RawStream* GetResult(Context* context,
                       const grpc::ByteBuffer* bytes) override;

 private:
  const ServerCore* const core_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_ANALYSIS_SERVICE_H_
