#include "client/qkctl/commands/findings.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace qk::client {
namespace {

constexpr char kFailed[] = "FAILED";

std::string Line(const std::string& result, const std::string& what,
                 const std::string& text) {
  return absl::StrFormat("%s  %-14s  %s\n", result, Printable(what),
                         Printable(text));
}

}  // namespace

void Findings::Fail(const std::string& what, const absl::Status& status) {
  if (code_ == kExitOk) code_ = ExitCodeOf(status);
  const std::string code = absl::StatusCodeToString(status.code());
  Add(kFailed, what, code,
      absl::StrCat(code, ": ", std::string(status.message())));
}

void Findings::Add(const std::string& what,
                   const absl::StatusOr<std::string>& found) {
  if (found.ok()) {
    Good(what, *found);
  } else {
    Fail(what, found.status());
  }
}

void Findings::Add(const char* result, const std::string& what,
                   const std::string& text, const std::string& shown) {
  const std::string padded = absl::StrFormat("%-6s", result);
  console_->Print(
      Line(result == kFailed ? console_->Bad(padded) : padded, what, shown));
  report_ += Line(padded, what, text);
}

}  // namespace qk::client
