#include "server/schedule/blocked_models.h"

#include "server/schedule/queued_request.h"

namespace qk {

bool BlockedModels::MayAdmit(const QueuedRequest* request, const Model* model) {
  const auto it = blocked_.find(model);
  if (it == blocked_.end()) return true;
  const Blocked& blocked = it->second;
  if (blocked.request->waiting.empty()) {  // cancelled in the meantime
    blocked_.erase(it);
    return true;
  }
  return blocked.request == request && blocked.runs_ended != runs_ended_;
}

void BlockedModels::Forget(const QueuedRequest* request) {
  std::erase_if(blocked_, [request](const auto& blocked) {
    return blocked.second.request == request;
  });
}

}  // namespace qk
