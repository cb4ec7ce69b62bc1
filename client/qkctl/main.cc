// qkctl: the command line of qkscope.
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/qkctl/command.h"
#include "client/qkctl/flags/connection_flags.h"
#include "client/qkctl/flags/text_parse.h"
#include "engine/base/nearest_name.h"
#include "grpc/support/log.h"

namespace qk::client {
namespace {

const Command* const kCommands[] = {
    &kAnalyzeCommand, &kAnalyzeManyCommand, &kBaselineCommand,
    &kCancelCommand,  &kCompareCommand,     &kCompletionCommand,
    &kDoctorCommand,  &kEstimateCommand,    &kGenerateCommand,
    &kHealthCommand,  &kModelCommand,       &kModelsCommand,
    &kQueueCommand,   &kReplayCommand,      &kResultCommand,
    &kScoreCommand,   &kTokenizeCommand,    &kTopCommand,
    &kUsageCommand,   &kUserCommand};

std::string Help(const FlagSet& flags) {
  std::string help =
      "qkctl shows the massive values of Q and K in a language model.\n\n"
      "Usage: qkctl [--server ADDR] COMMAND [FLAGS]\n\nCommands:\n";
  for (const Command* command : kCommands) {
    absl::StrAppendFormat(&help, "  %-12s %s\n", command->text.name,
                          command->text.summary);
  }
  absl::StrAppend(
      &help,
      "\nSee qkctl COMMAND --help for details and examples. To begin with:\n"
      "  qkctl analyze --prompt 'The city of Paris is in' --arm clean "
      "--arm top_k:1\n",
      flags.Help(),
      "\nEnvironment: QKSCOPE_SERVER, QKSCOPE_TOKEN (bearer token), NO_COLOR\n"
      "\n",
      kExitCodeHelp);
  return help;
}

// Ctrl-C and SIGTERM cancel the call in progress; a second signal ends the
// process. Must run before other threads start, so that they inherit the
// blocked signals.
void CancelOnSignals(Cancellation* cancellation) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread([signals, cancellation] {
    int signal;
    sigwait(&signals, &signal);
    cancellation->Cancel();
    sigwait(&signals, &signal);
    _exit(kExitCancelled);
  }).detach();
}

ExitCode Dispatch(const std::vector<std::string>& words, Context* context) {
  std::vector<std::string> names;
  for (const Command* command : kCommands) {
    names.push_back(command->text.name);
    if (words[0] != command->text.name) continue;
    return command->run({words.begin() + 1, words.end()}, context);
  }
  const std::string meant = NearestName(words[0], names);
  return context->FailUsage(absl::InvalidArgumentError(absl::StrCat(
      "unknown command '", words[0], "'",
      meant.empty() ? "; see qkctl --help"
                    : absl::StrCat("; did you mean ", meant, "?"))));
}

ExitCode Main(const std::vector<std::string>& arguments, Context* context) {
  FlagSet flags;
  ConnectionFlags connection;
  bool version = false;
  connection.AddTo(context->client, &context->timeout_s, &context->retries,
                   &flags);
  flags.Add("version", "show the version", &version);
  absl::StatusOr<std::vector<std::string>> words =
      flags.Parse(arguments, /*stop_at_word=*/true);
  if (!words.ok()) return context->FailUsage(words.status());
  const absl::Status applied = connection.Apply(&context->client);
  if (!applied.ok()) return context->FailUsage(applied);
  if (version) {
    context->console.Print("qkctl " QK_VERSION "\n");
    return kExitOk;
  }
  if (connection.help || (!words->empty() && (*words)[0] == "help")) {
    if (words->size() > 1) return Dispatch({(*words)[1], "--help"}, context);
    context->console.Print(Help(flags));
    return kExitOk;
  }
  if (words->empty()) {
    context->console.Error(Help(flags));
    return kExitUsage;
  }
  return Dispatch(*words, context);
}

}  // namespace
}  // namespace qk::client

int main(int argc, char** argv) {
  // A call's status has all that gRPC would print.
  if (std::getenv("GRPC_VERBOSITY") == nullptr) {
    gpr_set_log_function([](gpr_log_func_args*) {});
  }
  // Never deleted: the signal thread may use it until the process ends.
  auto* const context = new qk::client::Context();
  context->version = QK_VERSION;
  context->commands = {std::begin(qk::client::kCommands),
                       std::end(qk::client::kCommands)};
  qk::client::CancelOnSignals(&context->cancellation);
  try {
    return qk::client::Main({argv + 1, argv + argc}, context);
  } catch (const std::exception& error) {
    // No memory, or no threads.
    context->console.Error(absl::StrCat("qkctl: ", error.what()));
    return qk::client::kExitOther;
  }
}
