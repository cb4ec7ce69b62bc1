// The objects that handlers use. Each handler receives only the parts that it
// needs. Server owns the objects, which outlive every call.
#ifndef QKSCOPE_SERVER_CALLS_SERVER_CORE_H_
#define QKSCOPE_SERVER_CALLS_SERVER_CORE_H_

#include <atomic>
#include <cstdint>
#include <string>

#include "engine/types/backend_info.h"
#include "server/access/identity.h"
#include "server/calls/call_tracker.h"
#include "server/common/byte_pool.h"
#include "server/common/executor.h"
#include "server/common/limits.h"
#include "server/common/log.h"
#include "server/convert/convert.h"
#include "server/models/model_registry.h"
#include "server/net/connections.h"
#include "server/observe/activation_metrics.h"
#include "server/observe/metrics.h"
#include "server/results/result_store.h"
#include "server/schedule/host_work.h"
#include "server/schedule/scheduler.h"

namespace qk {

// The facts about this server that responses and manifests contain.
struct ServerDescription {
  std::string version;
  BackendInfo backend;
  std::string passed_over;  // why a better backend is not used
  std::string replica;      // this replica's name, or empty
};

// Parts that every call needs.
struct CallParts {
  const Limits* limits = nullptr;
  CallTracker* calls = nullptr;
  const Identity* identity = nullptr;
  ModelRegistry* registry = nullptr;
  const Connections* connections = nullptr;
  HostWork* host = nullptr;
  BytePool* buffers = nullptr;  // of answers and streams
  Metrics* metrics = nullptr;
  Log* log = nullptr;
  bool log_prompts = false;
  std::string replica;  // this replica's name, which ids end in; or empty
};

// Parts for calls that run models.
struct RunParts {
  const Limits* limits = nullptr;
  const ServerDescription* server = nullptr;  // for manifests
  Scheduler* scheduler = nullptr;
  BytePool* buffers = nullptr;               // of streams
  BytePool* requests = nullptr;              // of requests that wait or run
  std::atomic<int64_t>* buffered = nullptr;  // bytes in all queues
  Executor* executor = nullptr;              // writes the streams
  Metrics* metrics = nullptr;
  ActivationMetrics* activations = nullptr;
};

// Parts for calls that keep results or read them.
struct ResultParts {
  ResultStore* store = nullptr;  // nullptr: the server keeps no results
  Executor* executor = nullptr;  // writes results to the store
};

struct ServerCore {
  CallParts call;
  RunParts run;
  ResultParts results;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_SERVER_CORE_H_
