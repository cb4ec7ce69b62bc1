#include "server/calls/health_service.h"

#include <optional>
#include <utility>
#include <vector>

#include "server/calls/call_record.h"

namespace qk {

// One Watch. The status of the moment is written when no write is in flight and
// it is another one than was written last; what was overtaken is skipped.
class HealthService::Watcher final : public grpc::ServerWriteReactor<Response> {
 public:
  Watcher(HealthService* service, std::string name,
          std::shared_ptr<const User> user)
      : service_(service), name_(std::move(name)), user_(std::move(user)) {}

  // Keeps the object until gRPC is done with it.
  void Hold(std::shared_ptr<Watcher> self) { self_ = std::move(self); }

  // Starts the next write or ends the call, whichever is due. Call it when the
  // status may have changed. gRPC is called without the lock, because it may
  // call back at once.
  void Pump() ABSL_LOCKS_EXCLUDED(mutex_) {
    bool write = false;
    {
      MutexLock lock(&mutex_);
      if (writing_ || finished_) return;
      const Status now = service_->StatusFor(name_, user_.get());
      if (cancelled_) {
        finished_ = true;
      } else if (sent_ != now) {
        sent_ = now;
        response_.set_status(now);
        writing_ = write = true;
      } else {
        return;
      }
    }
    if (write) {
      StartWrite(&response_);
    } else {
      Finish(grpc::Status(grpc::StatusCode::CANCELLED, "cancelled"));
    }
  }

  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(&mutex_);
      writing_ = false;
      if (!ok) cancelled_ = true;
    }
    Pump();
  }

  void OnCancel() override {
    {
      MutexLock lock(&mutex_);
      cancelled_ = true;
    }
    Pump();
  }

  void OnDone() override {
    const std::shared_ptr<Watcher> self = std::move(self_);
    service_->Forget(self);
  }

 private:
  HealthService* const service_;
  const std::string name_;
  const std::shared_ptr<const User> user_;
  std::shared_ptr<Watcher> self_;

  Mutex mutex_;
  Response response_;  // constant while a write is in flight
  std::optional<Status> sent_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

void HealthService::SetService(const std::string& name, bool serving) {
  Set(name, {serving, /*model=*/false});
}

void HealthService::SetModel(const std::string& name, bool serving) {
  Set(name, {serving, /*model=*/true});
}

void HealthService::Set(const std::string& name, Entry entry) {
  {
    MutexLock lock(&mutex_);
    const auto known = entries_.find(name);
    // A model cannot take a service's name from those who ask about it.
    if (known != entries_.end() && !known->second.model && entry.model) return;
    entries_[name] = entry;
  }
  Notify();
}

void HealthService::Shutdown() {
  {
    MutexLock lock(&mutex_);
    shut_down_ = true;
  }
  Notify();
}

HealthService::Status HealthService::StatusFor(const std::string& name,
                                               const User* user) const {
  MutexLock lock(&mutex_);
  const auto found = entries_.find(name);
  if (found == entries_.end() ||
      (found->second.model && (user == nullptr || !MayUseModel(*user, name)))) {
    return Response::SERVICE_UNKNOWN;
  }
  return found->second.serving && !shut_down_ ? Response::SERVING
                                              : Response::NOT_SERVING;
}

std::shared_ptr<const User> HealthService::Caller(
    const Context& context) const {
  auto user = identity_->Authenticate(CredentialsOf(context));
  return user.ok() ? *std::move(user) : nullptr;
}

void HealthService::Notify() {
  std::vector<std::shared_ptr<Watcher>> watchers;
  {
    MutexLock lock(&mutex_);
    watchers.assign(watchers_.begin(), watchers_.end());
  }
  for (const std::shared_ptr<Watcher>& watcher : watchers) watcher->Pump();
}

void HealthService::Forget(const std::shared_ptr<Watcher>& watcher) {
  MutexLock lock(&mutex_);
  watchers_.erase(watcher);
}

grpc::ServerUnaryReactor* HealthService::Check(Context* context,
                                               const Request* request,
                                               Response* response) {
  const Status status = StatusFor(request->service(), Caller(*context).get());
  response->set_status(status);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(
      status == Response::SERVICE_UNKNOWN
          ? grpc::Status(grpc::StatusCode::NOT_FOUND, "service name unknown")
          : grpc::Status::OK);
  return reactor;
}

grpc::ServerWriteReactor<HealthService::Response>* HealthService::Watch(
    Context* context, const Request* request) {
  const auto watcher =
      std::make_shared<Watcher>(this, request->service(), Caller(*context));
  watcher->Hold(watcher);
  {
    MutexLock lock(&mutex_);
    watchers_.insert(watcher);
  }
  watcher->Pump();
  return watcher.get();
}

}  // namespace qk
