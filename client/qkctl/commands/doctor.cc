#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/cpp/server_list.h"
#include "client/files/json_writer.h"
#include "client/qkctl/command.h"
#include "client/qkctl/commands/findings.h"
#include "client/qkctl/commands/open_port.h"
#include "client/qkctl/commands/self_test.h"
#include "client/qkctl/output/non_finite.h"
#include "engine/base/monotonic.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

constexpr absl::Duration kDefaultTimeout = absl::Seconds(60);

// Looks at one server.
class Doctor {
 public:
  Doctor(const ClientOptions& options, Context* context, Findings* findings)
      : options_(options),
        context_(context),
        client_(AnalysisClient::Create(options)),
        found_(*findings) {}

  // `model`: the one for the self-test; empty: the first that is ready.
  void Examine(const std::string& model, bool run, const std::string& metrics) {
    if (!LookAtServer()) return;
    LookAtHealth();
    LookAtDevices();
    const std::optional<v1::ModelInfo> chosen = LookAtModels(model);
    LookAtUser();
    LookAtMetricsPort(metrics);
    if (!run || !chosen.has_value()) return;
    found_.Add("self-test", TestAnalyses(client_.get(), *chosen, Call()));
    if (info_.limits().has_result_ttl_s()) {
      found_.Add("spool", TestKeptResults(client_.get(), *chosen, Call()));
    } else {
      found_.Note("spool", "none: the server keeps no results");
    }
  }

 private:
  bool LookAtServer() {
    const absl::Time begin = MonotonicNow();
    absl::StatusOr<v1::ServerInfo> info = client_->GetServerInfo(Call());
    if (!info.ok()) {
      found_.Fail("server", info.status());
      return false;
    }
    info_ = *std::move(info);
    // The second call has a connection.
    const absl::Time second = MonotonicNow();
    const absl::Status again = client_->GetServerInfo(Call()).status();
    if (!again.ok()) {
      found_.Fail("server", again);
      return false;
    }
    found_.Good(
        "server",
        absl::StrFormat("answers; %.0f ms with the connection, %.1f ms without",
                        absl::ToDoubleMilliseconds(second - begin),
                        absl::ToDoubleMilliseconds(MonotonicNow() - second)));
    if (!info_.replica().empty()) found_.Good("replica", info_.replica());
    const std::string versions =
        absl::StrCat("server ", info_.version(), ", qkctl ", context_->version);
    if (SameMinor(info_.version(), context_->version)) {
      found_.Good("versions", versions);
    } else {
      found_.Note("versions", versions +
                                  ": their first two numbers differ, so one "
                                  "may lack what the other has");
    }
    std::vector<std::string> libraries;
    for (const auto& [name, version] : info_.library_versions()) {
      libraries.push_back(absl::StrCat(name, " ", version));
    }
    std::sort(libraries.begin(), libraries.end());
    found_.Good("libraries", absl::StrJoin(libraries, ", "));
    return true;
  }

  static bool SameMinor(const std::string& a, const std::string& b) {
    const auto minor = [](const std::string& version) {
      std::vector<std::string> parts = absl::StrSplit(version, '.');
      parts.resize(2);
      return parts;
    };
    return minor(a) == minor(b);
  }

  void LookAtHealth() {
    const absl::Status status = client_->CheckHealth("", Call());
    if (status.ok()) {
      found_.Good("health", "serving");
    } else {
      found_.Fail("health", status);
    }
  }

  // The kernels' names have the instruction sets.
  void LookAtDevices() {
    for (const v1::BackendInfo& backend : info_.backends()) {
      std::string text = absl::StrCat(backend.name(), ": ", backend.device());
      if (backend.threads() > 0) {
        absl::StrAppend(&text, ", ", backend.threads(), " threads");
      }
      found_.Good("device", text);
      found_.Good("kernels", absl::StrJoin(backend.kernel_ids(), ", "));
      if (!backend.passed_over().empty()) {
        found_.Note("device", "not on " + backend.passed_over());
      }
    }
  }

  // Returns the model for the self-test.
  std::optional<v1::ModelInfo> LookAtModels(const std::string& wanted) {
    const absl::StatusOr<v1::ListModelsResponse> models =
        client_->ListModels(Call());
    if (!models.ok()) {
      found_.Fail("models", models.status());
      return std::nullopt;
    }
    std::optional<v1::ModelInfo> chosen;
    for (const v1::ModelInfo& model : models->models()) {
      LookAtModel(model);
      const bool fits = wanted.empty() ? model.state() == v1::ModelInfo::READY
                                       : model.name() == wanted;
      if (fits && !chosen.has_value()) chosen = model;
    }
    if (!chosen.has_value()) {
      found_.Fail("models", wanted.empty()
                                ? absl::UnavailableError("no model is ready")
                                : absl::NotFoundError("there is no model '" +
                                                      wanted + "'"));
    }
    return chosen;
  }

  void LookAtModel(const v1::ModelInfo& model) {
    const std::string name = absl::StrCat("model ", model.name());
    const std::string what = absl::StrFormat(
        "%s, %s, %d layers, %s in %s on %s, weights %s",
        v1::ModelInfo::State_Name(model.state()), model.architecture(),
        model.num_layers(), model.weights_dtype(), model.compute_type(),
        model.backend(), model.weights_sha256().substr(0, 12));
    if (model.state() == v1::ModelInfo::FAILED) {
      found_.Fail(name,
                  absl::FailedPreconditionError("FAILED: " + model.failure()));
    } else if (model.state() != v1::ModelInfo::READY) {
      found_.Note(name, what);
    } else {
      found_.Good(name, what);
    }
    const std::string weights = NonFiniteWeightsText(model);
    if (!weights.empty()) found_.Note(name, weights);
    if (!model.text_problem().empty()) {
      found_.Note(name, "takes token ids only: " + model.text_problem());
    }
    for (const std::string& warning : model.warnings())
      found_.Note(name, warning);
  }

  void LookAtUser() {
    const absl::StatusOr<v1::GetUsageResponse> usage =
        client_->GetUsage(/*all_users=*/false, Call());
    if (!usage.ok()) return found_.Fail("usage", usage.status());
    if (usage->users().empty()) return;
    const v1::UserUsage& user = usage->users(0);
    std::vector<std::string> parts;
    const auto budget = [&](const char* of, double used, int64_t budget) {
      parts.push_back(
          absl::StrFormat("%.0f %% of the budget of %s",
                          100.0 * used / std::max<int64_t>(1, budget), of));
      return used >= budget;
    };
    bool used_up = false;
    if (user.has_device_ms_budget()) {
      used_up |= budget("time", user.device_ms(), user.device_ms_budget());
    }
    if (user.has_bytes_budget()) {
      used_up |= budget("bytes", user.streamed_bytes(), user.bytes_budget());
    }
    if (parts.empty()) parts.push_back("no budget");
    parts.push_back(
        absl::StrCat(user.requests_in_flight(), " requests in flight"));
    const std::string text = absl::StrJoin(parts, ", ");
    used_up ? found_.Note("usage", text) : found_.Good("usage", text);
  }

  // The port need not be open to everybody, so no answer is no failure.
  void LookAtMetricsPort(std::string address) {
    if (address.empty()) {
      const std::string& server = options_.server;
      const size_t colon = server.rfind(':');
      if (absl::StrContains(server, "/") || colon == std::string::npos) return;
      address = server.substr(0, colon) + ":9461";
    }
    const std::string problem = ConnectionProblem(address);
    if (problem.empty()) {
      found_.Good("metrics port", "takes connections", " (" + address + ")");
    } else {
      found_.Note("metrics port", problem, " (" + address + ")");
    }
  }

  CallOptions Call() {
    CallOptions options = context_->Call();
    options.timeout = std::min(options.timeout, kDefaultTimeout);
    return options;
  }

  const ClientOptions options_;
  Context* const context_;
  const std::unique_ptr<AnalysisClient> client_;
  v1::ServerInfo info_;
  Findings& found_;
};

// The servers that the client's option names, each with its own address.
absl::StatusOr<std::vector<ClientOptions>> Servers(
    const ClientOptions& options) {
  const std::optional<std::string> path = ServerListPath(options.server);
  if (!path.has_value()) return std::vector{options};
  const absl::StatusOr<std::vector<ListedServer>> listed =
      ReadServerList(*path);
  if (!listed.ok()) return listed.status();
  if (listed->empty()) {
    return absl::UnavailableError(absl::StrCat(*path, " lists no server"));
  }
  std::vector<ClientOptions> servers;
  for (const ListedServer& server : *listed) {
    servers.push_back(options);
    servers.back().server = server.address;
  }
  return servers;
}

ExitCode RunDoctor(const std::vector<std::string>& arguments,
                   Context* context) {
  CommandLine line(kDoctorCommand.text, context);
  std::optional<std::string> model, metrics;
  bool no_run = false;
  line.flags()->Section("Request");
  line.flags()->Add("model", "NAME",
                    "run the self-test on this model (default: the first that "
                    "is ready)",
                    &model);
  line.flags()->Add("no-run", "run no analysis, which takes device time",
                    &no_run);
  line.flags()->Add("metrics", "HOST:PORT",
                    "the metrics listener (default: port 9461 of the server)",
                    &metrics);
  if (auto over = line.Parse(arguments, 0)) return *over;
  const absl::StatusOr<std::vector<ClientOptions>> servers =
      Servers(context->client);
  if (!servers.ok()) return context->FailUsage(servers.status());
  Findings findings(&context->console);
  for (const ClientOptions& server : *servers) {
    context->console.Print(absl::StrCat(Printable(server.server), "\n"));
    Doctor(server, context, &findings)
        .Examine(model.value_or(""), !no_run, metrics.value_or(""));
  }
  context->console.Print(absl::StrCat(
      "\nFor a report of a fault, without addresses, users and tokens:\n\n"
      "```text\n",
      findings.report(), "```\n"));
  return findings.code();
}

}  // namespace

const Command kDoctorCommand = {
    {"doctor", "", "Look for what is wrong with a server, and test it",
     "Asks for versions, health, devices with their instruction sets, models, "
     "usage and\nports, then runs a small analysis twice, and a detached one "
     "if "
     "results are kept.\nThe exit code is that of the first failure.\n\n"
     "Examples:\n  qkctl doctor\n"
     "  qkctl doctor --model smollm2 --metrics 127.0.0.1:9461\n"
     "  qkctl --server file:///run/qkscope/servers doctor --no-run\n"},
    &RunDoctor};

}  // namespace qk::client
