// Tests configuration files and flags: what is refused, and the exact messages.
#include "server/config/options.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "qkscope/v1/error.pb.h"
#include "server/common/grpc_status.h"
#include "server/common/retry_after.h"
#include "server/config/flags.h"
#include "server/net/addresses.h"

namespace qk {
namespace {

using ::testing::HasSubstr;

std::string ConfigError(const std::string& text) {
  const auto config = ParseConfig(text, "q.conf");
  if (!config.ok()) return std::string(config.status().message());
  return std::string(OptionsFromConfig(*config, "q.conf").status().message());
}

TEST(ConfigTest, GoodFile) {
  const auto config = ParseConfig(R"(
      listen: "[::1]:0"
      metrics_listen: ""
      models { name: "a" path: "/m/a.gguf" compute: "bf16" }
      backend: "cpu"
      threads: 3
      limits { max_arms: 5 kv_cache_bytes: 1048576 }
      shutdown_grace_s: 7
      keepalive_s: 8
      keepalive_timeout_s: 9
      reflection: false
      log_level: "warn"
      check_weights: "fail"
      activation_sampling: 0.25
      activation_models: 7
      baseline_dir: "/b"
      replica: "gpu-7")",
                                  "q.conf");
  ASSERT_TRUE(config.ok()) << config.status().message();
  const auto options = OptionsFromConfig(*config, "q.conf");
  ASSERT_TRUE(options.ok()) << options.status().message();
  EXPECT_EQ(options->listen, "[::1]:0");
  EXPECT_EQ(options->metrics_listen, "");
  ASSERT_EQ(options->models.size(), 1u);
  EXPECT_EQ(options->models[0].compute, ComputeType::kBF16);
  EXPECT_EQ(options->backend, "cpu");
  EXPECT_EQ(options->threads, 3);
  EXPECT_EQ(options->limits.max_arms, 5);
  EXPECT_EQ(options->limits.max_rules_per_arm, 64);
  EXPECT_EQ(options->shutdown_grace, absl::Seconds(7));
  EXPECT_EQ(options->keepalive, absl::Seconds(8));
  EXPECT_EQ(options->keepalive_timeout, absl::Seconds(9));
  EXPECT_EQ(options->reflection, false);
  EXPECT_EQ(options->log_level, LogLevel::kWarn);
  EXPECT_EQ(options->check_weights, WeightCheck::kFail);
  EXPECT_EQ(options->activations.sampling, 0.25);
  EXPECT_EQ(options->activations.models, 7);
  EXPECT_EQ(options->activations.baseline_dir, "/b");
  EXPECT_EQ(options->replica, "gpu-7");
}

TEST(ConfigTest, BadFilesNameLineKeyAndValue) {
  EXPECT_EQ(ConfigError("\nlisen: 'x'"),
            "q.conf:2: unknown key 'lisen'; did you mean 'listen'?");
  EXPECT_EQ(ConfigError("limits { max_armz: 1 }"),
            "q.conf:1: unknown key 'max_armz'; did you mean 'max_arms'?");
  EXPECT_EQ(ConfigError("zzzzzzzzzzzzzzzz: 1"),
            "q.conf:1: unknown key 'zzzzzzzzzzzzzzzz'");
  EXPECT_EQ(ConfigError("threads: 'two'"),
            "q.conf:1: threads: expected integer, got: 'two'");
  EXPECT_THAT(ConfigError("limits {\n  kv_cache_bytes: 8GiB\n}"),
              HasSubstr("q.conf:2: "));
  EXPECT_EQ(ConfigError("'\xc3'"),
            "q.conf:1: expected identifier, got: '\\xc3'");
  EXPECT_EQ(
      ConfigError(std::string(999, 'k') + " 'cut"),
      "q.conf:1: " + std::string(64, 'k') + "...: unexpected end of string.");
  EXPECT_LE(ConfigError("threads: " + std::string(999, 'x')).size(), 300u);
  EXPECT_THAT(ConfigError("threads: 99999999999"), HasSubstr("q.conf:1: "));
  EXPECT_THAT(ConfigError("models {"), HasSubstr("q.conf:1: "));
}

TEST(ConfigTest, BadValuesNameKeyAndValue) {
  EXPECT_EQ(ConfigError("listen: 'x'"),
            "q.conf: listen: no host or port, got 'x' (expected HOST:PORT)");
  EXPECT_EQ(ConfigError("listen: 'x:65536'"),
            "q.conf: listen: port must be in [0, 65535], got 'x:65536' "
            "(expected HOST:PORT)");
  EXPECT_EQ(ConfigError("listen: 'x:-1'"),
            "q.conf: listen: port must be in [0, 65535], got 'x:-1' (expected "
            "HOST:PORT)");
  EXPECT_EQ(ConfigError("listen: '::1:80'"),
            "q.conf: listen: an IPv6 host needs brackets, got '::1:80' "
            "(expected HOST:PORT)");
  EXPECT_EQ(ConfigError("listen: 'a:80' metrics_listen: 'a:80'"),
            "q.conf: metrics_listen: port 80 is already used by listen");
  EXPECT_EQ(ConfigError("limits { max_arms: 0 }"),
            "q.conf: limits.max_arms: must be > 0, got 0");
  EXPECT_EQ(ConfigError("limits { max_buffered_bytes: -5 }"),
            "q.conf: limits.max_buffered_bytes: must be > 0, got -5");
  EXPECT_EQ(ConfigError("threads: 0"),
            "q.conf: threads: must be in [1, 1024], got 0");
  for (const char* name : {"", "-a", "a-", "A", "a.b", "a_b", "a b"}) {
    EXPECT_EQ(ConfigError(absl::StrCat("replica: '", name, "'")),
              absl::StrCat("q.conf: replica: must be [a-z0-9-]{1,63}, without "
                           "- at an end, got '",
                           name, "'"));
  }
  for (const char* share : {"-0.1", "1.5", "nan"}) {
    EXPECT_EQ(ConfigError(absl::StrCat("activation_sampling: ", share)),
              absl::StrCat("q.conf: activation_sampling: must be in [0, 1], "
                           "got ",
                           share));
  }
  for (const char* models : {"-1", "51"}) {
    EXPECT_EQ(ConfigError(absl::StrCat("activation_models: ", models)),
              absl::StrCat("q.conf: activation_models: must be in [0, 50], "
                           "got ",
                           models));
  }
  EXPECT_EQ(ConfigError("baseline_dir: ''"),
            "q.conf: baseline_dir: must not be empty");
  EXPECT_EQ(ConfigError("shutdown_grace_s: -1"),
            "q.conf: shutdown_grace_s: must be in [0, 86400], got -1");
  EXPECT_EQ(ConfigError("keepalive_s: 0"),
            "q.conf: keepalive_s: must be in [1, 86400], got 0");
  EXPECT_EQ(ConfigError("keepalive_timeout_s: 100000"),
            "q.conf: keepalive_timeout_s: must be in [1, 86400], got 100000");
  EXPECT_EQ(ConfigError("log_level: 'loud'"),
            "q.conf: log_level: must be debug, info, warn or error, got "
            "'loud'");
  EXPECT_EQ(ConfigError("check_weights: 'yes'"),
            "q.conf: check_weights: must be auto, warn, fail or off, got "
            "'yes'");
}

TEST(ConfigTest, R33_AllBadValuesAtOnce) {
  const auto config = ParseConfig(
      "limits { max_arms: 0 max_new_tokens: -1 } keepalive_s: 0 "
      "models { path: 'x' } models { name: 'a' } models { name: 'b' path: 'y' "
      "}",
      "q.conf");
  ASSERT_TRUE(config.ok()) << config.status();
  std::vector<absl::Status> problems;
  const auto options = OptionsFromConfig(*config, "q.conf", &problems);
  std::vector<std::string> lines;
  for (const absl::Status& problem : problems) {
    lines.emplace_back(problem.message());
  }
  EXPECT_THAT(lines, ::testing::ElementsAre(
                         "q.conf: models[0].name: must not be empty",
                         "q.conf: models[1].path: must not be empty",
                         "q.conf: limits.max_arms: must be > 0, got 0",
                         "q.conf: limits.max_new_tokens: must be > 0, got -1",
                         "q.conf: keepalive_s: must be in [1, 86400], got 0"));
  EXPECT_EQ(options.status(), problems.front());
}

TEST(ConfigTest, BadModels) {
  EXPECT_EQ(ConfigError("models { name: 'a/b' path: 'x' }"),
            "q.conf: models[0].name: invalid name 'a/b' (allowed "
            "[A-Za-z0-9._-]{1,128})");
  EXPECT_EQ(ConfigError("models { path: 'x' }"),
            "q.conf: models[0].name: must not be empty");
  EXPECT_EQ(ConfigError("models { name: 'a' }"),
            "q.conf: models[0].path: must not be empty");
  EXPECT_EQ(ConfigError("models { name: 'a' path: 'x' } "
                        "models { name: 'a' path: 'y' }"),
            "q.conf: models[1].name: 'a' is already used by models[0]");
  EXPECT_EQ(ConfigError("models { name: 'a' path: 'x' compute: 'f64' }"),
            "q.conf: models[0].compute: must be f32 or bf16, got 'f64'");
  EXPECT_EQ(ConfigError("models { name: 'a' path: 'x' sha256: 'zz' }"),
            "q.conf: models[0].sha256: must be 64 hex digits, got 'zz'");
}

TEST(ConfigTest, MissingModelFiles) {
  ServerOptions options;
  options.models.push_back({"a", "/nowhere/at/all", ComputeType::kF32, ""});
  options.models.push_back(
      {"t", std::string(QK_SOURCE_DIR) + "/tests/goldens/tiny_llama_gqa",
       ComputeType::kF32, ""});
  const auto problems = CheckModelFiles(options.models, options.model_admin,
                                        options.limits.kv_cache_bytes);
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_THAT(std::string(problems[0].message()), HasSubstr("model 'a': "));
}

TEST(ConfigTest, AddressesThatCannotBeBound) {
  EXPECT_TRUE(ProbeAddress("127.0.0.1:0").ok());
  EXPECT_THAT(std::string(ProbeAddress("no-such-host.invalid:1").message()),
              HasSubstr("cannot resolve 'no-such-host.invalid:1'"));
  // No machine has an address in TEST-NET-1.
  EXPECT_THAT(std::string(ProbeAddress("192.0.2.1:0").message()),
              HasSubstr("cannot bind '192.0.2.1:0'"));
}

TEST(ConfigTest, Users) {
  const std::string sha(64, 'a');
  const auto config = ParseConfig(
      "users { alias: 'ada' token_sha256: '" + sha +
          "' weight: 2.5 role: 'operator' allowed_models: 'm' "
          "budget { device_ms_per_window: 5 window_s: 60 max_queued: 7 } } "
          "users { alias: 'cli' subject: 'client 1' } users_file: 'u.conf' "
          "tls { certificate_file: 'c' key_file: 'k' client_ca_file: 'a' } "
          "log_prompts: true",
      "q.conf");
  ASSERT_TRUE(config.ok()) << config.status().message();
  const auto options = OptionsFromConfig(*config, "q.conf");
  ASSERT_TRUE(options.ok()) << options.status().message();
  ASSERT_EQ(options->access.users.size(), 2u);
  const User& ada = options->access.users[0].user;
  EXPECT_EQ(ada.alias, "ada");
  EXPECT_EQ(ada.weight, 2.5);
  EXPECT_EQ(ada.role, UserRole::kOperator);
  EXPECT_EQ(ada.allowed_models, std::vector<std::string>{"m"});
  EXPECT_EQ(ada.budget.device_ms_per_window, 5);
  EXPECT_EQ(ada.budget.window_s, 60);
  EXPECT_EQ(ada.budget.bytes_per_window, 0);
  EXPECT_EQ(ada.budget.max_queued, 7);
  EXPECT_EQ(options->access.users[1].subject, "client 1");
  EXPECT_EQ(options->access.users[1].user.role, UserRole::kUser);
  EXPECT_EQ(options->access.users[1].user.weight, 1);
  EXPECT_EQ(options->access.users_file, "u.conf");
  EXPECT_TRUE(options->access.tls.requires_client_certificate());
  EXPECT_TRUE(options->log_prompts);
}

TEST(ConfigTest, BadUsers) {
  const std::string sha = " token_sha256: '" + std::string(64, 'a') + "' ";
  const auto error = [&](const std::string& user) {
    return ConfigError("users {" + user + "}");
  };
  EXPECT_EQ(error("alias: 'a b'" + sha),
            "q.conf: users[0].alias: invalid alias 'a b' (allowed "
            "[A-Za-z0-9._-]{1,64}, not 'anonymous')");
  EXPECT_THAT(error("alias: 'anonymous'" + sha), HasSubstr("invalid alias"));
  EXPECT_THAT(error("alias: '" + std::string(65, 'a') + "'" + sha),
              HasSubstr("invalid alias"));
  EXPECT_EQ(
      error("alias: 'a'"),
      "q.conf: users[0].token_sha256: token_sha256 or subject must be set");
  // A token in the wrong place does not appear in the error.
  EXPECT_EQ(error("alias: 'a' token_sha256: 'qks_secret'"),
            "q.conf: users[0].token_sha256: must be 64 hex digits, got 10 "
            "bytes");
  EXPECT_EQ(error("alias: 'a' subject: ''"),
            "q.conf: users[0].subject: must be 1 to 256 bytes, got 0");
  for (const char* weight : {"0", "-1", "nan", "inf", "1001"}) {
    EXPECT_THAT(error("alias: 'a' weight: " + std::string(weight) + sha),
                HasSubstr("q.conf: users[0].weight: must be in (0, 1000]"))
        << weight;
  }
  EXPECT_EQ(error("alias: 'a' role: 'root'" + sha),
            "q.conf: users[0].role: must be user or operator, got 'root'");
  EXPECT_THAT(error("alias: 'a' allowed_models: 'm/n'" + sha),
              HasSubstr("q.conf: users[0].allowed_models: invalid name"));
  EXPECT_EQ(error("alias: 'a' budget { max_queued: -1 }" + sha),
            "q.conf: users[0].budget.max_queued: must be >= 0, got -1");
  EXPECT_EQ(error("alias: 'a' budget { window_s: 0 }" + sha),
            "q.conf: users[0].budget.window_s: must be in [1, 2678400], got 0");
  const std::string a = "users { alias: 'a' " + sha + "}";
  EXPECT_EQ(
      ConfigError(a + a),
      "q.conf: users[1].alias: already belongs to 'a' at q.conf: users[0]");
  EXPECT_EQ(ConfigError(a + "users { alias: 'b'" + sha + "}"),
            "q.conf: users[1].token_sha256: already belongs to 'a' at q.conf: "
            "users[0]");
  EXPECT_EQ(ConfigError("tls { key_file: 'k' }"),
            "q.conf: tls.certificate_file: must not be empty");
  EXPECT_EQ(ConfigError("tls { certificate_file: 'k' }"),
            "q.conf: tls.key_file: must not be empty");
}

TEST(ConfigTest, SubjectsNeedAnAuthority) {
  ServerOptions options;
  options.access.users.emplace_back();
  options.access.users[0].subject = "client 1";
  options.access.users[0].where = "q.conf: users[0]";
  EXPECT_EQ(CheckAccess(options).message(),
            "q.conf: users[0].subject: needs tls.client_ca_file");
  options.access.tls = {"c", "k", "a"};
  EXPECT_TRUE(CheckAccess(options).ok());
}

TEST(ConfigTest, ModelAdmin) {
  const auto parse = [](const std::string& text) {
    const auto config = ParseConfig(text, "f");
    EXPECT_TRUE(config.ok()) << config.status();
    return OptionsFromConfig(*config, "f");
  };
  EXPECT_FALSE(parse("")->model_admin.enabled);
  const std::string sha(64, 'A');
  const auto options = parse(
      "model_admin { enabled: true root: 'r' eviction: LRU max_models: 3 "
      "max_bytes: 5 allowed_sha256: '" +
      sha + "' }");
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->model_admin.root, "r");
  EXPECT_EQ(options->model_admin.eviction, ModelAdminOptions::Eviction::kLru);
  EXPECT_EQ(options->model_admin.max_models, 3);
  EXPECT_EQ(options->model_admin.max_bytes, 5);
  EXPECT_EQ(options->model_admin.allowed_sha256,
            std::vector<std::string>{std::string(64, 'a')});
  EXPECT_EQ(
      CheckAccess(*options).message(),
      "model_admin: needs users or users_file, because only operators may "
      "use it");
  EXPECT_EQ(parse("model_admin { enabled: true }").status().message(),
            "f: model_admin.root: must not be empty");
  EXPECT_EQ(parse("model_admin { max_models: 0 }").status().message(),
            "f: model_admin.max_models: must be > 0, got 0");
  EXPECT_EQ(parse("model_admin { allowed_sha256: 'x' }").status().message(),
            "f: model_admin.allowed_sha256[0]: must be 64 hex digits, got 'x'");
}

TEST(ConfigTest, S13_OnlyLoopbackWithoutAProxy) {
  for (const char* host : {"127.0.0.1", "127.8.9.10", "[::1]", "localhost",
                           "[::ffff:127.0.0.1]"}) {
    ServerOptions options;
    options.listen = std::string(host) + ":0";
    EXPECT_TRUE(CheckAccess(options).ok()) << host;
  }
  for (const char* host :
       {"0.0.0.0", "[::]", "10.0.0.1", "128.0.0.1", "example.com",
        "localhost.example.com", "[fe80::1]", "127.1", "[::ffff:10.0.0.1]"}) {
    ServerOptions options;
    options.listen = std::string(host) + ":7461";
    EXPECT_THAT(std::string(CheckAccess(options).message()),
                HasSubstr("listen: '" + options.listen +
                          "' can be reached by other machines"));
    options.access.allow_anonymous_network = true;
    EXPECT_TRUE(CheckAccess(options).ok()) << host;
    options.access.allow_anonymous_network = false;
    options.access.behind_proxy = true;
    EXPECT_TRUE(CheckAccess(options).ok()) << host;
    options.access.behind_proxy = false;
    // Whoever may connect can send frames, whatever calls then need.
    options.access.users_file = "u";
    EXPECT_FALSE(CheckAccess(options).ok()) << host;
    options.access.tls = {"c", "k", "a"};
    EXPECT_FALSE(CheckAccess(options).ok()) << host;
  }
}

std::string FlagError(const std::vector<std::string>& arguments) {
  return std::string(ParseFlags(arguments).status().message());
}

TEST(FlagsTest, GoodFlags) {
  const auto flags = ParseFlags({"--model",
                                 "a=/m/a,b.gguf,compute=bf16",
                                 "--model=b=x",
                                 "--listen=127.0.0.1:0",
                                 "--threads",
                                 "2",
                                 "--backend=cpu",
                                 "--check-config",
                                 "--users-file",
                                 "u",
                                 "--allow-anonymous-network",
                                 "--behind-proxy",
                                 "--tls-cert=c",
                                 "--tls-key=k",
                                 "--tls-client-ca=a",
                                 "--replica=b",
                                 "--activation-sampling=0.5",
                                 "--activation-models",
                                 "2",
                                 "--baseline-dir=d"});
  ASSERT_TRUE(flags.ok()) << flags.status().message();
  EXPECT_TRUE(flags->check_config);
  ASSERT_EQ(flags->config.models_size(), 2);
  EXPECT_EQ(flags->config.models(0).path(), "/m/a,b.gguf");
  EXPECT_EQ(flags->config.models(0).compute(), "bf16");
  EXPECT_EQ(flags->config.models(1).path(), "x");
  EXPECT_FALSE(flags->config.models(1).has_compute());
  EXPECT_EQ(flags->config.threads(), 2);
  EXPECT_EQ(flags->config.backend(), "cpu");
  EXPECT_EQ(flags->config.users_file(), "u");
  EXPECT_TRUE(flags->config.allow_anonymous_network());
  EXPECT_TRUE(flags->config.behind_proxy());
  EXPECT_EQ(flags->config.tls().certificate_file(), "c");
  EXPECT_EQ(flags->config.tls().key_file(), "k");
  EXPECT_EQ(flags->config.tls().client_ca_file(), "a");
  EXPECT_EQ(flags->config.activation_sampling(), 0.5);
  EXPECT_EQ(flags->config.activation_models(), 2);
  EXPECT_EQ(flags->config.baseline_dir(), "d");
  EXPECT_EQ(flags->config.replica(), "b");
}

TEST(FlagsTest, BadFlags) {
  EXPECT_EQ(FlagError({"--lisen=x"}),
            "unknown flag '--lisen'; did you mean '--listen'?");
  EXPECT_EQ(FlagError({"--zzzzzzzzzzzzz"}),
            "unknown flag '--zzzzzzzzzzzzz'; see --help");
  EXPECT_EQ(FlagError({"model"}), "unexpected argument 'model'; see --help");
  EXPECT_EQ(FlagError({"-h"}), "unexpected argument '-h'; see --help");
  EXPECT_EQ(FlagError({"--", "x"}), "unexpected argument 'x'; see --help");
  EXPECT_EQ(FlagError({"--threads"}), "--threads needs a value: N");
  EXPECT_EQ(FlagError({"--threads", "two"}),
            "--threads: must be a number, got 'two'");
  EXPECT_EQ(FlagError({"--activation-sampling", "half"}),
            "--activation-sampling: must be a number, got 'half'");
  EXPECT_EQ(FlagError({"--model", "a"}), "--model: must be NAME=PATH, got 'a'");
  EXPECT_EQ(FlagError({"--help=perhaps"}),
            "--help: 'perhaps' is not true or false");
}

TEST(FlagsTest, OnlyModelsMayComeTwice) {
  for (const char* name : {"config", "listen", "metrics-listen", "users-file",
                           "tls-cert", "tls-key", "tls-client-ca", "spool",
                           "log-level", "threads", "replica"}) {
    const std::string flag = absl::StrCat("--", name);
    EXPECT_EQ(FlagError({flag, "1", flag + "=1"}), flag + " is given twice");
  }
  EXPECT_EQ(FlagError({"--check-config", "--check-config"}),
            "--check-config is given twice");
  EXPECT_EQ(FlagError({"--model", "a=x", "--model", "b=y"}), "");
}

TEST(FlagsTest, NegativeNumbersAreValues) {
  const auto flags = ParseFlags({"--threads", "-1"});
  ASSERT_TRUE(flags.ok()) << flags.status().message();
  EXPECT_EQ(flags->config.threads(), -1);  // ReadOptions refuses it
}

TEST(GrpcStatusTest, InternalErrorsTellNothing) {
  const ConvertedStatus out =
      ToGrpcStatus(absl::InternalError("layer 3: /srv/x is null"), "id");
  EXPECT_EQ(out.status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(out.status.error_message(),
            "internal error (ref " + out.reference + ")");
  EXPECT_EQ(out.reference.size(), 8u);
  EXPECT_EQ(out.detail, "layer 3: /srv/x is null");
}

TEST(GrpcStatusTest, PathsAreCutAndCodesKept) {
  const ConvertedStatus out = ToGrpcStatus(
      absl::InvalidArgumentError("/srv/models/a.gguf: not a GGUF file"), "id");
  EXPECT_EQ(out.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(out.status.error_message(), "a.gguf: not a GGUF file");
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus(), "id").status.ok());
}

TEST(GrpcStatusTest, RetryInfoSurvives) {
  const absl::Status status =
      WithRetryAfter(absl::UnavailableError("later"), absl::Milliseconds(2500));
  EXPECT_EQ(RetryAfter(status), absl::Milliseconds(2500));
  EXPECT_EQ(RetryAfter(absl::UnavailableError("x")), std::nullopt);
  ::qkscope::v1::RpcStatus details;
  ASSERT_TRUE(details.ParseFromString(
      ToGrpcStatus(status, "4711").status.error_details()));
  EXPECT_EQ(details.message(), "later");
  ASSERT_EQ(details.details_size(), 2);
  ::qkscope::v1::RequestInfo request;
  ASSERT_TRUE(request.ParseFromString(details.details(1).value()));
  EXPECT_EQ(request.request_id(), "4711");
  EXPECT_THAT(details.details(0).type_url(), HasSubstr("google.rpc.RetryInfo"));
}

}  // namespace
}  // namespace qk
