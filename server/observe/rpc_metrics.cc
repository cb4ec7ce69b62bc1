#include "server/observe/rpc_metrics.h"

#include <utility>

#include "engine/base/check.h"
#include "server/common/grpc_status.h"

namespace qk {
namespace {

using prometheus::Histogram;

// Seconds of calls, from a look at the server's state to a long analysis. Few,
// because each is a series of every method; phases, which have no methods, are
// seen more finely.
Histogram::BucketBoundaries RpcSeconds() {
  return {0.002, 0.02, 0.2, 2, 10, 60, 600};
}

// Seconds of phases, which are parts of long calls or most of short ones.
Histogram::BucketBoundaries SecondsOfPhases() {
  return {0.001, 0.0025, 0.01, 0.025, 0.1, 0.25, 1, 2.5, 10, 30, 120, 600};
}

// Codes that alerts ask for. Their series are there from the beginning, so that
// the first call of a kind is an increase. Other codes appear when a call ends
// with them.
constexpr grpc::StatusCode kUsualCodes[] = {
    grpc::StatusCode::OK,
    grpc::StatusCode::CANCELLED,
    grpc::StatusCode::INVALID_ARGUMENT,
    grpc::StatusCode::DEADLINE_EXCEEDED,
    grpc::StatusCode::RESOURCE_EXHAUSTED,
    grpc::StatusCode::INTERNAL,
    grpc::StatusCode::UNAVAILABLE,
};

}  // namespace

RpcMetrics::RpcMetrics(const std::vector<std::string>& methods,
                       prometheus::Registry* registry)
    : handled_(AddCounters(
          registry, "qkscope_rpc_handled_total",
          "Calls that ended, by method and by the code that the client was "
          "sent. When no call is in progress, the sum over codes equals "
          "qkscope_rpc_started_total. A rare code is absent until it "
          "occurs.")) {
  CounterFamily& started =
      AddCounters(registry, "qkscope_rpc_started_total",
                  "Calls that reached a handler, by method.");
  HistogramFamily& duration =
      AddHistograms(registry, "qkscope_rpc_duration_seconds",
                    "Time from a call's arrival at its handler to its end, "
                    "whatever its code, in seconds. A stream ends when its "
                    "client has read it.");
  for (const std::string& name : methods) {
    auto method = std::make_unique<Method>();
    method->started = &started.Add({{"method", name}});
    method->duration = &duration.Add({{"method", name}}, RpcSeconds());
    for (const grpc::StatusCode code : kUsualCodes) {
      method->handled[code] = &HandledCounter(name, code);
    }
    methods_[name] = std::move(method);
  }
  CounterFamily& refused = AddCounters(
      registry, "qkscope_refused_total",
      "Requests that were refused before they ran, by reason. Each prompt of "
      "AnalyzeMany that is refused counts.");
  for (int i = 0; i <= static_cast<int>(Refusal::kUserBudget); ++i) {
    refused_.push_back(
        &refused.Add({{"reason", RefusalName(static_cast<Refusal>(i))}}));
  }
  CounterFamily& cancelled = AddCounters(
      registry, "qkscope_cancelled_total",
      "Calls that ended before their work was done: cancelled by the client or "
      "by Cancel, past their deadline, stalled because the client read "
      "nothing, or cut off when the server stopped.");
  for (int i = 0; i <= static_cast<int>(CancelReason::kShutdown); ++i) {
    cancelled_.push_back(&cancelled.Add(
        {{"reason", CancelReasonName(static_cast<CancelReason>(i))}}));
  }
  HistogramFamily& phases = AddHistograms(
      registry, "qkscope_request_phase_duration_seconds",
      "How long the phases of a request took that ran, in seconds, as its log "
      "line has it: queue (from the call's start until its first run began), "
      "prefill, decode (its share of the device's time in such passes), "
      "capture (a part of those two), stream (from its first event to its "
      "last). "
      "Observed once for each phase that happened, when the request ends.");
  const auto add = [&](const char* phase) {
    return &phases.Add({{"phase", phase}}, SecondsOfPhases());
  };
  queue_ = add("queue");
  prefill_ = add("prefill");
  decode_ = add("decode");
  capture_ = add("capture");
  stream_ = add("stream");
}

prometheus::Counter& RpcMetrics::HandledCounter(const std::string& method,
                                                grpc::StatusCode code) {
  return handled_.Add({{"method", method}, {"code", CodeName(code)}});
}

RpcMetrics::Method& RpcMetrics::Find(absl::string_view method) {
  const auto it = methods_.find(method);
  QK_CHECK(it != methods_.end());
  return *it->second;
}

void RpcMetrics::Started(absl::string_view method) {
  Find(method).started->Increment();
}

void RpcMetrics::Handled(absl::string_view method, grpc::StatusCode code,
                         double seconds) {
  Method& found = Find(method);
  // Neither this server nor gRPC ends calls with ABORTED, so it needs no
  // series.
  if (static_cast<size_t>(code) >= kCodes ||
      code == grpc::StatusCode::ABORTED) {
    code = grpc::StatusCode::UNKNOWN;
  }
  std::atomic<prometheus::Counter*>& counter = found.handled[code];
  // Several threads may add a counter; the family makes it once.
  if (counter == nullptr) counter = &HandledCounter(std::string(method), code);
  counter.load()->Increment();
  found.duration->Observe(seconds);
}

void RpcMetrics::CountRefusal(Refusal reason) {
  refused_[static_cast<size_t>(reason)]->Increment();
}

void RpcMetrics::CountCancelled(CancelReason reason) {
  cancelled_[static_cast<size_t>(reason)]->Increment();
}

void RpcMetrics::ObservePhases(const PhaseSeconds& phases) {
  queue_->Observe(phases.queue);
  const auto observe = [](prometheus::Histogram* phase, double seconds) {
    if (seconds > 0) phase->Observe(seconds);
  };
  observe(prefill_, phases.device.prefill);
  observe(decode_, phases.device.decode);
  observe(capture_, phases.device.capture);
  observe(stream_, phases.stream);
}

}  // namespace qk
