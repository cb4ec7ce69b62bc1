#include "client/qkctl/command.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/files/file_io.h"
#include "client/qkctl/flags/connection_flags.h"

namespace qk::client {
namespace {

// Hints for a server that cannot be reached. gRPC's message for a failed TLS
// handshake may say only that the connection is gone.
constexpr char kTlsHint[] =
    "; over TLS: see --tls-ca, --tls-server-name, --tls-cert and --tls-key)";
constexpr char kPlaintextHint[] = "; without TLS: see --tls)";

}  // namespace

CallOptions Context::Call() {
  CallOptions options;
  if (timeout_s.has_value()) options.timeout = absl::Seconds(*timeout_s);
  options.cancellation = &cancellation;
  options.retries = retries.value_or(0);
  return options;
}

ExitCode Context::Fail(const absl::Status& status) {
  const ExitCode code = ExitCodeOf(status);
  std::string text = absl::StrCat("qkctl: ", std::string(status.message()));
  if (code == kExitCancelled) {
    text = cancellation.cancelled() ? "qkctl: cancelled"
                                    : absl::StrCat(text, " (cancelled)");
  } else if (code == kExitUnavailable) {
    absl::StrAppend(&text, " (server ", client.server,
                    "; choose another with --server or QKSCOPE_SERVER",
                    client.tls.has_value() ? kTlsHint : kPlaintextHint);
  } else if (code == kExitDeadline) {
    absl::StrAppend(&text, " (--timeout SECONDS, or the server's limit)");
  } else if (code == kExitDenied) {
    absl::StrAppend(&text,
                    " (the token comes from QKSCOPE_TOKEN or --token-file)");
  }
  const std::string id = RequestIdOf(status);
  if (!id.empty()) absl::StrAppend(&text, " [request ", Printable(id), "]");
  console.Error(text);
  return code;
}

ExitCode Context::FailUsage(const absl::Status& status) {
  if (IsFileError(status)) return Fail(status);
  console.Error(absl::StrCat("qkctl: ", std::string(status.message())));
  return kExitUsage;
}

ExitCode Context::NonFinite(const std::string& text, bool allowed) {
  console.Error(absl::StrCat("qkctl: ", text));
  return allowed ? kExitOk : kExitNonFinite;
}

void AddAllowNonFinite(FlagSet* flags, bool* allow) {
  flags->Add("allow-non-finite",
             "exit with 0, not 14, if values are NaN or infinite", allow);
}

std::optional<ExitCode> ChooseModel(AnalysisClient* client, Context* context,
                                    std::string* model) {
  if (!model->empty()) return std::nullopt;
  absl::StatusOr<qkscope::v1::ListModelsResponse> response =
      client->ListModels(context->Call());
  if (!response.ok()) return context->Fail(response.status());
  if (response->models_size() == 1) {
    *model = response->models(0).name();
    return std::nullopt;
  }
  std::vector<std::string> names;
  for (const qkscope::v1::ModelInfo& info : response->models()) {
    names.push_back(info.name());
  }
  return context->FailUsage(absl::InvalidArgumentError(
      absl::StrCat("--model: the server has ", names.size(),
                   " models: ", absl::StrJoin(names, ", "))));
}

std::optional<ExitCode> CommandLine::Parse(
    const std::vector<std::string>& arguments, size_t max_words) {
  ConnectionFlags connection;
  connection.AddTo(context_->client, &context_->timeout_s, &context_->retries,
                   &flags_);
  if (context_->description != nullptr) {
    *context_->description = {text_, flags_.texts()};
    return kExitOk;
  }
  absl::StatusOr<std::vector<std::string>> words = flags_.Parse(arguments);
  if (words.ok() && connection.help) {
    context_->console.Print(
        absl::StrCat("Usage: qkctl ", text_.name, " [FLAGS]",
                     *text_.arguments == '\0' ? "" : " ", text_.arguments,
                     "\n\n", text_.summary, ".\n\n", text_.details,
                     flags_.Help(), "\n", kExitCodeHelp));
    return kExitOk;
  }
  absl::Status status = words.status();
  if (status.ok() && words->size() > max_words) {
    status = absl::InvalidArgumentError(
        absl::StrCat("unexpected argument '", (*words)[max_words], "'"));
  }
  if (status.ok() && context_->timeout_s.value_or(1) <= 0) {
    status = absl::InvalidArgumentError("--timeout: must be > 0");
  }
  if (status.ok()) status = connection.Apply(&context_->client);
  if (!status.ok()) {
    const ExitCode code = context_->FailUsage(status);
    context_->console.Error(absl::StrCat("See qkctl ", text_.name, " --help"));
    return code;
  }
  words_ = *std::move(words);
  return std::nullopt;
}

CommandDescription Describe(const Command& command) {
  CommandDescription description;
  Context context;
  context.description = &description;
  command.run({}, &context);
  return description;
}

}  // namespace qk::client
