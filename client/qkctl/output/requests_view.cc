#include "client/qkctl/output/requests_view.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/base/request_id.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

std::string StateText(const v1::ListedRequest& request) {
  switch (request.state()) {
    case v1::ListedRequest::QUEUED:
      return absl::StrCat("queued, ", request.queue_position(), " ahead");
    case v1::ListedRequest::RUNNING:
      return request.has_events()
                 ? absl::StrCat("running, ", request.events(), " events kept")
                 : "running";
    case v1::ListedRequest::STREAMING:
      return "waiting for its reader";
    case v1::ListedRequest::FINISHED:
      return absl::StrCat(
          request.code() == 0 ? "finished"
                              : absl::StrCat("failed (", request.code(), ")"),
          ", kept for ",
          HumanTime(static_cast<double>(request.expires_in_ms())));
    default:
      return "-";
  }
}

// "1.2 s of 60 s"
std::string UsedOfLimit(const std::string& used, bool limited,
                        const std::string& limit) {
  return limited ? absl::StrCat(used, " of ", limit) : used;
}

}  // namespace

double MemoryBytes(const v1::ModelInfo& model) {
  const double host = static_cast<double>(model.host_bytes());
  return model.backend() == "cpu"
             ? host
             : host + static_cast<double>(model.device_bytes());
}

std::string HumanSize(double bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  for (; bytes >= 1024 && unit < 4; ++unit) bytes /= 1024;
  return unit == 0 ? absl::StrFormat("%.0f %s", bytes, kUnits[unit])
                   : absl::StrFormat("%.1f %s", bytes, kUnits[unit]);
}

std::string HumanTime(double milliseconds) {
  if (milliseconds < 1000) return absl::StrFormat("%.0f ms", milliseconds);
  if (milliseconds < 120'000) {
    return absl::StrFormat("%.1f s", milliseconds / 1000);
  }
  return absl::StrFormat("%.0f min", milliseconds / 60'000);
}

std::string RequestsTable(const v1::ListRequestsResponse& requests,
                          const Console& console) {
  if (requests.requests().empty()) return "no requests\n";
  size_t width = 16;
  for (const v1::ListedRequest& request : requests.requests()) {
    width = std::max(width, request.request_id().size());
  }
  const int id_width = static_cast<int>(std::min(width, kMaxRequestId));
  std::string out = console.Bold(absl::StrFormat(
                        "%-*s  %-12s  %-12s  %-16s  %4s  %6s  %8s"
                        "  %9s  %-11s  %s",
                        id_width, "id", "user", "method", "model", "arms",
                        "tokens", "age", "device", "class", "state")) +
                    "\n";
  for (const v1::ListedRequest& request : requests.requests()) {
    absl::StrAppendFormat(
        &out, "%-*s  %-12s  %-12s  %-16s  %4d  %6d  %8s  %9s  %-11s  %s\n",
        id_width, Printable(request.request_id()), Printable(request.user()),
        Printable(request.method()), Printable(request.model()), request.arms(),
        request.prompt_tokens(),
        HumanTime(static_cast<double>(request.age_ms())),
        HumanTime(request.device_ms()),
        request.priority() == v1::BATCH ? "batch" : "interactive",
        StateText(request));
  }
  return out;
}

std::string UsageTable(const v1::GetUsageResponse& usage,
                       const Console& console) {
  std::string out = console.Bold(absl::StrFormat(
                        "%-12s  %6s  %6s  %-14s  %-22s  %-24s  %-8s  %-14s  %s",
                        "user", "weight", "share", "requests", "device",
                        "streamed", "window", "results", "kept")) +
                    "\n";
  for (const v1::UserUsage& user : usage.users()) {
    std::string requests =
        UsedOfLimit(absl::StrCat(user.requests_in_flight()),
                    user.has_max_requests_in_flight(),
                    absl::StrCat(user.max_requests_in_flight()));
    if (user.requests_queued() > 0) {
      absl::StrAppend(&requests, ", ", user.requests_queued(), " wait");
    }
    absl::StrAppendFormat(
        &out, "%-12s  %6g  %5.0f%%  %-14s  %-22s  %-24s  %-8s  %-14s  %s\n",
        Printable(user.user()), user.weight(), user.share() * 100, requests,
        UsedOfLimit(HumanTime(user.device_ms()), user.has_device_ms_budget(),
                    HumanTime(static_cast<double>(user.device_ms_budget()))),
        UsedOfLimit(HumanSize(static_cast<double>(user.streamed_bytes())),
                    user.has_bytes_budget(),
                    HumanSize(static_cast<double>(user.bytes_budget()))),
        HumanTime(static_cast<double>(user.window_s()) * 1000),
        UsedOfLimit(absl::StrCat(user.kept_results()),
                    user.has_max_kept_results(),
                    absl::StrCat(user.max_kept_results())),
        UsedOfLimit(HumanSize(static_cast<double>(user.kept_bytes())),
                    user.has_max_kept_bytes(),
                    HumanSize(static_cast<double>(user.max_kept_bytes()))));
  }
  return out;
}

}  // namespace qk::client
