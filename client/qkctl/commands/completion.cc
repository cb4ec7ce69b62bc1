#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/qkctl/command.h"
#include "client/qkctl/commands/completion_scripts.h"
#include "client/qkctl/commands/completion_words.h"
#include "client/qkctl/flags/connection_flags.h"

namespace qk::client {
namespace {

// Somebody waits at the keyboard for the names of the models.
constexpr absl::Duration kPatience = absl::Milliseconds(500);
constexpr size_t kMaxWords = 65536;

struct GlobalFlags {
  explicit GlobalFlags(const ClientOptions& client) {
    connection.AddTo(client, &timeout_s, &retries, &flags);
    flags.Add("version", "show the version", &version);
  }

  FlagSet flags;
  ConnectionFlags connection;
  std::optional<double> timeout_s;
  std::optional<int32_t> retries;
  bool version = false;
};

std::vector<std::string> AskForModels(const std::vector<std::string>& flags,
                                      ClientOptions client) {
  GlobalFlags global(client);
  if (!global.flags.Parse(flags).ok()) return {};
  if (!global.connection.Apply(&client).ok()) return {};
  CallOptions options;
  options.timeout = kPatience;
  const auto models = AnalysisClient::Create(client)->ListModels(options);
  std::vector<std::string> names;
  if (!models.ok()) return names;
  for (const qkscope::v1::ModelInfo& model : models->models()) {
    names.push_back(Printable(model.name()));
  }
  return names;
}

void PrintWords(const std::vector<std::string>& words, Context* context) {
  const GlobalFlags global(context->client);
  const Completion completion =
      CompleteWords(words, context->commands, global.flags.texts(),
                    [context](const std::vector<std::string>& flags) {
                      return AskForModels(flags, context->client);
                    });
  std::string text = completion.files ? "files\n" : "words\n";
  for (const Candidate& candidate : completion.candidates) {
    absl::StrAppend(&text, candidate.word, candidate.help.empty() ? "" : "\t",
                    candidate.help, "\n");
  }
  context->console.Print(text);
}

ExitCode RunCompletion(const std::vector<std::string>& arguments,
                       Context* context) {
  CommandLine line(kCompletionCommand.text, context);
  if (auto over = line.Parse(arguments, kMaxWords)) return *over;
  const std::vector<std::string>& words = line.words();
  if (words.size() == 1 && words[0] == "bash") {
    context->console.Print(kBashCompletion);
  } else if (words.size() == 1 && words[0] == "zsh") {
    context->console.Print(kZshCompletion);
  } else if (words.size() > 1 && words[0] == "words") {
    PrintWords({words.begin() + 1, words.end()}, context);
  } else {
    return context->FailUsage(absl::InvalidArgumentError(
        "completion: expected bash, zsh or words -- WORD...; see qkctl "
        "completion --help"));
  }
  return kExitOk;
}

}  // namespace

const Command kCompletionCommand = {
    {"completion", "bash | zsh | words -- WORD...",
     "Print a script that completes command lines of qkctl",
     "The Debian package installs both scripts. They complete commands, flags, "
     "names of\nfiles, and names of models, for which they ask the server for "
     "half a second at\nmost. `words` is what they call: it completes the last "
     "WORD.\n\n"
     "Examples:\n  source <(qkctl completion bash)\n"
     "  qkctl completion zsh > ~/.zfunc/_qkctl\n"},
    &RunCompletion};

}  // namespace qk::client
