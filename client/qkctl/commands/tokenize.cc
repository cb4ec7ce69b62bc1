#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/files/json_writer.h"
#include "client/qkctl/command.h"
#include "client/qkctl/flags/flag_values.h"
#include "client/qkctl/flags/request_flags.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

ExitCode Detokenize(AnalysisClient* client, const std::string& model,
                    const std::string& ids, bool keep_special,
                    Context* context) {
  v1::DetokenizeRequest request;
  request.set_model(model);
  absl::Status parsed = SetList("--decode", ids, request.mutable_token_ids());
  if (!parsed.ok()) return context->FailUsage(parsed);
  if (keep_special) request.set_keep_special(true);
  absl::StatusOr<v1::DetokenizeResponse> response =
      client->Detokenize(request, context->Call());
  if (!response.ok()) return context->Fail(response.status());
  context->console.Print(response->text() + "\n");
  return kExitOk;
}

void PrintTokens(const v1::TokenizeResponse& response, Console* console) {
  std::string table = console->Bold(
      absl::StrFormat("%8s  %6s  %6s  %s", "id", "begin", "end", "piece"));
  table += "\n";
  for (const v1::TokenPiece& token : response.tokens()) {
    absl::StrAppendFormat(&table, "%8d  %6d  %6d  %s\n", token.id(),
                          token.begin(), token.end(),
                          absl::StrCat("'", Printable(token.piece()), "'",
                                       token.special() ? " special" : ""));
  }
  console->Print(table);
}

void PrintIds(const v1::TokenizeResponse& response, Console* console) {
  std::string ids;
  for (const v1::TokenPiece& token : response.tokens()) {
    absl::StrAppend(&ids, ids.empty() ? "" : ",", token.id());
  }
  console->Print(ids + "\n");
}

ExitCode RunTokenize(const std::vector<std::string>& arguments,
                     Context* context) {
  CommandLine line(kTokenizeCommand.text, context);
  InputFlags input_flags;
  std::optional<std::string> model, decode;
  bool json = false, ids = false, keep_special = false;
  line.flags()->Section("Request");
  line.flags()->Add("model", "NAME", "default: the server's only model",
                    &model);
  line.flags()->Add("decode", "IDS", "turn ids into text instead", &decode);
  line.flags()->Add("keep-special",
                    "with --decode: write special tokens as text",
                    &keep_special);
  input_flags.AddTo(line.flags());
  line.flags()->Section("Output");
  line.flags()->Add("ids", "print only the ids, in the form of --token-ids",
                    &ids);
  line.flags()->Add("json", "print one JSON object", &json);
  if (auto over = line.Parse(arguments, 0)) return *over;
  v1::TokenizeRequest request;
  if (!decode.has_value()) {
    absl::StatusOr<v1::Input> input = input_flags.Build();
    if (!input.ok()) return context->FailUsage(input.status());
    *request.mutable_input() = *std::move(input);
  }
  request.set_model(model.value_or(""));
  const std::unique_ptr<AnalysisClient> client = context->Connect();
  if (auto failed =
          ChooseModel(client.get(), context, request.mutable_model())) {
    return *failed;
  }
  if (decode.has_value()) {
    return Detokenize(client.get(), request.model(), *decode, keep_special,
                      context);
  }
  absl::StatusOr<v1::TokenizeResponse> response =
      client->Tokenize(request, context->Call());
  if (!response.ok()) return context->Fail(response.status());
  if (json) {
    context->console.Print(ToJson(*response) + "\n");
  } else if (ids) {
    PrintIds(*response, &context->console);
  } else {
    PrintTokens(*response, &context->console);
  }
  return kExitOk;
}

}  // namespace

const Command kTokenizeCommand = {
    {"tokenize", "", "Show a text's tokens, or the text of tokens",
     "Examples:\n  qkctl tokenize --prompt 'The city of Paris'\n"
     "  qkctl tokenize --prompt 'The city of Paris' --ids\n"
     "  qkctl tokenize --decode 504,2240,282,7042\n"},
    &RunTokenize};

}  // namespace qk::client
