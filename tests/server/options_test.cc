// Configuration files and flags: what is refused, and with which words.
#include "server/options.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/flags.h"
#include "server/grpc_status.h"

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
      threads: 3
      limits { max_arms: 5 kv_cache_bytes: 1048576 }
      shutdown_grace_s: 7
      reflection: false
      log_level: "warn")",
                                  "q.conf");
  ASSERT_TRUE(config.ok()) << config.status().message();
  const auto options = OptionsFromConfig(*config, "q.conf");
  ASSERT_TRUE(options.ok()) << options.status().message();
  EXPECT_EQ(options->listen, "[::1]:0");
  EXPECT_EQ(options->metrics_listen, "");
  ASSERT_EQ(options->models.size(), 1u);
  EXPECT_EQ(options->models[0].compute, ComputeType::kBF16);
  EXPECT_EQ(options->threads, 3);
  EXPECT_EQ(options->limits.max_arms, 5);
  EXPECT_EQ(options->limits.max_rules_per_arm, 64);
  EXPECT_EQ(options->shutdown_grace, absl::Seconds(7));
  EXPECT_FALSE(options->reflection);
  EXPECT_EQ(options->log_level, LogLevel::kWarn);
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
            "q.conf: metrics_listen: port 80 is listen's, too");
  EXPECT_EQ(ConfigError("limits { max_arms: 0 }"),
            "q.conf: limits.max_arms: must be > 0, got 0");
  EXPECT_EQ(ConfigError("limits { max_buffered_bytes: -5 }"),
            "q.conf: limits.max_buffered_bytes: must be > 0, got -5");
  EXPECT_EQ(ConfigError("threads: 0"),
            "q.conf: threads: must be in [1, 1024], got 0");
  EXPECT_EQ(ConfigError("shutdown_grace_s: -1"),
            "q.conf: shutdown_grace_s: must be in [0, 86400], got -1");
  EXPECT_EQ(ConfigError("log_level: 'loud'"),
            "q.conf: log_level: must be debug, info, warn or error, got "
            "'loud'");
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
            "q.conf: models[1].name: 'a' is used by models[0]");
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
  const auto problems = CheckModelFiles(options);
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_THAT(problems[0], HasSubstr("model 'a': "));
}

TEST(ConfigTest, AddressesThatCannotBeBound) {
  EXPECT_TRUE(ProbeAddress("127.0.0.1:0").ok());
  EXPECT_THAT(std::string(ProbeAddress("no-such-host.invalid:1").message()),
              HasSubstr("cannot resolve 'no-such-host.invalid:1'"));
  // TEST-NET-1 is nobody's.
  EXPECT_THAT(std::string(ProbeAddress("192.0.2.1:0").message()),
              HasSubstr("cannot bind '192.0.2.1:0'"));
}

std::string FlagError(const std::vector<std::string>& arguments) {
  return std::string(ParseFlags(arguments).status().message());
}

TEST(FlagsTest, GoodFlags) {
  const auto flags =
      ParseFlags({"--model", "a=/m/a,b.gguf,compute=bf16", "--model=b=x",
                  "--listen=127.0.0.1:0", "--threads", "2", "--check-config"});
  ASSERT_TRUE(flags.ok()) << flags.status().message();
  EXPECT_TRUE(flags->check_config);
  ASSERT_EQ(flags->config.models_size(), 2);
  EXPECT_EQ(flags->config.models(0).path(), "/m/a,b.gguf");
  EXPECT_EQ(flags->config.models(0).compute(), "bf16");
  EXPECT_EQ(flags->config.models(1).path(), "x");
  EXPECT_FALSE(flags->config.models(1).has_compute());
  EXPECT_EQ(flags->config.threads(), 2);
}

TEST(FlagsTest, BadFlags) {
  EXPECT_EQ(FlagError({"--lisen=x"}),
            "unknown flag '--lisen'; did you mean '--listen'?");
  EXPECT_EQ(FlagError({"--zzzzzzzzzzzzz"}),
            "unknown flag '--zzzzzzzzzzzzz'; see --help");
  EXPECT_EQ(FlagError({"model"}), "unexpected argument 'model'; see --help");
  EXPECT_EQ(FlagError({"--threads"}), "--threads: needs a value");
  EXPECT_EQ(FlagError({"--threads", "two"}),
            "--threads: must be a number, got 'two'");
  EXPECT_EQ(FlagError({"--model", "a"}), "--model: must be NAME=PATH, got 'a'");
  EXPECT_EQ(FlagError({"--help=yes"}), "--help: takes no value");
}

TEST(GrpcStatusTest, InternalErrorsTellNothing) {
  const ConvertedStatus out =
      ToGrpcStatus(absl::InternalError("layer 3: /srv/x is null"));
  EXPECT_EQ(out.status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(out.status.error_message(),
            "internal error (ref " + out.reference + ")");
  EXPECT_EQ(out.reference.size(), 8u);
  EXPECT_EQ(out.detail, "layer 3: /srv/x is null");
}

TEST(GrpcStatusTest, PathsAreCutAndCodesKept) {
  const ConvertedStatus out = ToGrpcStatus(
      absl::InvalidArgumentError("/srv/models/a.gguf: not a GGUF file"));
  EXPECT_EQ(out.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(out.status.error_message(), "a.gguf: not a GGUF file");
  EXPECT_TRUE(out.status.error_details().empty());
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).status.ok());
}

TEST(GrpcStatusTest, RetryInfoSurvives) {
  const absl::Status status =
      WithRetryAfter(absl::UnavailableError("later"), absl::Milliseconds(2500));
  EXPECT_EQ(RetryAfter(status), absl::Milliseconds(2500));
  EXPECT_EQ(RetryAfter(absl::UnavailableError("x")), std::nullopt);
  EXPECT_FALSE(ToGrpcStatus(status).status.error_details().empty());
}

TEST(LogTest, JsonEscape) {
  EXPECT_EQ(JsonEscape("a\"b\\c\n\x01"), "a\\\"b\\\\c\\u000a\\u0001");
  EXPECT_EQ(JsonEscape("\xff"
                       "a\xc3\xa9"),
            "\xef\xbf\xbd"
            "a\xc3\xa9");
}

}  // namespace
}  // namespace qk
