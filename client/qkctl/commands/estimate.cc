#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "client/files/json_writer.h"
#include "client/qkctl/command.h"
#include "client/qkctl/flags/request_flags.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

void PrintEstimate(const v1::Estimates& estimate, Console* console) {
  console->Print(absl::StrFormat(
      "prompt            %d tokens\n"
      "to be streamed    %.3f MiB\n"
      "extra memory      %.3f MiB at most\n"
      "queue position    %d\n"
      "expected wait     %.0f ms\n",
      estimate.prompt_tokens(), estimate.streamed_bytes() / 1048576.0,
      estimate.peak_extra_bytes() / 1048576.0, estimate.queue_position(),
      estimate.expected_wait_ms()));
}

ExitCode RunEstimate(const std::vector<std::string>& arguments,
                     Context* context) {
  CommandLine line(kEstimateCommand.text, context);
  RequestFlags request_flags;
  bool json = false;
  request_flags.AddTo(line.flags());
  line.flags()->Section("Output");
  line.flags()->Add("json", "print one JSON object, with the expanded request",
                    &json);
  if (auto over = line.Parse(arguments, 0)) return *over;
  absl::StatusOr<v1::AnalyzeRequest> request = request_flags.Build();
  if (!request.ok()) return context->FailUsage(request.status());
  const std::unique_ptr<AnalysisClient> client = context->Connect();
  if (auto failed =
          ChooseModel(client.get(), context, request->mutable_model())) {
    return *failed;
  }
  absl::StatusOr<v1::EstimateResponse> response =
      client->Estimate(*request, context->Call());
  if (!response.ok()) return context->Fail(response.status());
  if (json) {
    context->console.Print(ToJson(*response) + "\n");
  } else {
    PrintEstimate(response->estimate(), &context->console);
  }
  return kExitOk;
}

}  // namespace

const Command kEstimateCommand = {
    {"estimate", "", "Estimate what an analysis would need, without running it",
     "Takes the flags of analyze.\n\nExamples:\n"
     "  qkctl estimate --prompt-file long.txt --form raw --arm clean "
     "--arm top_k:1\n"
     "  qkctl estimate --token-ids 92,95,93 --image cat.png --vision-layers "
     "0-3\n"},
    &RunEstimate};

}  // namespace qk::client
