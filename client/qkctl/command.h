// What all subcommands of qkctl share: the common flags, --help and error
// reports.
#ifndef QKSCOPE_CLIENT_QKCTL_COMMAND_H_
#define QKSCOPE_CLIENT_QKCTL_COMMAND_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "client/cpp/analysis_client.h"
#include "client/qkctl/flags/flags.h"
#include "client/qkctl/output/console.h"
#include "client/qkctl/output/exit_code.h"

namespace qk::client {

struct Command;

struct CommandText {
  const char* name;
  const char* arguments;  // follow the flags in the usage line; may be empty
  const char* summary;    // one line
  const char* details;    // paragraphs and examples; ends with a newline
};

// What a command takes.
struct CommandDescription {
  CommandText text;
  std::vector<FlagText> flags;
};

// What the process passes to its subcommand.
struct Context {
  ClientOptions client = ClientOptions::FromEnvironment();
  std::string version;  // of qkctl
  std::optional<double> timeout_s;
  std::optional<int32_t> retries;
  Cancellation cancellation;
  Console console = Console::ForProcess();
  std::vector<const Command*> commands;  // all that qkctl has
  // If this is set, a command fills it, and does nothing else.
  CommandDescription* description = nullptr;

  std::unique_ptr<AnalysisClient> Connect() const {
    return AnalysisClient::Create(client);
  }
  CallOptions Call();

  // Print the error and return its exit code.
  ExitCode Fail(const absl::Status& status);
  ExitCode FailUsage(const absl::Status& status);
  // Prints that values are not finite, and returns the exit code of a command
  // whose result they are.
  ExitCode NonFinite(const std::string& text, bool allowed);
};

// Adds --allow-non-finite.
void AddAllowNonFinite(FlagSet* flags, bool* allow);

// Sets an empty `model` to the server's only model. Returns an exit code if the
// command cannot continue.
std::optional<ExitCode> ChooseModel(AnalysisClient* client, Context* context,
                                    std::string* model);

class CommandLine {
 public:
  CommandLine(const CommandText& text, Context* context)
      : text_(text), context_(context) {}

  FlagSet* flags() { return &flags_; }
  // The arguments that are not flags.
  const std::vector<std::string>& words() const { return words_; }

  // Parses the arguments and applies the common flags. Returns an exit code if
  // the command is over, because of --help, wrong usage, or because it was to
  // be described.
  std::optional<ExitCode> Parse(const std::vector<std::string>& arguments,
                                size_t max_words);

 private:
  CommandText text_;
  Context* context_;
  FlagSet flags_;
  std::vector<std::string> words_;
};

struct Command {
  CommandText text;
  ExitCode (*run)(const std::vector<std::string>& arguments, Context* context);
};

CommandDescription Describe(const Command& command);

// The subcommands, one per file.
extern const Command kModelsCommand;
extern const Command kAnalyzeCommand;
extern const Command kAnalyzeManyCommand;
extern const Command kBaselineCommand;
extern const Command kCompareCommand;
extern const Command kCompletionCommand;
extern const Command kDoctorCommand;
extern const Command kEstimateCommand;
extern const Command kCancelCommand;
extern const Command kModelCommand;
extern const Command kQueueCommand;
extern const Command kReplayCommand;
extern const Command kResultCommand;
extern const Command kTopCommand;
extern const Command kUsageCommand;
extern const Command kTokenizeCommand;
extern const Command kGenerateCommand;
extern const Command kScoreCommand;
extern const Command kHealthCommand;
extern const Command kUserCommand;

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_COMMAND_H_
