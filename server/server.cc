#include "server/server.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/monotonic.h"
#include "engine/base/mutex.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/impl/server_builder_option.h"
#include "grpcpp/impl/server_builder_plugin.h"
#include "grpcpp/server_builder.h"
#include "server/common/delay_point.h"
#include "server/net/addresses.h"
#include "server/net/http2_guard.h"
#include "server/net/http2_limits.h"
#include "server/net/self_check.h"

namespace qk {
namespace {

constexpr char kServiceName[] = "qkscope.v1.Analysis";
constexpr int kStreamThreads = 2;
// How long gRPC may take to send statuses once the calls have ended.
constexpr auto kFlush = std::chrono::milliseconds(300);

Acceptor::ConnectionHandler HandOver(
    std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> to) {
  return [to = std::shared_ptr(std::move(to))](int listener, int connection) {
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters p;
    p.listener_fd = listener;
    p.fd = connection;
    to->HandleNewConnection(&p);
  };
}

// Removes the reflection service, which gRPC adds to every server of a process
// that links its library.
class WithoutReflection : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>*
                         plugins) override {
    std::erase_if(*plugins, [](const auto& plugin) {
      return plugin->name() == "proto_server_reflection";
    });
  }
};

std::string WithPort(const std::string& address, int port) {
  return absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
}

absl::Duration TickOf(const Limits& limits) {
  return std::clamp(absl::Milliseconds(limits.write_stall_timeout_ms) / 4,
                    absl::Milliseconds(10), absl::Seconds(1));
}

// Counts each failure of the spool, and logs one a second.
std::function<void(const absl::Status&)> SpoolErrors(
    std::shared_ptr<Metrics> metrics, Log* log) {
  struct Since {
    Mutex mutex;
    int64_t count ABSL_GUARDED_BY(mutex) = 0;  // not logged yet
    absl::Time logged ABSL_GUARDED_BY(mutex) = absl::InfinitePast();
  };
  return [metrics = std::move(metrics), log,
          since = std::make_shared<Since>()](const absl::Status& status) {
    metrics->CountSpoolError();
    MutexLock lock(&since->mutex);
    ++since->count;
    const absl::Time now = MonotonicNow();
    if (now - since->logged < absl::Seconds(1)) return;
    log->Error("spool_failed", {{"reason", std::string(status.message())},
                                {"count", std::exchange(since->count, 0)}});
    since->logged = now;
  };
}

}  // namespace

Server::Server(const ServerOptions& options, std::unique_ptr<Device> device,
               std::unique_ptr<Backend> backend)
    : options_(options),
      descriptors_(ShareDescriptors(RaiseDescriptorLimit())),
      backend_(std::move(backend)),
      buffers_("stream buffers", options.limits.max_buffered_bytes),
      device_(std::move(device)) {}

absl::StatusOr<std::unique_ptr<Server>> Server::Create(
    const ServerOptions& options, Log* log, std::unique_ptr<Device> device,
    std::unique_ptr<Backend> backend) {
  std::unique_ptr<Server> server(
      new Server(options, std::move(device), std::move(backend)));
  QK_RETURN_IF_ERROR(server->Start(log));
  return server;
}

absl::Status Server::Start(Log* log) {
  QK_RETURN_IF_ERROR(CheckAccess(options_));
  QK_ASSIGN_OR_RETURN(const HostPort listen, ParseHostPort(options_.listen));
  // A proxy ends TLS before its plain connections to the server.
  const bool safe = IsLoopback(listen.host) || options_.access.behind_proxy;
  QK_ASSIGN_OR_RETURN(access_, Access::Create(options_.access, safe, log));
  if (backend_ == nullptr) QK_RETURN_IF_ERROR(MakeBackend(log));

  MakeMetrics(log);
  ActivationMetrics::Options activations;
  activations.shown = options_.activations;
  activations.on_non_finite = [this](const std::string& model, int64_t values) {
    metrics_->CountNonFinite(model, values);
  };
  activations.on_bad_baseline = [log](const std::string& model,
                                      const absl::Status& reason) {
    log->Warn("baseline_not_used",
              {{"model", model}, {"reason", std::string(reason.message())}});
  };
  if (const std::string& folder = options_.activations.baseline_dir;
      !folder.empty()) {
    QK_RETURN_IF_ERROR(BaselineFolder::Make(folder));
  }
  activations_ = std::make_unique<ActivationMetrics>(std::move(activations));
  SchedulerOptions scheduler_options;
  scheduler_options.max_queued_requests = options_.limits.max_queued_requests;
  scheduler_options.max_rows_per_pass = options_.limits.max_rows_per_pass;
  calls_ = std::make_unique<CallTracker>(TickOf(options_.limits));
  scheduler_ = std::make_unique<Scheduler>(scheduler_options, device_.get(),
                                           metrics_.get(), &clock_);
  buffers_.SetOnFree(scheduler_->RoomSignal());
  HostWorkOptions host_options;
  host_options.places =
      std::max(2, static_cast<int>(std::thread::hardware_concurrency()) / 4);
  host_ = std::make_unique<HostWork>(host_options, &clock_, scheduler_.get());
  QK_RETURN_IF_ERROR(DescribeModels(log));
  const auto on_exception = [log](const absl::Status& status) {
    log->Error("exception", {{"reason", std::string(status.message())}});
  };
  executor_ = std::make_unique<Executor>(kStreamThreads, on_exception);
  QK_RETURN_IF_ERROR(OpenResults(log));
  MakeServices(log);
  QK_RETURN_IF_ERROR(ExposeMetrics());
  return Listen(log);
}

absl::Status Server::MakeBackend(Log* log) {
  absl::StatusOr<CreatedBackend> created = CreateBackend({
      .name = options_.backend,
      .threads = options_.threads,
      .device = options_.device,
      .device_memory_bytes = options_.device_memory.bytes,
      .device_memory_part = options_.device_memory.part,
      .matmul = options_.matmul,
  });
  if (absl::IsUnavailable(created.status())) {
    // A machine without the GPU that its configuration asks for.
    return absl::FailedPreconditionError(created.status().message());
  }
  if (!created.ok()) return created.status();
  backend_ = std::move(created->backend);
  description_.passed_over = created->passed_over;
  if (!created->passed_over.empty()) {
    log->Write(LogLevel::kDebug, "backend_passed_over",
               {{"reason", created->passed_over}});
  }
  return absl::OkStatus();
}

void Server::MakeServices(Log* log) {
  description_.version = options_.version;
  description_.backend = backend_->info();
  description_.replica = options_.replica;
  core_ = {
      .call =
          {
              .limits = &options_.limits,
              .calls = calls_.get(),
              .identity = access_->identity(),
              .registry = &registry_,
              .connections = &connections_,
              .host = host_.get(),
              .buffers = &buffers_,
              .metrics = metrics_.get(),
              .log = log,
              .log_prompts = options_.log_prompts,
              .replica = options_.replica,
          },
      .run =
          {
              .limits = &options_.limits,
              .server = &description_,
              .scheduler = scheduler_.get(),
              .buffers = &buffers_,
              .requests = &requests_,
              .buffered = &buffered_,
              .executor = executor_.get(),
              .metrics = metrics_.get(),
              .activations = activations_.get(),
          },
      .results =
          {
              .store = results_.get(),
              .executor = spool_executor_.get(),
          },
  };
  service_ = std::make_unique<AnalysisService>(&core_);
  admin_service_ =
      std::make_unique<AdminService>(&core_.call, &description_, models_.get(),
                                     access_.get(), activations_.get());
}

absl::Status Server::DescribeModels(Log* log) {
  health_ = std::make_unique<HealthService>(access_->identity());
  health_->SetService("", false);
  health_->SetService(kServiceName, false);
  ModelManager::Parts parts;
  parts.limits = options_.limits;
  parts.admin = options_.model_admin;
  parts.max_descriptors = descriptors_.models;
  parts.check_weights = options_.check_weights;
  parts.backend = backend_.get();
  parts.registry = &registry_;
  parts.scheduler = scheduler_.get();
  parts.metrics = metrics_.get();
  parts.activations = activations_.get();
  parts.log = log;
  parts.set_health = [this](const std::string& model, bool serving) {
    health_->SetModel(model, serving);
  };
  QK_ASSIGN_OR_RETURN(models_, ModelManager::Create(std::move(parts)));
  for (const ModelToLoad& model : options_.models) {
    QK_RETURN_IF_ERROR(models_->Describe(model));
    health_->SetModel(model.name, false);
  }
  return absl::OkStatus();
}

absl::Status Server::OpenResults(Log* log) {
  if (!options_.spool.has_value()) return absl::OkStatus();
  ResultStore::Options options = *options_.spool;
  options.most_open = descriptors_.results;
  options.on_error = SpoolErrors(metrics_, log);
  std::vector<std::string> damaged;
  QK_ASSIGN_OR_RETURN(results_, ResultStore::Open(options, &damaged));
  for (const std::string& problem : damaged) {
    log->Warn("result_dropped", {{"reason", problem}});
  }
  spool_executor_ =
      std::make_unique<Executor>(1, [log](const absl::Status& status) {
        log->Error("exception", {{"reason", std::string(status.message())}});
      });
  return absl::OkStatus();
}

absl::Status Server::Listen(Log* log) {
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  if (!options_.reflection.value_or(!options_.access.has_users())) {
    builder.SetOption(std::make_unique<WithoutReflection>());
  }
  // The acceptor uses the same timeout as gRPC's keepalive pings.
  auto acceptor = Acceptor::Listen({options_.listen, options_.keepalive_timeout,
                                    descriptors_.connections_end},
                                   &connections_, log);
  if (!acceptor.ok()) {
    return absl::Status(acceptor.status().code(),
                        absl::StrCat("listen: ", acceptor.status().message()));
  }
  acceptor_ = *std::move(acceptor);
  const auto add = [&](std::shared_ptr<grpc::ServerCredentials> credentials) {
    return HandOver(builder.experimental().AddExternalConnectionAcceptor(
        grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
        std::move(credentials)));
  };
  const Acceptor::ConnectionHandler on_connection = add(access_->credentials());
  // The self-check has no client certificate, so it connects without TLS.
  const Acceptor::ConnectionHandler on_probe =
      add(grpc::InsecureServerCredentials());
  builder.RegisterService(service_.get());
  builder.RegisterService(admin_service_.get());
  builder.RegisterService(health_.get());
  if (!Http2GuardWorks()) {
    log->Warn("http2_guard", {{"reason",
                               "this version of gRPC is not mended, so put an "
                               "HTTP/2 proxy in front"}});
  }
  SetHttp2Limits(options_.keepalive, options_.keepalive_timeout, &builder);
  grpc_server_ = builder.BuildAndStart();
  if (grpc_server_ == nullptr) {
    return absl::UnavailableError("listen: gRPC cannot start");
  }
  address_ = WithPort(options_.listen, acceptor_->port());
  acceptor_->Start(on_connection, on_probe);
  return absl::OkStatus();
}

absl::Status Server::CheckSelf(absl::Duration timeout) {
  return qk::CheckSelf(acceptor_.get(), timeout);
}

absl::Status Server::ExposeMetrics() {
  if (options_.metrics_listen.empty()) return absl::OkStatus();
  MetricsListener::Options listen;
  listen.address = options_.metrics_listen;
  auto listener = MetricsListener::Listen(
      listen,
      [sources = MakeHttpSources()](const MetricsListener::Request& request) {
        return AnswerHttp(sources, request);
      });
  if (!listener.ok()) {
    return absl::Status(
        listener.status().code(),
        absl::StrCat("metrics_listen: ", listener.status().message()));
  }
  metrics_listener_ = *std::move(listener);
  metrics_address_ =
      WithPort(options_.metrics_listen, metrics_listener_->port());
  return absl::OkStatus();
}

HttpSources Server::MakeHttpSources() const {
  HttpSources out;
  out.documents = &options_.documents;
  out.identity = access_->identity();
  out.metrics = metrics_.get();
  out.activations = activations_.get();
  out.status.core = &core_;
  out.status.health = health_.get();
  out.status.read_device = [this] { return backend_->Read(); };
  out.status.recent = activations_->recent();
  if (options_.spool.has_value()) out.status.most_kept = options_.spool->most;
  out.status.started = started_;
  return out;
}

absl::Status Server::LoadModels() {
  for (const ModelToLoad& model : options_.models) {
    QK_RETURN_IF_ERROR(models_->Load(model));
  }
  health_->SetService("", true);
  health_->SetService(kServiceName, true);
  return absl::OkStatus();
}

void Server::BeginDrain() {
  calls_->StopAdmission();
  // Shutdown is final, so a load that ends later cannot set SERVING again.
  health_->Shutdown();
  scheduler_->StopAdmission();
}

void Server::SetOnDeviceLost(std::function<void(const absl::Status&)> on_lost) {
  backend_->SetOnLost(
      [this, on_lost = std::move(on_lost)](const absl::Status& reason) {
        BeginDrain();
        on_lost(reason);
      });
}

bool Server::WaitUntilIdle(absl::Time deadline) {
  return calls_->WaitUntilIdle(deadline);
}

void Server::Stop() {
  const absl::Status reason =
      WithCancelReason(CancelReason::kShutdown,
                       absl::UnavailableError("server is shutting down"));
  acceptor_->Stop();
  calls_->StopAdmission();
  calls_->AbortAll(reason);
  models_->Stop();
  scheduler_->CancelAll(reason);
  DelayPoint("shutdown");
  grpc_server_->Shutdown(std::chrono::system_clock::now() + kFlush);
  grpc_server_->Wait();
}

Server::~Server() {
  if (grpc_server_ != nullptr) {
    Stop();
  }
  if (backend_ != nullptr) backend_->SetOnLost(nullptr);  // runs may still end
  // A load in progress uses everything that is destroyed after it.
  models_.reset();
  grpc_server_.reset();
  metrics_listener_.reset();
  host_.reset();  // charges the scheduler's accounts
  // Runs may still post to the executor, so it goes last. Its tasks use only
  // their own calls.
  scheduler_.reset();
  spool_executor_.reset();
  executor_.reset();
}

}  // namespace qk
