// Gathers what the status page shows to a viewer.
#ifndef QKSCOPE_SERVER_CALLS_STATUS_READER_H_
#define QKSCOPE_SERVER_CALLS_STATUS_READER_H_

#include <functional>
#include <string>

#include "absl/time/time.h"
#include "engine/types/device_reading.h"
#include "server/calls/health_service.h"
#include "server/calls/server_core.h"
#include "server/observe/recent_activations.h"
#include "server/observe/status_page.h"

namespace qk {

// What the page is made of; all of it outlives the reader's calls.
struct StatusSources {
  const ServerCore* core = nullptr;
  const HealthService* health = nullptr;
  std::function<DeviceReading()> read_device = nullptr;
  const RecentActivations* recent = nullptr;
  KeptAmount most_kept;  // results of all users
  absl::Time started;    // as MonotonicNow
};

// `viewer`: nullptr if the viewer has no credentials. `may_see`: whether the
// viewer may see a model. Who sees which users says StatusPage::Viewer.
StatusPage ReadStatus(
    const StatusSources& sources, const User* viewer,
    const std::function<bool(const std::string& model)>& may_see);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_STATUS_READER_H_
