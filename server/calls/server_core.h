// What all handlers share. Owned by Server; everything outlives every call.
#ifndef QKSCOPE_SERVER_CALLS_SERVER_CORE_H_
#define QKSCOPE_SERVER_CALLS_SERVER_CORE_H_

#include <atomic>
#include <string>

#include "engine/types/backend_info.h"
#include "server/access/identity.h"
#include "server/calls/call_tracker.h"
#include "server/common/executor.h"
#include "server/common/limits.h"
#include "server/common/log.h"
#include "server/convert/convert.h"
#include "server/events/buffer_budget.h"
#include "server/models/model_registry.h"
#include "server/net/connections.h"
#include "server/observe/metrics.h"
#include "server/results/result_store.h"
#include "server/schedule/scheduler.h"

namespace qk {

struct ServerCore {
  std::string version;
  Limits limits;
  BackendInfo backend;
  ModelRegistry* registry = nullptr;
  Scheduler* scheduler = nullptr;
  BufferBudget* budget = nullptr;
  std::atomic<int64_t>* buffered = nullptr;
  Executor* executor = nullptr;
  Metrics* metrics = nullptr;
  Log* log = nullptr;
  CallTracker* calls = nullptr;
  const Identity* identity = nullptr;
  bool log_prompts = false;
  ResultStore* results = nullptr;      // nullptr: none are kept
  Executor* spool_executor = nullptr;  // writes them
  const Connections* connections = nullptr;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_SERVER_CORE_H_
