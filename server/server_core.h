// What all handlers share. Owned by Server; everything outlives every call.
#ifndef QKSCOPE_SERVER_SERVER_CORE_H_
#define QKSCOPE_SERVER_SERVER_CORE_H_

#include <atomic>
#include <string>

#include "engine/backend_info.h"
#include "server/buffer_budget.h"
#include "server/call_tracker.h"
#include "server/connections.h"
#include "server/convert.h"
#include "server/executor.h"
#include "server/identity.h"
#include "server/limits.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/model_registry.h"
#include "server/result_store.h"
#include "server/scheduler.h"

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

#endif  // QKSCOPE_SERVER_SERVER_CORE_H_
