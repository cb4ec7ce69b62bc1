#include "server/config/flags.h"

#include <functional>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/nearest_name.h"
#include "server/common/text.h"

namespace qk {

const char kHelp[] =
    R"(qkscoped - serves language models and shows massive values of Q and K

Usage: qkscoped [--config FILE] [--model NAME=PATH]... [flags]

  --model NAME=PATH[,compute=f32|bf16][,sha256=HEX]
                         a model to serve; may be given several times. PATH is
                         a .gguf file, a .safetensors file beside its
                         config.json, or a folder
  --config FILE          configuration, as text proto (proto/qkscope/v1/
                         config.proto); flags override it
  --listen HOST:PORT     gRPC (default 127.0.0.1:7461; port 0: any free one)
  --metrics-listen HOST:PORT
                         Prometheus (default 127.0.0.1:9461; "" for none)
  --spool DIR            keep results of detached and resumable requests there
  --users-file FILE      who may call, as qkctl user add writes it; read again
                         when it changes, and on SIGHUP
  --allow-anonymous-network
                         listen where others can reach it although nobody is
                         asked for credentials
  --tls-cert FILE --tls-key FILE
                         TLS with this certificate (PEM); read again when they
                         change
  --tls-client-ca FILE   clients must show a certificate that this one signed
  --threads N            threads of the CPU backend (default: the cores)
  --log-level LEVEL      debug, info, warn or error
  --check-config         say what is wrong with flags, configuration and model
                         files, start nothing; exit 0 when all is well, else 78
  --help, --version

Logs are JSON lines on stderr. SIGTERM: no new calls, calls in progress finish
within the grace period, exit 0; a second SIGTERM ends them at once.

Examples:
  qkscoped --model smollm2=SmolLM2-135M-Instruct.gguf
  qkscoped --model a=models/a,compute=bf16 --listen 0.0.0.0:7461 \
      --users-file users.conf --tls-cert tls.crt --tls-key tls.key
  qkscoped --config qkscoped.conf --check-config
)";

namespace {

using ::qkscope::v1::ModelConfig;

absl::Status Bad(absl::string_view flag, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("--", flag, ": ", problem));
}

// Takes ",key=value" off the end of `rest`; a path may hold commas.
bool TakeOption(std::string* rest, absl::string_view key, std::string* value) {
  const std::string prefix = absl::StrCat(",", key, "=");
  const size_t at = rest->rfind(prefix);
  if (at == std::string::npos) return false;
  *value = rest->substr(at + prefix.size());
  if (value->find(',') != std::string::npos) return false;
  rest->resize(at);
  return true;
}

absl::Status SetModel(const std::string& value, Flags* flags) {
  const size_t equals = value.find('=');
  if (equals == std::string::npos || equals == 0 ||
      equals + 1 == value.size()) {
    return Bad("model",
               absl::StrCat("must be NAME=PATH, got '", Echo(value), "'"));
  }
  ModelConfig* model = flags->config.add_models();
  model->set_name(value.substr(0, equals));
  std::string rest = value.substr(equals + 1);
  std::string option;
  for (bool more = true; more;) {
    more = false;
    if (TakeOption(&rest, "compute", &option)) {
      model->set_compute(option);
      more = true;
    }
    if (TakeOption(&rest, "sha256", &option)) {
      model->set_sha256(option);
      more = true;
    }
  }
  model->set_path(rest);
  return absl::OkStatus();
}

using SetValue = std::function<absl::Status(const std::string&, Flags*)>;

const std::map<std::string, SetValue>& ValueFlags() {
  static const auto& flags = *new std::map<std::string, SetValue>{
      {"model", SetModel},
      {"config",
       [](const std::string& value, Flags* out) {
         out->config_file = value;
         return absl::OkStatus();
       }},
      {"listen",
       [](const std::string& value, Flags* out) {
         out->config.set_listen(value);
         return absl::OkStatus();
       }},
      {"metrics-listen",
       [](const std::string& value, Flags* out) {
         out->config.set_metrics_listen(value);
         return absl::OkStatus();
       }},
      {"users-file",
       [](const std::string& value, Flags* out) {
         out->config.set_users_file(value);
         return absl::OkStatus();
       }},
      {"tls-cert",
       [](const std::string& value, Flags* out) {
         out->config.mutable_tls()->set_certificate_file(value);
         return absl::OkStatus();
       }},
      {"tls-key",
       [](const std::string& value, Flags* out) {
         out->config.mutable_tls()->set_key_file(value);
         return absl::OkStatus();
       }},
      {"tls-client-ca",
       [](const std::string& value, Flags* out) {
         out->config.mutable_tls()->set_client_ca_file(value);
         return absl::OkStatus();
       }},
      {"spool",
       [](const std::string& value, Flags* out) {
         out->config.mutable_spool()->set_directory(value);
         return absl::OkStatus();
       }},
      {"log-level",
       [](const std::string& value, Flags* out) {
         out->config.set_log_level(value);
         return absl::OkStatus();
       }},
      {"backend",
       [](const std::string& value, Flags* out) {
         out->config.set_backend(value);
         return absl::OkStatus();
       }},
      {"threads",
       [](const std::string& value, Flags* out) {
         int threads = 0;
         if (!absl::SimpleAtoi(value, &threads)) {
           return Bad("threads", absl::StrCat("must be a number, got '",
                                              Echo(value), "'"));
         }
         out->config.set_threads(threads);
         return absl::OkStatus();
       }},
  };
  return flags;
}

bool* SwitchFlag(const std::string& name, Flags* flags) {
  if (name == "help") return &flags->help;
  if (name == "version") return &flags->version;
  if (name == "check-config") return &flags->check_config;
  if (name == "allow-anonymous-network") return &flags->anonymous_network;
  return nullptr;
}

absl::Status Unknown(const std::string& name) {
  std::vector<std::string> names = {"help", "version", "check-config",
                                    "allow-anonymous-network"};
  for (const auto& [flag, set] : ValueFlags()) names.push_back(flag);
  const std::string nearest = NearestName(name, names);
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown flag '--", Echo(name), "'",
      nearest.empty() ? "; see --help"
                      : absl::StrCat("; did you mean '--", nearest, "'?")));
}

}  // namespace

absl::StatusOr<Flags> ParseFlags(const std::vector<std::string>& arguments) {
  Flags flags;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument.rfind("--", 0) != 0 || argument.size() == 2) {
      return absl::InvalidArgumentError(absl::StrCat(
          "unexpected argument '", Echo(argument), "'; see --help"));
    }
    const size_t equals = argument.find('=');
    const std::string name = argument.substr(
        2, equals == std::string::npos ? std::string::npos : equals - 2);
    if (bool* on = SwitchFlag(name, &flags)) {
      if (equals != std::string::npos) return Bad(name, "takes no value");
      *on = true;
      continue;
    }
    const auto it = ValueFlags().find(name);
    if (it == ValueFlags().end()) return Unknown(name);
    std::string value;
    if (equals != std::string::npos) {
      value = argument.substr(equals + 1);
    } else if (i + 1 < arguments.size()) {
      value = arguments[++i];
    } else {
      return Bad(name, "needs a value");
    }
    QK_RETURN_IF_ERROR(it->second(value, &flags));
  }
  if (flags.anonymous_network) flags.config.set_allow_anonymous_network(true);
  return flags;
}

}  // namespace qk
