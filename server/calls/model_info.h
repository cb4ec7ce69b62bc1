// Makes the responses of ListModels, GetModel and GetServerInfo.
#ifndef QKSCOPE_SERVER_CALLS_MODEL_INFO_H_
#define QKSCOPE_SERVER_CALLS_MODEL_INFO_H_

#include "qkscope/v1/analysis.pb.h"
#include "server/calls/server_core.h"
#include "server/common/pb.h"

namespace qk {

const char* ComputeName(ComputeType type);  // "f32", "bf16"

// Writes to a ModelInfo or a Manifest what was passed over.
template <typename Message>
void SetIgnored(const IgnoredParts& ignored, Message* out) {
  out->mutable_ignored_fields()->Assign(ignored.fields.begin(),
                                        ignored.fields.end());
  out->mutable_ignored_tensors()->Assign(ignored.tensors.begin(),
                                         ignored.tensors.end());
}

// `backend`: what runs the model.
pb::ModelInfo ModelInfoOf(const ModelEntry& entry, const BackendInfo& backend);
// `store`: nullptr if the server keeps no results.
pb::ServerInfo ServerInfoOf(const ServerDescription& server,
                            const Limits& limits, const ResultStore* store);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_MODEL_INFO_H_
