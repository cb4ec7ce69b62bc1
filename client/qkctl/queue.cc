#include <memory>
#include <string>
#include <vector>

#include "client/json_writer.h"
#include "client/qkctl/command.h"
#include "client/qkctl/requests_view.h"

namespace qk::client {
namespace {

ExitCode RunQueue(const std::vector<std::string>& arguments, Context* context) {
  CommandLine line(kQueueCommand.text, context);
  bool all_users = false, json = false;
  line.flags()->Section("Request");
  line.flags()->Add("all-users", "everybody's: for operators", &all_users);
  line.flags()->Section("Output");
  line.flags()->Add("json", "one JSON object instead of the table", &json);
  if (auto over = line.Parse(arguments, 0)) return *over;
  const auto requests =
      context->Connect()->ListRequests(all_users, context->Call());
  if (!requests.ok()) return context->Fail(requests.status());
  context->console.Print(json ? ToJson(*requests) + "\n"
                              : RequestsTable(*requests, context->console));
  return kExitOk;
}

ExitCode RunUsage(const std::vector<std::string>& arguments, Context* context) {
  CommandLine line(kUsageCommand.text, context);
  bool all_users = false, json = false;
  line.flags()->Section("Request");
  line.flags()->Add("all-users", "everybody's: for operators", &all_users);
  line.flags()->Section("Output");
  line.flags()->Add("json", "one JSON object instead of the table", &json);
  if (auto over = line.Parse(arguments, 0)) return *over;
  const auto usage = context->Connect()->GetUsage(all_users, context->Call());
  if (!usage.ok()) return context->Fail(usage.status());
  context->console.Print(json ? ToJson(*usage) + "\n"
                              : UsageTable(*usage, context->console));
  return kExitOk;
}

}  // namespace

const Command kQueueCommand = {
    {"queue", "", "List requests that wait, run, or whose results are kept",
     "Examples:\n  qkctl queue\n  qkctl queue --all-users --json\n"},
    &RunQueue};

const Command kUsageCommand = {
    {"usage", "", "Show what was used of the device, and budgets",
     "Examples:\n  qkctl usage\n"},
    &RunUsage};

}  // namespace qk::client
