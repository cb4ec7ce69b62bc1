#include "client/cpp/server_list.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "engine/base/check.h"
#include "engine/base/file_error.h"
#include "engine/base/request_id.h"
#include "engine/base/small_file.h"

namespace qk::client {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxListBytes = int64_t{1} << 20;
constexpr size_t kMaxEcho = 60;

// Whether `text` is HOST:PORT, where an IPv6 address is in brackets. A host may
// have only characters of names and addresses, so that no line can lead to
// another kind of target, such as a socket's path.
bool IsAddress(absl::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == absl::string_view::npos) return false;
  absl::string_view host = text.substr(0, colon);
  int port = 0;
  if (!absl::SimpleAtoi(text.substr(colon + 1), &port) || port < 1 ||
      port > 65535 || text[colon + 1] == '+') {
    return false;
  }
  const bool brackets = host.size() > 2 && host[0] == '[' && host.back() == ']';
  if (brackets) host = host.substr(1, host.size() - 2);
  return !host.empty() && std::all_of(host.begin(), host.end(), [=](char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '-' || c == '_' ||
           (brackets && (c == ':' || c == '%'));
  });
}

absl::StatusOr<std::vector<ListedServer>> ReadFile(const std::string& path) {
  const auto text = ReadSmallFile(path, {.max_bytes = kMaxListBytes});
  if (text.ok()) return ParseServerList(*text, path);
  const absl::Status& status = text.status();
  return absl::IsNotFound(status) || IsMachineFault(status)
             ? absl::UnavailableError(status.message())
             : absl::InvalidArgumentError(status.message());
}

absl::StatusOr<std::vector<std::string>> FilesOf(const std::string& folder) {
  std::vector<std::string> files;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename();
    if (name[0] != '.') files.push_back(it->path());
  }
  if (error) {
    return absl::UnavailableError(
        absl::StrCat(folder, ": cannot be read: ", error.message()));
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

std::optional<std::string> ServerListPath(absl::string_view server) {
  if (!absl::ConsumePrefix(&server, "file://")) return std::nullopt;
  return std::string(server);
}

absl::StatusOr<std::vector<ListedServer>> ParseServerList(
    absl::string_view text, const std::string& path) {
  std::vector<ListedServer> servers;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    const std::vector<std::string> words =
        absl::StrSplit(line.substr(0, line.find('#')), absl::ByAnyChar(" \t\r"),
                       absl::SkipEmpty());
    if (words.empty()) continue;
    if (words.size() > 2 || !IsAddress(words[0]) ||
        (words.size() == 2 && !IsReplicaName(words[1]))) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ":", number,
          ": must be HOST:PORT and perhaps a replica's name, got '",
          absl::CHexEscape(line.substr(0, kMaxEcho)), "'"));
    }
    ListedServer server = {words[0], words.size() == 2 ? words[1] : ""};
    if (std::find(servers.begin(), servers.end(), server) == servers.end()) {
      servers.push_back(std::move(server));
    }
  }
  return servers;
}

absl::StatusOr<std::vector<ListedServer>> ReadServerList(
    const std::string& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return ReadFile(path);
  QK_ASSIGN_OR_RETURN(const std::vector<std::string> files, FilesOf(path));
  std::vector<ListedServer> all;
  for (const std::string& file : files) {
    auto servers = ReadFile(file);
    std::error_code gone;
    if (absl::IsUnavailable(servers.status()) && !fs::exists(file, gone)) {
      continue;  // its writer has removed it
    }
    if (!servers.ok()) return servers.status();
    for (ListedServer& server : *servers) {
      if (std::find(all.begin(), all.end(), server) == all.end()) {
        all.push_back(std::move(server));
      }
    }
  }
  return all;
}

}  // namespace qk::client
