#include "server/config/flags.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/base/check.h"
#include "engine/base/flag_parser.h"
#include "server/common/text.h"

namespace qk {

const char kHelp[] =
    R"(qkscoped - serves language models and reports massive values of Q and K

Usage: qkscoped [--config FILE] [--model NAME=PATH]... [flags]

  --model NAME=PATH[,compute=f32|bf16][,sha256=HEX][,ignore=FIELD+...]
      [,ignore_tensors=NAME+...]
                         a model to serve; may be repeated. PATH is a .gguf
                         file, a .safetensors file beside its config.json, or
                         a folder. The model is read as if the ignored fields
                         of its config.json (or keys of the .gguf file) were
                         missing and without the ignored tensors, whose names
                         may have a * for any characters
  --config FILE          configuration file, a text proto (proto/qkscope/v1/
                         config.proto); flags override it
  --listen HOST:PORT     gRPC address (default 127.0.0.1:7461; port 0: any
                         free port)
  --metrics-listen HOST:PORT
                         Prometheus address (default 127.0.0.1:9461; "": off)
  --spool DIR            keep results of detached and resumable requests in DIR
  --replica NAME         this server's name among several behind a balancer; ids
                         of requests end in it, so clients see it
  --users-file FILE      users who may call (see qkctl user add); read again
                         when it changes and on SIGHUP
  --behind-proxy         listen on an address that other machines can reach;
                         only an HTTP/2 proxy, which admits clients, reaches it
  --allow-anonymous-network
                         the same without a proxy: whoever reaches the address
                         may connect, and call if no credentials are required
  --tls-cert FILE --tls-key FILE
                         use TLS with this certificate and key (PEM); read
                         again when they change
  --tls-client-ca FILE   require client certificates signed by this authority
  --backend NAME         auto (the default: the best that this machine has),
                         cpu or cuda
  --device NAME          the GPU, by its index or UUID (default: the first)
  --device-memory PART|BYTES
                         the most memory to hold on the GPU: a part of all that
                         it has, as 0.5, or bytes, as 40GiB (default: all)
  --matmul NAME          what multiplies bf16 matrices on a GPU: own (the
                         default), cublaslt (NVIDIA's library, which must pass
                         a probe of its bytes), or auto (where it passes)
  --threads N            threads of the host (default: one per core): the CPU
                         backend's, or those that read weights for a GPU
  --check-weights MODE   look for NaN and infinities in the weights while they
                         load. warn: serve the model and name the first of
                         them; fail: do not load it; off; auto (the default):
                         warn below 2 GiB, else off
  --activation-sampling SHARE
                         part of the prompts of Score and Generate that are
                         measured for /metrics/activations, 0 (default) to 1
  --activation-models N  how many models, those used last, the page
                         /metrics/activations shows by layer (default 4)
  --baseline-dir DIR     keep the models' baselines (qkctl baseline) in DIR
  --log-level LEVEL      debug, info, warn or error
  --log-file FILE        append the log to FILE instead of stderr; opened again
                         on SIGHUP
  --check-config         say what would keep the server from starting or from
                         serving anybody, and start nothing; exit 0 if there
                         is nothing, 78 if something is wrong, 75 or 71 if the
                         machine could not look
  --help, --version

Logs are JSON lines, on stderr by default. On SIGTERM the server refuses new
calls, lets calls in progress finish within the grace period, and exits with 0;
a second SIGTERM ends them at once.

Examples:
  qkscoped --model smollm2=SmolLM2-135M-Instruct.gguf
  qkscoped --model a=models/a,compute=bf16 --listen 0.0.0.0:7461 \
      --users-file users.conf --tls-cert tls.crt --tls-key tls.key \
      --behind-proxy
  qkscoped --config qkscoped.conf --check-config
)";

namespace {

using ::qkscope::v1::ModelConfig;
using ::qkscope::v1::ServerConfig;

absl::Status Bad(absl::string_view allowed, absl::string_view got) {
  return absl::InvalidArgumentError(
      absl::StrCat("must be ", allowed, ", got '", Echo(got), "'"));
}

// Removes ",key=value" from the end of `rest`. The path before it may contain
// commas. Returns false if `rest` does not end this way.
bool TakeOption(std::string* rest, absl::string_view key, std::string* value) {
  const std::string prefix = absl::StrCat(",", key, "=");
  const size_t at = rest->rfind(prefix);
  if (at == std::string::npos) return false;
  *value = rest->substr(at + prefix.size());
  if (value->find(',') != std::string::npos) return false;
  rest->resize(at);
  return true;
}

// Adds the names of "a+b".
absl::Status AddNames(absl::string_view option, const std::string& value,
                      google::protobuf::RepeatedPtrField<std::string>* names) {
  for (const absl::string_view name : absl::StrSplit(value, '+')) {
    if (name.empty()) return Bad(absl::StrCat(option, "=NAME+NAME..."), value);
    *names->Add() = std::string(name);
  }
  return absl::OkStatus();
}

absl::Status AddModel(const std::string& value, ServerConfig* config) {
  const size_t equals = value.find('=');
  if (equals == std::string::npos || equals == 0 ||
      equals + 1 == value.size()) {
    return Bad("NAME=PATH", value);
  }
  ModelConfig* model = config->add_models();
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
    if (TakeOption(&rest, "ignore", &option)) {
      QK_RETURN_IF_ERROR(AddNames("ignore", option, model->mutable_ignore()));
      more = true;
    }
    if (TakeOption(&rest, "ignore_tensors", &option)) {
      QK_RETURN_IF_ERROR(
          AddNames("ignore_tensors", option, model->mutable_ignore_tensors()));
      more = true;
    }
  }
  model->set_path(rest);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Flags> ParseFlags(const std::vector<std::string>& arguments) {
  Flags flags;
  ServerConfig* config = &flags.config;
  FlagParser parser;
  const auto add_text = [&parser](const char* name, const char* value_name,
                                  auto set) {
    parser.AddValue(name, value_name, [set](const std::string& value) {
      set(value);
      return absl::OkStatus();
    });
  };
  parser.AddValue(
      "model", "NAME=PATH",
      [=](const std::string& value) { return AddModel(value, config); },
      /*repeatable=*/true);
  add_text("config", "FILE", [&](auto& value) { flags.config_file = value; });
  add_text("listen", "HOST:PORT",
           [=](auto& value) { config->set_listen(value); });
  add_text("metrics-listen", "HOST:PORT",
           [=](auto& value) { config->set_metrics_listen(value); });
  add_text("users-file", "FILE",
           [=](auto& value) { config->set_users_file(value); });
  add_text("tls-cert", "FILE", [=](auto& value) {
    config->mutable_tls()->set_certificate_file(value);
  });
  add_text("tls-key", "FILE",
           [=](auto& value) { config->mutable_tls()->set_key_file(value); });
  add_text("tls-client-ca", "FILE", [=](auto& value) {
    config->mutable_tls()->set_client_ca_file(value);
  });
  add_text("spool", "DIR",
           [=](auto& value) { config->mutable_spool()->set_directory(value); });
  add_text("baseline-dir", "DIR",
           [=](auto& value) { config->set_baseline_dir(value); });
  add_text("replica", "NAME", [=](auto& value) { config->set_replica(value); });
  add_text("backend", "NAME", [=](auto& value) { config->set_backend(value); });
  add_text("device", "NAME", [=](auto& value) { config->set_device(value); });
  add_text("device-memory", "PART|BYTES",
           [=](auto& value) { config->set_device_memory(value); });
  add_text("matmul", "NAME", [=](auto& value) { config->set_matmul(value); });
  add_text("check-weights", "MODE",
           [=](auto& value) { config->set_check_weights(value); });
  add_text("log-level", "LEVEL",
           [=](auto& value) { config->set_log_level(value); });
  add_text("log-file", "FILE",
           [=](auto& value) { config->set_log_file(value); });
  parser.AddValue("threads", "N", [=](const std::string& value) {
    int threads = 0;
    if (!absl::SimpleAtoi(value, &threads)) return Bad("a number", value);
    config->set_threads(threads);
    return absl::OkStatus();
  });
  parser.AddValue("activation-sampling", "SHARE",
                  [=](const std::string& value) {
                    double share = 0;
                    if (!absl::SimpleAtod(value, &share)) {
                      return Bad("a number", value);
                    }
                    config->set_activation_sampling(share);
                    return absl::OkStatus();
                  });
  parser.AddValue("activation-models", "N", [=](const std::string& value) {
    int models = 0;
    if (!absl::SimpleAtoi(value, &models)) return Bad("a number", value);
    config->set_activation_models(models);
    return absl::OkStatus();
  });
  parser.AddSwitch("help", &flags.help);
  parser.AddSwitch("version", &flags.version);
  parser.AddSwitch("check-config", &flags.check_config);
  parser.AddSwitch("allow-anonymous-network", &flags.anonymous_network);
  parser.AddSwitch("behind-proxy", &flags.behind_proxy);

  const absl::StatusOr<std::vector<std::string>> words =
      parser.Parse(arguments, /*stop_at_word=*/true);
  if (!words.ok()) return words.status();
  if (!words->empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "unexpected argument '", Echo(words->front()), "'; see --help"));
  }
  if (flags.anonymous_network) flags.config.set_allow_anonymous_network(true);
  if (flags.behind_proxy) flags.config.set_behind_proxy(true);
  return flags;
}

}  // namespace qk
