#include <memory>
#include <string>
#include <vector>

#include "client/qkctl/command.h"
#include "client/qkctl/commands/analyze_output.h"

namespace qk::client {
namespace {

ExitCode RunResult(const std::vector<std::string>& arguments,
                   Context* context) {
  CommandLine line(kResultCommand.text, context);
  AnalyzeOutput output;
  output.AddTo(line.flags());
  if (auto over = line.Parse(arguments, 1)) return *over;
  if (line.words().empty()) {
    return context->FailUsage(
        absl::InvalidArgumentError("result: needs a request id"));
  }
  const absl::Status writable = output.CheckFiles();
  if (!writable.ok()) return context->FailUsage(writable);
  const std::unique_ptr<AnalysisClient> client = context->Connect();
  return output.Run(
      context, /*kept=*/true, [&](const AnalyzeObserver& observer) {
        return client->FetchResult(line.words()[0], observer, context->Call());
      });
}

}  // namespace

const Command kResultCommand = {
    {"result", "ID", "Show the results of analyze --detach or --resumable",
     "Waits for results that are still to come. qkctl queue shows how long "
     "results are\nkept.\n\nExamples:\n"
     "  id=$(qkctl analyze --prompt 'The city of Paris is in' --detach)\n"
     "  qkctl result $id\n"
     "  qkctl result $id --out p.safetensors\n"},
    &RunResult};

}  // namespace qk::client
