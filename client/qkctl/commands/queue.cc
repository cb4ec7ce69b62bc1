#include <memory>
#include <string>
#include <vector>

#include "client/files/json_writer.h"
#include "client/qkctl/command.h"
#include "client/qkctl/output/requests_view.h"

namespace qk::client {
namespace {

// Asks for the caller's or all users' entries, and prints a table or JSON.
template <typename Response>
ExitCode AskAndPrint(
    const CommandText& text, const std::vector<std::string>& arguments,
    Context* context,
    absl::StatusOr<Response> (AnalysisClient::*ask)(bool, const CallOptions&),
    std::string (*table)(const Response&, const Console&)) {
  CommandLine line(text, context);
  bool all_users = false, json = false;
  line.flags()->Section("Request");
  line.flags()->Add("all-users", "show all users; for operators", &all_users);
  line.flags()->Section("Output");
  line.flags()->Add("json", "print one JSON object instead of the table",
                    &json);
  if (auto over = line.Parse(arguments, 0)) return *over;
  const std::unique_ptr<AnalysisClient> client = context->Connect();
  const auto response = (client.get()->*ask)(all_users, context->Call());
  if (!response.ok()) return context->Fail(response.status());
  context->console.Print(json ? ToJson(*response) + "\n"
                              : table(*response, context->console));
  return kExitOk;
}

ExitCode RunQueue(const std::vector<std::string>& arguments, Context* context) {
  return AskAndPrint(kQueueCommand.text, arguments, context,
                     &AnalysisClient::ListRequests, &RequestsTable);
}

ExitCode RunUsage(const std::vector<std::string>& arguments, Context* context) {
  return AskAndPrint(kUsageCommand.text, arguments, context,
                     &AnalysisClient::GetUsage, &UsageTable);
}

}  // namespace

const Command kQueueCommand = {
    {"queue", "", "List requests that wait, run or have kept results",
     "Examples:\n  qkctl queue\n  qkctl queue --all-users --json\n"},
    &RunQueue};

const Command kUsageCommand = {
    {"usage", "", "Show the usage of the device, and budgets",
     "Examples:\n  qkctl usage\n"},
    &RunUsage};

}  // namespace qk::client
