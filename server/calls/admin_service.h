// The ModelAdmin service.
#ifndef QKSCOPE_SERVER_CALLS_ADMIN_SERVICE_H_
#define QKSCOPE_SERVER_CALLS_ADMIN_SERVICE_H_

#include <string>
#include <vector>

#include "qkscope/v1/admin.grpc.pb.h"
#include "server/access/access.h"
#include "server/calls/server_core.h"
#include "server/models/model_manager.h"

namespace qk {

// All RPCs are served raw, so that nothing is parsed before the caller is
// known.
class AdminService final
    : public pb::ModelAdmin::WithRawCallbackMethod_LoadModel<
          pb::ModelAdmin::WithRawCallbackMethod_UnloadModel<
              pb::ModelAdmin::WithRawCallbackMethod_ReloadConfig<
                  pb::ModelAdmin::WithRawCallbackMethod_SaveBaseline<
                      pb::ModelAdmin::WithRawCallbackMethod_ListBaselines<
                          pb::ModelAdmin::WithRawCallbackMethod_RemoveBaseline<
                              pb::ModelAdmin::Service>>>>>> {
 public:
  // All must outlive the service.
  AdminService(const CallParts* parts, const ServerDescription* server,
               ModelManager* models, Access* access,
               ActivationMetrics* activations)
      : parts_(parts),
        server_(server),
        models_(models),
        access_(access),
        activations_(activations) {}

  // The names of the RPCs, for the metrics.
  static std::vector<std::string> Methods();

  using Context = grpc::CallbackServerContext;

  grpc::ServerWriteReactor<grpc::ByteBuffer>* LoadModel(
      Context* context, const grpc::ByteBuffer* bytes) override;
  grpc::ServerUnaryReactor* UnloadModel(Context* context,
                                        const grpc::ByteBuffer* bytes,
                                        grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ReloadConfig(Context* context,
                                         const grpc::ByteBuffer* bytes,
                                         grpc::ByteBuffer* response) override;
  // These are in baseline_requests.cc.
  grpc::ServerUnaryReactor* SaveBaseline(Context* context,
                                         const grpc::ByteBuffer* bytes,
                                         grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ListBaselines(Context* context,
                                          const grpc::ByteBuffer* bytes,
                                          grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* RemoveBaseline(Context* context,
                                           const grpc::ByteBuffer* bytes,
                                           grpc::ByteBuffer* response) override;

 private:
  const CallParts* const parts_;
  const ServerDescription* const server_;
  ModelManager* const models_;
  Access* const access_;
  ActivationMetrics* const activations_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_ADMIN_SERVICE_H_
