// Where the server's metrics come from.
#include <utility>

#include "engine/create_backend.h"
#include "server/net/http2_guard.h"
#include "server/server.h"

namespace qk {

// Scrapes begin after Start has made all parts, and end before these do.
void Server::MakeMetrics(Log* log) {
  Metrics::Options options;
  options.version = options_.version;
  options.replica = options_.replica;
  options.backend = backend_->info().name;
  options.methods = AnalysisService::Methods();
  for (std::string& method : AdminService::Methods()) {
    options.methods.push_back(std::move(method));
  }
  options.read_device = [this] { return backend_->Read(); };
  options.device = backend_->info().device;
  ServiceSources& sources = options.sources;
  sources.state = [this] {
    return ServiceSources::State{health_->serving(), calls_->draining()};
  };
  sources.load = [this] { return scheduler_->Load(); };
  sources.buffers = &buffers_;
  sources.buffered = &buffered_;
  if (options_.spool.has_value()) {
    sources.kept = [this] {
      const KeptAmount kept = results_->Kept();
      const KeptAmount& most = options_.spool->most;
      return ServiceSources::Kept{kept.results, most.results, kept.bytes,
                                  most.bytes};
    };
  }
  sources.connections = [this] { return connections_.CountOpen(); };
  sources.connections_cut = Http2ConnectionsCut;
  if (access_->certificate_expiry().has_value()) {
    sources.certificate_expiry = [this] {
      return *access_->certificate_expiry();
    };
  }
  sources.log_dropped = [log] { return log->dropped(); };
  metrics_ = std::make_shared<Metrics>(options);
}

}  // namespace qk
