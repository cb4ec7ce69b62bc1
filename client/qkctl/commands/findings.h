// What `qkctl doctor` found: a line for the user at once, and the same without
// addresses and messages of errors for others to read.
#ifndef QKSCOPE_CLIENT_QKCTL_COMMANDS_FINDINGS_H_
#define QKSCOPE_CLIENT_QKCTL_COMMANDS_FINDINGS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/qkctl/output/console.h"
#include "client/qkctl/output/exit_code.h"

namespace qk::client {

class Findings {
 public:
  explicit Findings(Console* console) : console_(console) {}

  // `what` was looked at. `for_user` follows `text` on the terminal alone.
  void Good(const std::string& what, const std::string& text,
            const std::string& for_user = "") {
    Add("ok", what, text, text + for_user);
  }
  // Something that may or may not be as it should.
  void Note(const std::string& what, const std::string& text,
            const std::string& for_user = "") {
    Add("note", what, text, text + for_user);
  }
  // The report has the status' code alone.
  void Fail(const std::string& what, const absl::Status& status);
  // Good or Fail.
  void Add(const std::string& what, const absl::StatusOr<std::string>& found);

  // That of the first failure.
  ExitCode code() const { return code_; }
  const std::string& report() const { return report_; }

 private:
  void Add(const char* result, const std::string& what, const std::string& text,
           const std::string& shown);

  Console* const console_;
  ExitCode code_ = kExitOk;
  std::string report_;
};

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_COMMANDS_FINDINGS_H_
