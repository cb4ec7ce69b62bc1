// Measures a running server under short prompts, and its streams.
//
//   server_load ADDR MODEL [TOKEN_FILE]
//
// Prints the time of 32 concurrent requests of one prompt, compared with one
// request of the same rows as 32 arms (a batch made by hand), and the rate at
// which one client gets a large raw stream.
#include <algorithm>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/analysis_client.h"
#include "client/files/file_io.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

constexpr int kConcurrent = 32;
constexpr int kTokens = 16;
constexpr int kRepeats = 5;

v1::AnalyzeRequest Prompt(const std::string& model, int tokens) {
  v1::AnalyzeRequest request;
  request.set_model(model);
  for (int i = 0; i < tokens; ++i) {
    request.mutable_input()->mutable_token_ids()->add_ids(1 + (7 * i) % 90);
  }
  return request;
}

double Seconds(absl::Time start) {
  return absl::ToDoubleSeconds(absl::Now() - start);
}

void Must(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

double Concurrent(const ClientOptions& options, const std::string& model) {
  std::vector<std::unique_ptr<AnalysisClient>> clients;
  for (int i = 0; i < kConcurrent; ++i) {
    clients.push_back(AnalysisClient::Create(options));
    Must(clients.back()->ListModels().status());
  }
  const v1::AnalyzeRequest request = Prompt(model, kTokens);
  const absl::Time start = absl::Now();
  std::vector<std::thread> threads;
  for (auto& client : clients) {
    threads.emplace_back(
        [&] { Must(client->Analyze(request, {}, {}).status()); });
  }
  for (std::thread& thread : threads) thread.join();
  return Seconds(start);
}

double ByHand(AnalysisClient* client, const std::string& model) {
  v1::AnalyzeRequest request = Prompt(model, kTokens);
  for (int i = 0; i < kConcurrent; ++i) {
    request.add_arms()->set_name(absl::StrCat("arm", i));
  }
  const absl::Time start = absl::Now();
  Must(client->Analyze(request).status());
  return Seconds(start);
}

void Stream(AnalysisClient* client, const std::string& model) {
  v1::AnalyzeRequest request = Prompt(model, 512);
  request.mutable_capture()->set_form(v1::RAW);
  int64_t bytes = 0;
  absl::Time last;
  AnalyzeObserver observer;
  observer.keep_tensors = false;
  observer.on_tensor = [&](int64_t, const Tensor& tensor) {
    bytes += static_cast<int64_t>(tensor.data.size());
    last = absl::Now();
  };
  const absl::Time start = absl::Now();
  const auto result = client->Analyze(request, observer);
  Must(result.status());
  std::printf(
      "raw stream of 512 tokens: %.1f MiB in %.2f s; of it prefill %.2f s\n",
      static_cast<double>(bytes) / 1048576.0, Seconds(start),
      result->finished.times().prefill_ms() / 1e3);
}

int Main(int argc, char** argv) {
  if (argc < 3) return 2;
  ClientOptions options;
  options.server = argv[1];
  if (argc > 3) {
    options.token = ReadFile(argv[3]).value();
    while (options.token.back() <= ' ') options.token.pop_back();
  }
  const auto client = AnalysisClient::Create(options);
  std::vector<double> concurrent, by_hand;
  for (int i = 0; i < kRepeats; ++i) {
    by_hand.push_back(ByHand(client.get(), argv[2]));
    concurrent.push_back(Concurrent(options, argv[2]));
  }
  std::sort(concurrent.begin(), concurrent.end());
  std::sort(by_hand.begin(), by_hand.end());
  const double together = concurrent[kRepeats / 2];
  const double hand = by_hand[kRepeats / 2];
  std::printf(
      "%d prompts of %d tokens, median of %d: %.3f s concurrent, %.3f s as one "
      "batch by hand: %.0f %% of its throughput\n",
      kConcurrent, kTokens, kRepeats, together, hand, 100 * hand / together);
  Stream(client.get(), argv[2]);
  return 0;
}

}  // namespace
}  // namespace qk::client

int main(int argc, char** argv) { return qk::client::Main(argc, argv); }
