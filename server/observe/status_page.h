// The page at / of the metrics port: what an operator looks at first. HTML with
// inline SVG that needs no script and nothing from elsewhere.
#ifndef QKSCOPE_SERVER_OBSERVE_STATUS_PAGE_H_
#define QKSCOPE_SERVER_OBSERVE_STATUS_PAGE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/types/backend_info.h"
#include "engine/types/device_reading.h"
#include "server/observe/recent_activations.h"
#include "server/schedule/listing.h"

namespace qk {

// What the page shows, already cut down to what the viewer may see.
struct StatusPage {
  enum class Health { kStarting, kServing, kDraining };
  // Whose users the page lists. kNobody: the server has users, and the viewer
  // has no token.
  enum class Viewer { kEverybody, kNobody, kUser, kOperator };
  struct Model {
    std::string name = {};
    std::string state = {};    // "ready"
    std::string failure = {};  // without paths
    std::string architecture = {};
    int layers = 0;
    std::string weights_dtype = {};
    std::string compute = {};
    int64_t parameters = 0;
    // Once it is loaded:
    int64_t host_bytes = 0;
    int64_t device_bytes = 0;
    double load_seconds = 0;
  };
  struct Queue {
    int waiting = 0;
    int running = 0;
    int limit = 0;
    std::optional<absl::Duration> oldest = {};  // age of the head
  };
  struct UserRow {
    UserState state;
    int64_t kept_results = 0;
    int64_t kept_bytes = 0;
  };
  struct Kept {
    int64_t results = 0;
    int64_t most_results = 0;
    int64_t bytes = 0;
    int64_t most_bytes = 0;
    absl::Duration ttl;
  };

  Health health = Health::kStarting;
  std::string version;
  BackendInfo backend;
  DeviceReading device;
  absl::Duration uptime;
  absl::Time made;    // of the wall clock
  bool live = false;  // the page asks to be loaded again every 10 s
  Viewer viewer = Viewer::kEverybody;
  std::string alias;  // of the viewer, if there is one
  std::vector<Model> models;
  Queue queue;
  std::vector<UserRow> users;
  std::optional<Kept> kept;              // absent: the server keeps no results
  std::vector<RecentModel> activations;  // the last used first
  std::vector<std::string> documents;    // their names, below /docs/
};

// At most kMaxStatusBytes, whatever there is: the first models, the busiest
// users and the models used last, and how many others there are.
std::string RenderStatusPage(const StatusPage& page);
inline constexpr size_t kMaxStatusBytes = 512 * 1024;
inline constexpr size_t kStatusModels = 50;
inline constexpr size_t kStatusUsers = 20;
inline constexpr size_t kStatusHeatMaps = 4;  // models with heat maps

}  // namespace qk

#endif  // QKSCOPE_SERVER_OBSERVE_STATUS_PAGE_H_
