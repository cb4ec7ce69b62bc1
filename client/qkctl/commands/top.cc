#include <unistd.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/qkctl/command.h"
#include "client/qkctl/output/requests_view.h"
#include "engine/base/monotonic.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

// Gets all users' entries for an operator, and the caller's own for others.
template <typename Get>
auto AllOrOwn(bool* all_users, const Get& get) -> decltype(get(true)) {
  auto response = get(*all_users);
  if (*all_users && absl::IsPermissionDenied(response.status())) {
    *all_users = false;
    response = get(false);
  }
  return response;
}

std::string ModelsText(const v1::ListModelsResponse& models) {
  std::string out;
  for (const v1::ModelInfo& model : models.models()) {
    absl::StrAppendFormat(
        &out, "model %s: %s, %s on %s, %s\n", Printable(model.name()),
        v1::ModelInfo::State_Name(model.state()), model.compute_type(),
        model.backend(), HumanSize(MemoryBytes(model)));
  }
  return out;
}

absl::StatusOr<std::string> Screen(AnalysisClient* client, Context* context,
                                   bool* all_users) {
  const auto info = client->GetServerInfo(context->Call());
  if (!info.ok()) return info.status();
  const auto models = client->ListModels(context->Call());
  if (!models.ok()) return models.status();
  const auto usage = AllOrOwn(all_users, [&](bool all) {
    return client->GetUsage(all, context->Call());
  });
  if (!usage.ok()) return usage.status();
  const auto requests = AllOrOwn(all_users, [&](bool all) {
    return client->ListRequests(all, context->Call());
  });
  if (!requests.ok()) return requests.status();
  int waiting = 0, running = 0;
  for (const v1::ListedRequest& request : requests->requests()) {
    waiting += request.state() == v1::ListedRequest::QUEUED;
    running += request.state() == v1::ListedRequest::RUNNING;
  }
  std::string out = absl::StrFormat(
      "%s  qkscope %s at %s: %d running, %d waiting%s\n",
      absl::FormatTime("%H:%M:%S", absl::Now(), absl::LocalTimeZone()),
      Printable(info->version()), context->client.server, running, waiting,
      *all_users ? "" : " (yours)");
  for (const v1::BackendInfo& backend : info->backends()) {
    absl::StrAppend(&out, "device ", Printable(backend.name()), ": ",
                    Printable(backend.device()),
                    backend.threads() == 0
                        ? ""
                        : absl::StrCat(", ", backend.threads(), " threads"),
                    "\n");
  }
  absl::StrAppend(&out, ModelsText(*models), "\n",
                  UsageTable(*usage, context->console), "\n",
                  RequestsTable(*requests, context->console));
  return out;
}

ExitCode RunTop(const std::vector<std::string>& arguments, Context* context) {
  CommandLine line(kTopCommand.text, context);
  std::optional<double> interval;
  bool once = false;
  line.flags()->Section("Output");
  line.flags()->Add("interval", "SECONDS", "time between updates (default 2)",
                    &interval);
  line.flags()->Add(
      "once", "print once; implied if the output is not a terminal", &once);
  if (auto over = line.Parse(arguments, 0)) return *over;
  if (interval.has_value() && !(*interval >= 0.1 && *interval <= 3600)) {
    return context->FailUsage(absl::InvalidArgumentError(
        "--interval: must be in [0.1, 3600] seconds"));
  }
  once |= !isatty(STDOUT_FILENO);
  const std::unique_ptr<AnalysisClient> client = context->Connect();
  bool all_users = true;
  for (;;) {
    const auto screen = Screen(client.get(), context, &all_users);
    if (context->cancellation.cancelled()) return kExitOk;
    if (!screen.ok()) return context->Fail(screen.status());
    context->console.Print(once ? *screen
                                : absl::StrCat("\033[H\033[2J", *screen));
    if (once) return kExitOk;
    const absl::Time next =
        MonotonicNow() + absl::Seconds(interval.value_or(2));
    while (MonotonicNow() < next) {
      if (context->cancellation.cancelled()) return kExitOk;
      absl::SleepFor(std::min(absl::Milliseconds(50), next - MonotonicNow()));
    }
  }
}

}  // namespace

const Command kTopCommand = {
    {"top", "", "Watch the queue, users' shares, device and memory",
     "Operators see all requests, other users their own. Press Ctrl-C to "
     "quit.\n\nExamples:\n  qkctl top\n  qkctl top --once\n"},
    &RunTop};

}  // namespace qk::client
