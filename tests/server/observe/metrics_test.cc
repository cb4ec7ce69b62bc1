// Tests what /metrics says, and that Prometheus's own checker accepts it.
#include "server/observe/metrics.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "prometheus/text_serializer.h"
#include "server/observe/device_metrics.h"
#include "tests/server/await.h"
#include "tests/server/observe/metric_samples.h"
#include "tests/server/observe/promtool.h"
#include "tests/server/server_testing.h"

namespace qk {
namespace {

using testing::ParseSamples;
using testing::Promtool;
using testing::ServerTest;
using testing::Tokens;

TEST(DeviceMetricsTest, AGaugeForEachValueThatThereIs) {
  DeviceReading reading;
  EXPECT_TRUE(DeviceMetrics(reading, "GPU").empty());
  reading.memory_used_bytes = int64_t{5} << 30;
  reading.memory_total_bytes = int64_t{80} << 30;
  reading.utilization = 0.25;
  reading.power_watts = 312.5;
  Metrics::Options options;
  options.version = "1";
  options.read_device = [&] { return reading; };
  options.device = "NVIDIA H200 (GPU-1)";
  const Metrics metrics(options);
  const std::string text =
      prometheus::TextSerializer().Serialize(metrics.Collect());
  EXPECT_EQ(Promtool(text), "");
  const auto samples = ParseSamples(text);
  const std::string device = "{device=\"NVIDIA H200 (GPU-1)\"}";
  EXPECT_EQ(samples.at("qkscope_device_memory_used_bytes" + device),
            5.0 * (1 << 30));
  EXPECT_EQ(samples.at("qkscope_device_memory_bytes" + device),
            80.0 * (1 << 30));
  EXPECT_EQ(samples.at("qkscope_device_utilization_ratio" + device), 0.25);
  EXPECT_EQ(samples.at("qkscope_device_power_watts" + device), 312.5);
  EXPECT_EQ(samples.count("qkscope_device_temperature_celsius" + device), 0u);
}

TEST(ReplicaMetricsTest, AReplicaShowsItsName) {
  Metrics::Options options;
  options.version = "1";
  const auto samples = [&] {
    return ParseSamples(
        prometheus::TextSerializer().Serialize(Metrics(options).Collect()));
  };
  EXPECT_EQ(samples().count("qkscope_replica_info{replica=\"\"}"), 0u);
  options.replica = "gpu-7";
  EXPECT_EQ(samples().at("qkscope_replica_info{replica=\"gpu-7\"}"), 1);
}

class MetricsTest : public ServerTest {
 protected:
  void SetUp() override {
    ServerOptions options = TinyOptions();
    options.metrics_listen = "127.0.0.1:0";
    StartServer(options);
    ASSERT_TRUE(server_->LoadModels().ok());
  }

  int Connect() const {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    const std::string& where = server_->metrics_address();
    address.sin_port = htons(static_cast<uint16_t>(
        std::atoi(where.substr(where.rfind(':') + 1).c_str())));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(
        connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    return fd;
  }

  std::string Scrape() const {
    const int fd = Connect();
    const std::string request =
        "GET /metrics HTTP/1.0\r\nConnection: close\r\n\r\n";
    EXPECT_EQ(send(fd, request.data(), request.size(), 0),
              static_cast<ssize_t>(request.size()));
    std::string answer;
    char buffer[4096];
    for (ssize_t n; (n = recv(fd, buffer, sizeof(buffer), 0)) > 0;) {
      answer.append(buffer, static_cast<size_t>(n));
    }
    close(fd);
    const size_t body = answer.find("\r\n\r\n");
    EXPECT_TRUE(absl::StartsWith(answer, "HTTP/1.1 200")) << answer;
    return answer.substr(body + 4);
  }
};

TEST_F(MetricsTest, CountsAddUpAndPromtoolIsSilent) {
  double sent = 0;
  for (const std::string& request :
       {Tokens(10),
        Tokens(5) + " arms {name: 'a' disruptions {top_k {k: 1}}}"}) {
    const testing::Analysis out = Analyze("model: 'tiny' " + request);
    EXPECT_TRUE(out.status.ok()) << out.status.error_message();
    for (const auto& event : out.events) {
      sent += static_cast<double>(event.ByteSizeLong());
    }
  }
  EXPECT_FALSE(Analyze("model: 'tiny' input {}").status.ok());
  EXPECT_FALSE(Analyze("model: 'no-such-model' " + Tokens(1)).status.ok());
  ASSERT_TRUE(server_->WaitUntilIdle(absl::InfiniteFuture()));
  // A run is destroyed after its call has ended.
  ASSERT_TRUE(testing::Await(
      [this] {
        const auto now = testing::SamplesOf(*server_);
        return now.at("qkscope_queued_requests") == 0 &&
               now.at("qkscope_running_requests") == 0;
      },
      absl::Minutes(5)));
  const std::string text = Scrape();
  EXPECT_EQ(Promtool(text), "");
  const auto samples = ParseSamples(text);
  EXPECT_EQ(samples.at("qkscope_rpc_started_total{method=\"Analyze\"}"), 4);
  EXPECT_EQ(
      samples.at("qkscope_rpc_handled_total{code=\"OK\",method=\"Analyze\"}"),
      2);
  double started = 0, handled = 0;
  for (const auto& [name, value] : samples) {
    if (absl::StartsWith(name, "qkscope_rpc_started_total")) started += value;
    if (absl::StartsWith(name, "qkscope_rpc_handled_total")) handled += value;
  }
  EXPECT_EQ(started, handled);
  EXPECT_EQ(samples.at("qkscope_prompt_tokens_total{model=\"tiny\"}"), 15);
  EXPECT_EQ(samples.at("qkscope_pass_rows_total{model=\"tiny\"}"), 15);
  EXPECT_EQ(samples.at("qkscope_model_ready{model=\"tiny\"}"), 1);
  EXPECT_GT(
      samples.at("qkscope_model_memory_bytes{memory=\"host\",model=\"tiny\"}"),
      0);
  EXPECT_EQ(samples.at("qkscope_streamed_bytes_total"), sent);
  EXPECT_EQ(samples.at("qkscope_stream_buffered_bytes"), 0);
  EXPECT_EQ(samples.at("qkscope_stream_reserved_bytes"), 0);
  EXPECT_EQ(samples.at("qkscope_queued_requests"), 0);
  EXPECT_EQ(samples.at("qkscope_running_requests"), 0);
  EXPECT_EQ(text.find("no-such-model"), std::string::npos);
}

// 100 scrapers that send half a request hold threads of the listener; calls and
// their counters are not affected.
TEST_F(MetricsTest, SlowScrapersDoNotHoldCalls) {
  std::vector<int> slow;
  for (int i = 0; i < 100; ++i) {
    slow.push_back(Connect());
    send(slow.back(), "GET /met", 8, 0);
  }
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(Analyze("model: 'tiny' " + Tokens(4)).status.ok());
  }
  for (int fd : slow) close(fd);
  auto samples = ParseSamples(Scrape());
  EXPECT_EQ(samples["qkscope_rpc_started_total{method=\"Analyze\"}"], 10);
}

// Everything that can be shown, with as many names as there can be: 60 models,
// 500 users with budgets, every code of every method, a spool, TLS and a GPU.
TEST(MetricsSeriesTest, StayBounded) {
  SchedulerLoad load;
  for (int i = 0; i < 500; ++i) {
    load.users.push_back({.alias = "user" + std::to_string(i),
                          .device_seconds = 1.0 + i,
                          .budget_used = 0.5});
  }
  DeviceReading reading;
  reading.memory_used_bytes = reading.memory_total_bytes = 1;
  reading.utilization = reading.temperature_celsius = reading.power_watts = 1;
  BytePool pool("bytes", 1);
  const std::atomic<int64_t> buffered = 0;
  Metrics::Options options;
  options.version = "1";
  options.replica = "r";
  options.methods = AnalysisService::Methods();
  for (const std::string& method : AdminService::Methods()) {
    options.methods.push_back(method);
  }
  options.read_device = [&] { return reading; };
  options.sources = {
      .state = [] { return ServiceSources::State(); },
      .load = [&] { return load; },
      .buffers = &pool,
      .buffered = &buffered,
      .kept = [] { return ServiceSources::Kept(); },
      .connections = [] { return int64_t{1}; },
      .connections_cut = [] { return int64_t{1}; },
      .certificate_expiry = [] { return absl::UnixEpoch(); },
      .log_dropped = [] { return int64_t{1}; },
  };
  Metrics metrics(options);
  for (int i = 0; i < 60; ++i) {
    const std::string model = "model" + std::to_string(i);
    metrics.AddModel(model);
    metrics.CountTokens(model, 1, 1);
    metrics.CountNonFinite(model, 1);
  }
  for (const std::string& method : options.methods) {
    for (int code = 0; code <= 16; ++code) {
      metrics.RpcHandled(method, static_cast<grpc::StatusCode>(code), 1);
    }
  }
  metrics.ObservePhases({1, {1, 1, 1, 1}, 1});
  const std::string text =
      prometheus::TextSerializer().Serialize(metrics.Collect());
  const auto samples = ParseSamples(text);
  std::printf("at most %zu series\n", samples.size());
  EXPECT_LE(samples.size(), 2000u);
  EXPECT_EQ(samples.at("qkscope_prompt_tokens_total{model=\"other\"}"), 10);
  EXPECT_EQ(samples.count("qkscope_prompt_tokens_total{model=\"model50\"}"),
            0u);
  EXPECT_EQ(Promtool(text), "");
}

}  // namespace
}  // namespace qk
