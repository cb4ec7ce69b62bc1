#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/qkctl/command.h"
#include "engine/base/monotonic.h"

namespace qk::client {
namespace {

// The pause between two checks of a server that is not up yet.
constexpr absl::Duration kPollInterval = absl::Milliseconds(100);

ExitCode RunHealth(const std::vector<std::string>& arguments,
                   Context* context) {
  CommandLine line(kHealthCommand.text, context);
  std::optional<std::string> model;
  std::optional<double> wait_s;
  line.flags()->Section("Request");
  line.flags()->Add("model", "NAME", "ask about this model (default: all)",
                    &model);
  line.flags()->Add("wait", "SECONDS",
                    "retry for up to this time until it serves", &wait_s);
  if (auto over = line.Parse(arguments, 0)) return *over;
  const absl::Time until = MonotonicNow() + absl::Seconds(wait_s.value_or(0));
  absl::Status status;
  do {
    // A failed channel backs off for seconds; a new channel connects at once.
    status =
        context->Connect()->CheckHealth(model.value_or(""), context->Call());
    if (status.code() != absl::StatusCode::kUnavailable ||
        context->cancellation.cancelled() || MonotonicNow() >= until) {
      break;
    }
    absl::SleepFor(kPollInterval);
  } while (true);
  if (!status.ok()) return context->Fail(status);
  context->console.Print("SERVING\n");
  return kExitOk;
}

}  // namespace

const Command kHealthCommand = {
    {"health", "", "Check whether the server, or a model, is serving",
     "Exit code 0: serving; 3: not serving.\n\nExamples:\n  qkctl health\n"
     "  qkctl health --model smollm2 --wait 30\n"},
    &RunHealth};

}  // namespace qk::client
