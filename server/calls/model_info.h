// What ListModels and GetServerInfo say.
#ifndef QKSCOPE_SERVER_CALLS_MODEL_INFO_H_
#define QKSCOPE_SERVER_CALLS_MODEL_INFO_H_

#include "qkscope/v1/analysis.pb.h"
#include "server/calls/server_core.h"
#include "server/common/pb.h"

namespace qk {

const char* ComputeName(ComputeType type);  // "f32", "bf16"

pb::ModelInfo ModelInfoOf(const ServerCore& core, const ModelEntry& entry);
pb::ServerInfo ServerInfoOf(const ServerCore& core);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_MODEL_INFO_H_
