// The Analysis service.
#ifndef QKSCOPE_SERVER_CALLS_ANALYSIS_SERVICE_H_
#define QKSCOPE_SERVER_CALLS_ANALYSIS_SERVICE_H_

#include <string>
#include <vector>

#include "qkscope/v1/analysis.grpc.pb.h"
#include "server/calls/server_core.h"

namespace qk {

// RawMethods<A, B>::Of is A<B<Service>>.
template <template <typename> class... Methods>
struct RawMethods {
  using Of = pb::Analysis::Service;
};
template <template <typename> class Method,
          template <typename> class... Methods>
struct RawMethods<Method, Methods...> {
  using Of = Method<typename RawMethods<Methods...>::Of>;
};

// All RPCs are served raw: their messages are bytes, which are parsed once the
// caller is known and it is the caller's turn (post_work.h). Events of streams
// are encoded outside gRPC (raw_message.h).
using RawAnalysis =
    RawMethods<pb::Analysis::WithRawCallbackMethod_GetServerInfo,
               pb::Analysis::WithRawCallbackMethod_ListModels,
               pb::Analysis::WithRawCallbackMethod_GetModel,
               pb::Analysis::WithRawCallbackMethod_Analyze,
               pb::Analysis::WithRawCallbackMethod_AnalyzeMany,
               pb::Analysis::WithRawCallbackMethod_Score,
               pb::Analysis::WithRawCallbackMethod_Generate,
               pb::Analysis::WithRawCallbackMethod_Estimate,
               pb::Analysis::WithRawCallbackMethod_Tokenize,
               pb::Analysis::WithRawCallbackMethod_Detokenize,
               pb::Analysis::WithRawCallbackMethod_GetUsage,
               pb::Analysis::WithRawCallbackMethod_ListRequests,
               pb::Analysis::WithRawCallbackMethod_Cancel,
               pb::Analysis::WithRawCallbackMethod_GetResult>::Of;

class AnalysisService final : public RawAnalysis {
 public:
  // `core` must outlive the service and its calls.
  explicit AnalysisService(const ServerCore* core) : core_(core) {}

  // The names of the RPCs, for the metrics.
  static std::vector<std::string> Methods();

  using Context = grpc::CallbackServerContext;
  using Unary = grpc::ServerUnaryReactor;
  using RawStream = grpc::ServerWriteReactor<grpc::ByteBuffer>;
  using RawBidi = grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>;

  Unary* GetServerInfo(Context* context, const grpc::ByteBuffer* bytes,
                       grpc::ByteBuffer* response) override;
  Unary* ListModels(Context* context, const grpc::ByteBuffer* bytes,
                    grpc::ByteBuffer* response) override;
  Unary* GetModel(Context* context, const grpc::ByteBuffer* bytes,
                  grpc::ByteBuffer* response) override;
  RawStream* Analyze(Context* context, const grpc::ByteBuffer* bytes) override;
  RawBidi* AnalyzeMany(Context* context) override;
  Unary* Score(Context* context, const grpc::ByteBuffer* bytes,
               grpc::ByteBuffer* response) override;
  RawStream* Generate(Context* context, const grpc::ByteBuffer* bytes) override;
  Unary* Estimate(Context* context, const grpc::ByteBuffer* bytes,
                  grpc::ByteBuffer* response) override;
  Unary* Tokenize(Context* context, const grpc::ByteBuffer* bytes,
                  grpc::ByteBuffer* response) override;
  Unary* Detokenize(Context* context, const grpc::ByteBuffer* bytes,
                    grpc::ByteBuffer* response) override;

  // These are defined in analysis_requests.cc.
  Unary* GetUsage(Context* context, const grpc::ByteBuffer* bytes,
                  grpc::ByteBuffer* response) override;
  Unary* ListRequests(Context* context, const grpc::ByteBuffer* bytes,
                      grpc::ByteBuffer* response) override;
  Unary* Cancel(Context* context, const grpc::ByteBuffer* bytes,
                grpc::ByteBuffer* response) override;
  RawStream* GetResult(Context* context,
                       const grpc::ByteBuffer* bytes) override;

 private:
  const ServerCore* const core_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_ANALYSIS_SERVICE_H_
