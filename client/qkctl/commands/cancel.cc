#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/qkctl/command.h"

namespace qk::client {
namespace {

ExitCode RunCancel(const std::vector<std::string>& arguments,
                   Context* context) {
  CommandLine line(kCancelCommand.text, context);
  if (auto over = line.Parse(arguments, 64)) return *over;
  if (line.words().empty()) {
    return context->FailUsage(
        absl::InvalidArgumentError("cancel: needs a request id"));
  }
  const std::unique_ptr<AnalysisClient> client = context->Connect();
  ExitCode code = kExitOk;
  for (const std::string& id : line.words()) {
    const auto response = client->Cancel(id, context->Call());
    if (!response.ok()) {
      code = context->Fail(response.status());
      continue;
    }
    context->console.Print(absl::StrCat(
        id, response->was_running() ? " cancelled\n" : " deleted\n"));
  }
  return code;
}

}  // namespace

const Command kCancelCommand = {
    {"cancel", "ID...", "Cancel requests and delete their kept results",
     "Operators may cancel any user's requests. qkctl queue shows the ids.\n\n"
     "Examples:\n  qkctl cancel 1f2e3d4c5b6a7988\n"},
    &RunCancel};

}  // namespace qk::client
