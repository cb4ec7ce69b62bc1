// How `analyze` and `result` show and save the events of a request.
#ifndef QKSCOPE_CLIENT_QKCTL_COMMANDS_ANALYZE_OUTPUT_H_
#define QKSCOPE_CLIENT_QKCTL_COMMANDS_ANALYZE_OUTPUT_H_

#include <functional>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "client/qkctl/command.h"

namespace qk::client {

class AnalyzeOutput {
 public:
  struct Files {
    std::optional<std::string> out, manifest;
  };
  using Call = std::function<absl::StatusOr<AnalysisResult>(
      const AnalyzeObserver& observer)>;

  void AddTo(FlagSet* flags);
  bool saves() const {
    return files_.out.has_value() || files_.manifest.has_value();
  }
  // Finds out whether the files can be written. Call it before the request is
  // sent, so that no work is lost.
  absl::Status CheckFiles() const;
  // Makes the call, shows its events and saves its result. `kept`: the server
  // keeps the results, so the request's id stands beside every error.
  ExitCode Run(Context* context, bool kept, const Call& call) const;

 private:
  bool all_arms_ = false, json_ = false, explain_ = false;
  Files files_;
};

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_COMMANDS_ANALYZE_OUTPUT_H_
