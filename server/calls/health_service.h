// The standard health service, grpc.health.v1.Health. gRPC's own answers
// everybody, so it would tell of models that the caller may not use.
#ifndef QKSCOPE_SERVER_CALLS_HEALTH_SERVICE_H_
#define QKSCOPE_SERVER_CALLS_HEALTH_SERVICE_H_

#include <map>
#include <memory>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "engine/base/mutex.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "server/access/identity.h"

namespace qk {

// Thread-safe. "" and the names of services are for everybody. The other names
// are models: who may not use one, with or without credentials, gets the answer
// for an unknown name.
class HealthService final : public grpc::health::v1::Health::CallbackService {
 public:
  using Context = grpc::CallbackServerContext;
  using Request = grpc::health::v1::HealthCheckRequest;
  using Response = grpc::health::v1::HealthCheckResponse;
  using Status = Response::ServingStatus;

  // `identity` must outlive the service.
  explicit HealthService(const Identity* identity) : identity_(identity) {}

  void SetService(const std::string& name, bool serving)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void SetModel(const std::string& name, bool serving)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Whether the server as a whole is SERVING.
  bool serving() const ABSL_LOCKS_EXCLUDED(mutex_) {
    return StatusFor("", nullptr) == Response::SERVING;
  }
  // Everything is NOT_SERVING from now on, whatever is set later.
  void Shutdown() ABSL_LOCKS_EXCLUDED(mutex_);

  grpc::ServerUnaryReactor* Check(Context* context, const Request* request,
                                  Response* response) override;
  grpc::ServerWriteReactor<Response>* Watch(Context* context,
                                            const Request* request) override;

 private:
  class Watcher;
  struct Entry {
    bool serving = false;
    bool model = false;
  };

  void Set(const std::string& name, Entry entry) ABSL_LOCKS_EXCLUDED(mutex_);
  // SERVICE_UNKNOWN if there is no such name for the user (nullptr: nobody).
  Status StatusFor(const std::string& name, const User* user) const
      ABSL_LOCKS_EXCLUDED(mutex_);
  // The caller; nullptr: nobody.
  std::shared_ptr<const User> Caller(const Context& context) const;
  // Tells every watcher that something has changed.
  void Notify() ABSL_LOCKS_EXCLUDED(mutex_);
  void Forget(const std::shared_ptr<Watcher>& watcher)
      ABSL_LOCKS_EXCLUDED(mutex_);

  const Identity* const identity_;
  mutable Mutex mutex_;
  std::map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  bool shut_down_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<std::shared_ptr<Watcher>> watchers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_HEALTH_SERVICE_H_
