#include "server/config/options.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/request_id.h"
#include "server/access/users_config.h"
#include "server/common/model_name.h"
#include "server/common/text.h"
#include "server/net/addresses.h"

namespace qk {
namespace {

using ::qkscope::v1::LimitsConfig;
using ::qkscope::v1::ServerConfig;

constexpr int kMaxThreads = 1024;
constexpr int kMaxSeconds = 24 * 3600;

// Checks values and remembers every problem. Errors name the values' source: a
// file, or the flags.
class Checker {
 public:
  Checker(std::string source, std::vector<absl::Status>* problems)
      : source_(std::move(source)), problems_(problems) {}

  absl::Status Bad(const std::string& key, const std::string& problem) const {
    return Note(absl::InvalidArgumentError(
        absl::StrCat(source_, ": ", key, ": ", problem)));
  }
  // Remembers a problem that somebody else has found.
  absl::Status Note(const absl::Status& status) const {
    if (!status.ok()) problems_->push_back(status);
    return status;
  }

  // Returns the digest in lower case.
  absl::StatusOr<std::string> Sha256(const std::string& key,
                                     const std::string& value) const {
    if (IsSha256(value)) return absl::AsciiStrToLower(value);
    return Bad(key,
               absl::StrCat("must be 64 hex digits, got '", Echo(value), "'"));
  }

  // Sets `*out` if the limit is set, which must be >= 1.
  template <typename T>
  absl::Status Limit(const std::string& key, bool is_set, int64_t value,
                     T* out) const {
    if (!is_set) return absl::OkStatus();
    if (value < 1) {
      return Bad(key, absl::StrCat("must be > 0, got ", value));
    }
    *out = static_cast<T>(value);
    return absl::OkStatus();
  }

  // Sets `*out` if the time is set, which must be in [min, one day].
  absl::Status Seconds(const std::string& key, bool is_set, int min, int value,
                       absl::Duration* out) const {
    if (!is_set) return absl::OkStatus();
    if (value < min || value > kMaxSeconds) {
      return Bad(key, absl::StrCat("must be in [", min, ", ", kMaxSeconds,
                                   "], got ", value));
    }
    *out = absl::Seconds(value);
    return absl::OkStatus();
  }

 private:
  const std::string source_;
  std::vector<absl::Status>* const problems_;
};

void SetLimits(const LimitsConfig& in, const Checker& check, Limits* out) {
#define QK_LIMIT(name)                                                 \
  check.Limit("limits." #name, in.has_##name(), in.name(), &out->name) \
      .IgnoreError()
  QK_LIMIT(max_text_bytes);
  QK_LIMIT(max_arms);
  QK_LIMIT(max_rules_per_arm);
  QK_LIMIT(max_list_entries);
  QK_LIMIT(max_new_tokens);
  QK_LIMIT(max_queued_requests);
  QK_LIMIT(max_response_bytes);
  QK_LIMIT(max_deadline_ms);
  QK_LIMIT(max_score_pairs);
  QK_LIMIT(max_rows_per_pass);
  QK_LIMIT(kv_cache_bytes);
  QK_LIMIT(max_buffered_bytes);
  QK_LIMIT(write_stall_timeout_ms);
#undef QK_LIMIT
}

absl::StatusOr<ModelToLoad> ConvertModel(const ::qkscope::v1::ModelConfig& in,
                                         const std::string& key,
                                         const Checker& check) {
  ModelToLoad out;
  out.name = in.name();
  out.path = in.path();
  const absl::Status name = CheckModelName(key + ".name", in.name());
  if (!name.ok())
    return check.Bad(key + ".name",
                     in.name().empty()
                         ? "must not be empty"
                         : absl::StrCat("invalid name '", Echo(in.name()),
                                        "' (allowed [A-Za-z0-9._-]{1,128})"));
  if (in.path().empty()) return check.Bad(key + ".path", "must not be empty");
  if (in.has_compute() && in.compute() != "f32" && in.compute() != "bf16") {
    return check.Bad(
        key + ".compute",
        absl::StrCat("must be f32 or bf16, got '", Echo(in.compute()), "'"));
  }
  out.compute = in.compute() == "bf16" ? ComputeType::kBF16 : ComputeType::kF32;
  out.ignored = IgnoredPartsOf(in);
  if (in.has_sha256()) {
    QK_ASSIGN_OR_RETURN(out.sha256, check.Sha256(key + ".sha256", in.sha256()));
  }
  return out;
}

void SetModels(const ServerConfig& config, const Checker& check,
               ServerOptions* out) {
  std::map<std::string, int> used;
  for (int i = 0; i < config.models_size(); ++i) {
    const std::string key = absl::StrCat("models[", i, "]");
    absl::StatusOr<ModelToLoad> model =
        ConvertModel(config.models(i), key, check);
    if (!model.ok()) continue;
    const auto [it, inserted] = used.emplace(model->name, i);
    if (!inserted) {
      check
          .Bad(key + ".name",
               absl::StrCat("'", model->name, "' is already used by models[",
                            it->second, "]"))
          .IgnoreError();
      continue;
    }
    out->models.push_back(*std::move(model));
  }
}

absl::Status SetAddresses(const ServerConfig& config, const Checker& check,
                          ServerOptions* out) {
  if (config.has_listen()) out->listen = config.listen();
  if (config.has_metrics_listen()) {
    out->metrics_listen = config.metrics_listen();
  }
  const auto listen = ParseHostPort(out->listen);
  if (!listen.ok()) {
    return check.Bad("listen", std::string(listen.status().message()));
  }
  if (out->metrics_listen.empty()) return absl::OkStatus();
  const auto metrics = ParseHostPort(out->metrics_listen);
  if (!metrics.ok()) {
    return check.Bad("metrics_listen", std::string(metrics.status().message()));
  }
  if (listen->port != 0 && listen->port == metrics->port) {
    return check.Bad(
        "metrics_listen",
        absl::StrCat("port ", metrics->port, " is already used by listen"));
  }
  return absl::OkStatus();
}

absl::Status SetLog(const ServerConfig& config, const Checker& check,
                    ServerOptions* out) {
  if (config.has_log_file() && config.log_file().empty()) {
    return check.Bad("log_file", "must not be empty");
  }
  out->log_file = config.log_file();
  static const auto& kLevels =
      *new std::map<std::string, LogLevel>{{"debug", LogLevel::kDebug},
                                           {"info", LogLevel::kInfo},
                                           {"warn", LogLevel::kWarn},
                                           {"error", LogLevel::kError}};
  if (!config.has_log_level()) return absl::OkStatus();
  const auto it = kLevels.find(config.log_level());
  if (it == kLevels.end()) {
    return check.Bad("log_level",
                     absl::StrCat("must be debug, info, warn or error, got '",
                                  Echo(config.log_level()), "'"));
  }
  out->log_level = it->second;
  return absl::OkStatus();
}

absl::Status SetWeightCheck(const ServerConfig& config, const Checker& check,
                            WeightCheck* out) {
  static const auto& kModes =
      *new std::map<std::string, WeightCheck>{{"auto", WeightCheck::kAuto},
                                              {"off", WeightCheck::kOff},
                                              {"warn", WeightCheck::kWarn},
                                              {"fail", WeightCheck::kFail}};
  if (!config.has_check_weights()) return absl::OkStatus();
  const auto it = kModes.find(config.check_weights());
  if (it == kModes.end()) {
    return check.Bad("check_weights",
                     absl::StrCat("must be auto, warn, fail or off, got '",
                                  Echo(config.check_weights()), "'"));
  }
  *out = it->second;
  return absl::OkStatus();
}

absl::Status SetAccess(const ServerConfig& config, const std::string& source,
                       const Checker& check, ServerOptions* out) {
  auto users = UsersFromConfig(config.users(), [&](int) { return source; });
  QK_RETURN_IF_ERROR(check.Note(users.status()));
  out->access.users = *std::move(users);
  QK_RETURN_IF_ERROR(check.Note(Users::Create(out->access.users).status()));
  if (config.has_users_file() && config.users_file().empty()) {
    return check.Bad("users_file", "must not be empty");
  }
  out->access.users_file = config.users_file();
  out->access.allow_anonymous_network = config.allow_anonymous_network();
  out->access.behind_proxy = config.behind_proxy();
  if (config.has_reflection()) out->reflection = config.reflection();
  out->log_prompts = config.log_prompts();
  return absl::OkStatus();
}

absl::Status SetSpool(const ::qkscope::v1::SpoolConfig& in,
                      const Checker& check, ServerOptions* out) {
  if (in.directory().empty()) {
    return check.Bad("spool.directory", "must not be empty");
  }
  ResultStore::Options spool;
  spool.directory = in.directory();
  QK_RETURN_IF_ERROR(check.Limit("spool.max_bytes", in.has_max_bytes(),
                                 in.max_bytes(), &spool.most.bytes));
  QK_RETURN_IF_ERROR(check.Limit("spool.max_results", in.has_max_results(),
                                 in.max_results(), &spool.most.results));
  // Nobody alone may fill what others need, too.
  const int64_t users = out->access.has_users() ? 4 : 1;
  spool.most_per_user = {std::max<int64_t>(1, spool.most.results / users),
                         std::max<int64_t>(1, spool.most.bytes / users)};
  QK_RETURN_IF_ERROR(
      check.Limit("spool.max_results_per_user", in.has_max_results_per_user(),
                  in.max_results_per_user(), &spool.most_per_user.results));
  QK_RETURN_IF_ERROR(
      check.Limit("spool.max_bytes_per_user", in.has_max_bytes_per_user(),
                  in.max_bytes_per_user(), &spool.most_per_user.bytes));
  int64_t ttl = absl::ToInt64Seconds(spool.ttl);
  QK_RETURN_IF_ERROR(
      check.Limit("spool.ttl_s", in.has_ttl_s(), in.ttl_s(), &ttl));
  spool.ttl = absl::Seconds(ttl);
  out->spool = spool;
  return absl::OkStatus();
}

absl::Status SetModelAdmin(const ::qkscope::v1::ModelAdminConfig& in,
                           const Checker& check, ModelAdminOptions* out) {
  using ::qkscope::v1::ModelAdminConfig;
  out->enabled = in.enabled();
  out->root = in.root();
  if (in.enabled() && in.root().empty()) {
    return check.Bad("model_admin.root", "must not be empty");
  }
  for (int i = 0; i < in.allowed_sha256_size(); ++i) {
    QK_ASSIGN_OR_RETURN(
        std::string sha256,
        check.Sha256(absl::StrCat("model_admin.allowed_sha256[", i, "]"),
                     in.allowed_sha256(i)));
    out->allowed_sha256.push_back(std::move(sha256));
  }
  switch (in.eviction()) {
    case ModelAdminConfig::LRU:
      out->eviction = ModelAdminOptions::Eviction::kLru;
      break;
    case ModelAdminConfig::MANUAL:
      out->eviction = ModelAdminOptions::Eviction::kManual;
      break;
    default:
      out->eviction = ModelAdminOptions::Eviction::kNever;
  }
  QK_RETURN_IF_ERROR(check.Limit("model_admin.max_models", in.has_max_models(),
                                 in.max_models(), &out->max_models));
  return check.Limit("model_admin.max_bytes", in.has_max_bytes(),
                     in.max_bytes(), &out->max_bytes);
}

absl::Status SetReplica(const ServerConfig& config, const Checker& check,
                        std::string* out) {
  if (!config.has_replica()) return absl::OkStatus();
  *out = config.replica();
  if (IsReplicaName(*out)) return absl::OkStatus();
  return check.Bad("replica", absl::StrCat("must be ", kReplicaNameRule,
                                           ", got '", Echo(*out), "'"));
}

void SetTimes(const ServerConfig& config, const Checker& check,
              ServerOptions* out) {
  check
      .Seconds("shutdown_grace_s", config.has_shutdown_grace_s(), 0,
               config.shutdown_grace_s(), &out->shutdown_grace)
      .IgnoreError();
  check
      .Seconds("keepalive_s", config.has_keepalive_s(), 1, config.keepalive_s(),
               &out->keepalive)
      .IgnoreError();
  check
      .Seconds("keepalive_timeout_s", config.has_keepalive_timeout_s(), 1,
               config.keepalive_timeout_s(), &out->keepalive_timeout)
      .IgnoreError();
}

absl::Status SetMachine(const ServerConfig& config, const Checker& check,
                        ServerOptions* out) {
  if (config.has_backend()) out->backend = config.backend();
  out->device = config.device();
  if (config.has_matmul()) out->matmul = config.matmul();
  if (config.has_threads()) {
    out->threads = config.threads();
    if (out->threads < 1 || out->threads > kMaxThreads) {
      return check.Bad("threads", absl::StrCat("must be in [1, ", kMaxThreads,
                                               "], got ", out->threads));
    }
  }
  if (!config.has_device_memory()) return absl::OkStatus();
  const auto memory = ParseDeviceMemory(config.device_memory());
  if (!memory.ok()) {
    return check.Bad("device_memory", std::string(memory.status().message()));
  }
  out->device_memory = *memory;
  return absl::OkStatus();
}

absl::Status SetActivations(const ServerConfig& config, const Checker& check,
                            ActivationOptions* out) {
  if (config.has_baseline_dir() && config.baseline_dir().empty()) {
    return check.Bad("baseline_dir", "must not be empty");
  }
  out->baseline_dir = config.baseline_dir();
  out->sampling = config.activation_sampling();
  if (!(out->sampling >= 0 && out->sampling <= 1)) {
    return check.Bad("activation_sampling",
                     absl::StrCat("must be in [0, 1], got ", out->sampling));
  }
  if (config.has_activation_models()) out->models = config.activation_models();
  if (out->models >= 0 && out->models <= kMaxActivationModels) {
    return absl::OkStatus();
  }
  return check.Bad("activation_models",
                   absl::StrCat("must be in [0, ", kMaxActivationModels,
                                "], got ", out->models));
}

absl::Status SetTls(const ::qkscope::v1::TlsConfig& in, const Checker& check,
                    TlsOptions* out) {
  if (in.certificate_file().empty()) {
    return check.Bad("tls.certificate_file", "must not be empty");
  }
  if (in.key_file().empty()) {
    return check.Bad("tls.key_file", "must not be empty");
  }
  if (in.has_client_ca_file() && in.client_ca_file().empty()) {
    return check.Bad("tls.client_ca_file", "must not be empty");
  }
  *out = {in.certificate_file(), in.key_file(), in.client_ca_file()};
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ServerOptions> OptionsFromConfig(
    const ServerConfig& config, const std::string& source,
    std::vector<absl::Status>* problems) {
  std::vector<absl::Status> found;
  const Checker check(source, &found);
  ServerOptions out;
  // The checker remembers what they return.
  SetAddresses(config, check, &out).IgnoreError();
  SetModels(config, check, &out);
  SetLimits(config.limits(), check, &out.limits);
  SetLog(config, check, &out).IgnoreError();
  SetWeightCheck(config, check, &out.check_weights).IgnoreError();
  SetMachine(config, check, &out).IgnoreError();
  SetActivations(config, check, &out.activations).IgnoreError();
  SetReplica(config, check, &out.replica).IgnoreError();
  SetTimes(config, check, &out);
  SetAccess(config, source, check, &out).IgnoreError();
  if (config.has_spool()) {
    SetSpool(config.spool(), check, &out).IgnoreError();
  }
  if (config.has_tls()) {
    SetTls(config.tls(), check, &out.access.tls).IgnoreError();
  }
  SetModelAdmin(config.model_admin(), check, &out.model_admin).IgnoreError();
  if (problems != nullptr) *problems = found;
  if (!found.empty()) return found.front();
  return out;
}

}  // namespace qk
