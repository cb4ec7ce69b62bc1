// Clients of several kinds use one server for a time: well-behaved ones whose
// answers are compared with the answer that the same request gets alone, ones
// that flood, ones that stop reading, ones that are killed, one whose very long
// prompt is always in flight, and, in a process of its own, a probe that asks
// short questions and waits.
//
//   soak --server ADDR --model NAME --seconds N --tokens FOLDER
//        [--clients N] [--long-tokens N] [--qkctl PATH] [--nice N]
//
// FOLDER holds a file KIND.token for each kind: good, flood, stalled, killed,
// long, probe. --nice applies to all clients except the probe. Prints one JSON
// object. The exit status is 1 for wrong bytes, or an error that no load
// excuses.
#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "client/cpp/analysis_client.h"
#include "client/files/file_io.h"
#include "qkscope/v1/analysis.grpc.pb.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

struct Options {
  std::string server, model, tokens, qkctl;
  int seconds = 10, clients = 64, long_tokens = 0, nice = 0;
};

// What all threads count.
struct Counts {
  std::atomic<int64_t> good = 0, wrong = 0, refused = 0, flooded = 0,
                       stalled = 0, killed = 0, long_ones = 0;
  std::mutex mutex;
  std::map<std::string, int> errors;
  void Error(const std::string& kind, const absl::Status& status) {
    std::lock_guard<std::mutex> lock(mutex);
    ++errors[absl::StrCat(kind, ": ", status.ToString())];
  }
};

v1::AnalyzeRequest RequestOf(const std::string& model, int variant) {
  std::mt19937 random(static_cast<unsigned>(variant));
  v1::AnalyzeRequest request;
  request.set_model(model);
  const int tokens = 1 + static_cast<int>(random() % 40);
  for (int i = 0; i < tokens; ++i) {
    request.mutable_input()->mutable_token_ids()->add_ids(
        static_cast<int>(random() % 90));
  }
  request.add_arms()->set_name("clean");
  if (variant % 2 == 1) {
    v1::Arm* arm = request.add_arms();
    arm->set_name("top");
    arm->add_disruptions()->mutable_top_k()->set_k(1 + variant % 3);
    request.mutable_compare();
  }
  if (variant % 3 == 0) request.mutable_generate()->set_max_new_tokens(4);
  if (variant % 5 == 0) {
    request.mutable_capture()->set_form(v1::NORM_PER_TOKEN);
  }
  return request;
}

// Returns every payload's digest, in the manifest's order, all generated
// tokens, and the comparisons. Arms need not take turns in the same way each
// time, so their tokens and comparisons are sorted.
using Lines = std::vector<std::string>;
Lines Fingerprint(const AnalysisResult& result) {
  Lines out;
  for (const auto& digest : result.finished.manifest().digests()) {
    out.push_back(digest.ShortDebugString());
  }
  const auto digests = static_cast<std::ptrdiff_t>(out.size());
  for (const v1::Token& token : result.tokens) {
    out.push_back(token.ShortDebugString());
  }
  for (const v1::Comparison& comparison : result.comparisons) {
    out.push_back(comparison.ShortDebugString());
  }
  std::sort(out.begin() + digests, out.end());
  return out;
}

// Describes the first difference; empty if there is none.
std::string Difference(const Lines& got, const Lines& expected) {
  for (size_t i = 0; i < std::max(got.size(), expected.size()); ++i) {
    const std::string a = i < got.size() ? got[i] : "nothing";
    const std::string b = i < expected.size() ? expected[i] : "nothing";
    if (a != b) return absl::StrCat("got ", a, ", alone ", b);
  }
  return "";
}

// Two processes that wait for each other.
class Rendezvous {
 public:
  Rendezvous() {
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends_) != 0) std::abort();
  }
  // Each process calls this after the fork.
  void Become(int side) {
    side_ = side;
    close(ends_[1 - side]);
  }
  void Tell(absl::string_view text) const {
    send(ends_[side_], text.data(), text.size(), MSG_NOSIGNAL);
  }
  // Returns at least a byte; an empty string if the other process is gone.
  std::string Await() const {
    char buffer[1024];
    const ssize_t size = read(ends_[side_], buffer, sizeof(buffer));
    return std::string(buffer, std::max<ssize_t>(0, size));
  }

 private:
  int ends_[2];
  int side_ = 0;
};

class Soak {
 public:
  explicit Soak(Options options) : options_(std::move(options)) {}

  // Runs the crowd. gRPC must not have been used before.
  int Run() {
    const pid_t probe = fork();
    if (probe == 0) {
      rendezvous_.Become(1);
      _exit(RunProbe());
    }
    rendezvous_.Become(0);
    errno = 0;
    if (nice(options_.nice) == -1 && errno != 0) return 2;
    MeasureAlone(kVariants);
    rendezvous_.Tell(".");  // the server is yours
    rendezvous_.Await();    // and is no longer
    end_ = absl::Now() + absl::Seconds(options_.seconds);
    std::vector<std::thread> threads;
    const int each = options_.clients / 4;
    for (int i = 0; i < each; ++i) {
      threads.emplace_back([this, i] { Good(i); });
      threads.emplace_back([this, i] { Flood(i); });
      threads.emplace_back([this, i] { Stalled(i); });
      if (!options_.qkctl.empty()) {
        threads.emplace_back([this, i] { Killed(i); });
      }
    }
    if (options_.long_tokens > 0) threads.emplace_back([this] { Long(); });
    for (std::thread& thread : threads) thread.join();
    const std::string report = rendezvous_.Await();
    int status = 0;
    waitpid(probe, &status, 0);
    Print(report);
    return status == 0 && Clean() ? 0 : 1;
  }

 private:
  static constexpr int kVariants = 24;
  static constexpr int kProbeVariant = 1;

  std::unique_ptr<AnalysisClient> Client(const std::string& kind) const {
    return AnalysisClient::Create(Connection(kind));
  }
  ClientOptions Connection(const std::string& kind) const {
    ClientOptions options;
    options.server = options_.server;
    options.token =
        ReadFile(absl::StrCat(options_.tokens, "/", kind, ".token")).value();
    while (!options.token.empty() && options.token.back() <= ' ') {
      options.token.pop_back();
    }
    return options;
  }

  // Each client makes at least one round before it checks this.
  bool over() const { return absl::Now() >= end_; }
  bool answered() const { return counts_.good + counts_.wrong > 0; }

  void MeasureAlone(int variants) {
    const auto client = Client("good");
    for (int i = 0; i < variants; ++i) {
      const auto result = client->Analyze(RequestOf(options_.model, i));
      if (!result.ok()) {
        std::fprintf(stderr, "alone: %s\n", result.status().ToString().c_str());
        std::exit(1);
      }
      alone_.push_back(Fingerprint(*result));
    }
  }

  int RunProbe() {
    if (rendezvous_.Await().empty()) return 1;
    MeasureAlone(kProbeVariant + 1);
    const auto alone = Probe(std::max(1, options_.seconds / 10));
    rendezvous_.Tell(".");
    const auto under_load = Probe(options_.seconds);
    PrintErrors();
    rendezvous_.Tell(absl::StrCat("\"probe_alone_ms\": ", Summary(alone),
                                  ", \"probe_ms\": ", Summary(under_load)));
    return Clean() ? 0 : 1;
  }

  // Asks, reads, thinks, and asks again: this takes less than a sixth of the
  // device, which is a user's share here. Returns each request's milliseconds.
  std::vector<double> Probe(int seconds) {
    end_ = absl::Now() + absl::Seconds(seconds);
    std::vector<double> times;
    const auto client = Client("probe");
    do {
      const absl::Time start = absl::Now();
      const auto result =
          client->Analyze(RequestOf(options_.model, kProbeVariant));
      times.push_back(absl::ToDoubleMilliseconds(absl::Now() - start));
      Judge("probe", kProbeVariant, result);
      absl::SleepFor(absl::Milliseconds(600));
    } while (!over());
    return times;
  }

  void Judge(const char* kind, int variant,
             const absl::StatusOr<AnalysisResult>& result) {
    if (result.ok()) {
      const std::string difference =
          Difference(Fingerprint(*result), alone_[variant]);
      ++(difference.empty() ? counts_.good : counts_.wrong);
      if (!difference.empty()) {
        counts_.Error(kind, absl::InternalError(absl::StrCat(
                                "variant ", variant, ": ", difference)));
      }
    } else if (absl::IsResourceExhausted(result.status())) {
      ++counts_.refused;
      absl::SleepFor(absl::Milliseconds(50));
    } else {
      counts_.Error(kind, result.status());
    }
  }

  void Good(int seed) {
    const auto client = Client("good");
    std::mt19937 random(static_cast<unsigned>(seed));
    while (!over() || !answered()) {
      const int variant = static_cast<int>(random() % kVariants);
      Judge("good", variant,
            client->Analyze(RequestOf(options_.model, variant)));
    }
  }

  // Sends far more than the server will serve, and cancels half of it.
  void Flood(int seed) {
    const ClientOptions connection = Connection("flood");
    const auto stub = v1::Analysis::NewStub(grpc::CreateChannel(
        connection.server, grpc::InsecureChannelCredentials()));
    std::mt19937 random(static_cast<unsigned>(seed) + 1000);
    do {
      std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
      std::vector<std::unique_ptr<grpc::ClientReader<v1::AnalyzeEvent>>>
          readers;
      for (int i = 0; i < 8; ++i) {
        contexts.push_back(std::make_unique<grpc::ClientContext>());
        contexts.back()->AddMetadata("authorization",
                                     "Bearer " + connection.token);
        readers.push_back(stub->Analyze(
            contexts.back().get(),
            RequestOf(options_.model, static_cast<int>(random() % kVariants))));
      }
      for (size_t i = 0; i < readers.size(); ++i) {
        v1::AnalyzeEvent event;
        if (random() % 2 == 0) contexts[i]->TryCancel();
        while (readers[i]->Read(&event)) {
        }
        readers[i]->Finish();
        ++counts_.flooded;
      }
    } while (!over());
  }

  // Asks for much, reads a little, and stalls.
  void Stalled(int seed) {
    const ClientOptions connection = Connection("stalled");
    const auto stub = v1::Analysis::NewStub(grpc::CreateChannel(
        connection.server, grpc::InsecureChannelCredentials()));
    do {
      v1::AnalyzeRequest request = RequestOf(options_.model, 40 + seed);
      request.mutable_capture()->set_form(v1::RAW);
      grpc::ClientContext context;
      context.AddMetadata("authorization", "Bearer " + connection.token);
      const auto reader = stub->Analyze(&context, request);
      v1::AnalyzeEvent event;
      for (int i = 0; i < 3 && reader->Read(&event); ++i) {
      }
      for (int i = 0; i < 30 && !over(); ++i) {
        absl::SleepFor(absl::Milliseconds(100));
      }
      context.TryCancel();
      while (reader->Read(&event)) {
      }
      reader->Finish();
      ++counts_.stalled;
    } while (!over());
  }

  // Runs a process of its own, which is killed at a random moment.
  void Killed(int seed) {
    std::mt19937 random(static_cast<unsigned>(seed) + 2000);
    const std::string file = absl::StrCat(options_.tokens, "/killed.token");
    const auto request =
        RequestOf(options_.model, static_cast<int>(random() % kVariants));
    const std::string ids =
        absl::StrJoin(request.input().token_ids().ids(), ",");
    std::vector<std::string> words = {options_.qkctl,     "analyze",
                                      "--server",         options_.server,
                                      "--model",          options_.model,
                                      "--token-file",     file,
                                      "--token-ids",      ids,
                                      "--max-new-tokens", "50"};
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    do {
      const pid_t child = fork();
      if (child == 0) {
        if (std::freopen("/dev/null", "w", stdout) == nullptr ||
            std::freopen("/dev/null", "w", stderr) == nullptr) {
          _exit(1);
        }
        execv(arguments[0], arguments.data());
        _exit(127);
      }
      if (child < 0) return;
      absl::SleepFor(absl::Milliseconds(10 + random() % 400));
      kill(child, SIGKILL);
      waitpid(child, nullptr, 0);
      ++counts_.killed;
      // Starting processes takes processor time from the server.
      absl::SleepFor(absl::Milliseconds(500 + random() % 1000));
    } while (!over());
  }

  void Long() {
    const auto client = Client("long");
    v1::AnalyzeRequest request;
    request.set_model(options_.model);
    for (int i = 0; i < options_.long_tokens; ++i) {
      request.mutable_input()->mutable_token_ids()->add_ids(1 + i % 90);
    }
    do {
      CallOptions call;
      // Nobody waits for this call when the time is over.
      call.timeout = std::max(absl::Seconds(1), end_ - absl::Now());
      const auto result = client->Analyze(request, {}, call);
      if (!result.ok() && !absl::IsDeadlineExceeded(result.status())) {
        counts_.Error("long", result.status());
      }
      ++counts_.long_ones;
    } while (!over());
  }

  static std::string Summary(std::vector<double> times) {
    std::sort(times.begin(), times.end());
    const auto percentile = [&times](double p) {
      if (times.empty()) return 0.0;
      const auto i = static_cast<size_t>(p * static_cast<double>(times.size()));
      return times[std::min(times.size() - 1, i)];
    };
    return absl::StrFormat(
        "{\"count\": %d, \"p50\": %.2f, \"p99\": %.2f, \"max\": %.2f}",
        times.size(), percentile(0.5), percentile(0.99), percentile(1));
  }

  bool Clean() const { return counts_.wrong == 0 && counts_.errors.empty(); }

  void Print(const std::string& probe) {
    absl::PrintF(
        "{\"good\": %d, \"wrong\": %d, \"refused\": %d, \"flooded\": %d, "
        "\"stalled\": %d, \"killed\": %d, \"long\": %d, %s}\n",
        counts_.good.load(), counts_.wrong.load(), counts_.refused.load(),
        counts_.flooded.load(), counts_.stalled.load(), counts_.killed.load(),
        counts_.long_ones.load(), probe);
    PrintErrors();
  }

  void PrintErrors() const {
    for (const auto& [error, count] : counts_.errors) {
      std::fprintf(stderr, "%d x %s\n", count, error.c_str());
    }
  }

  const Options options_;
  Counts counts_;
  std::vector<Lines> alone_;
  absl::Time end_;
  Rendezvous rendezvous_;
};

int Main(int argc, char** argv) {
  Options options;
  const std::map<std::string, std::string*> texts = {
      {"--server", &options.server},
      {"--model", &options.model},
      {"--tokens", &options.tokens},
      {"--qkctl", &options.qkctl}};
  const std::map<std::string, int*> numbers = {
      {"--seconds", &options.seconds},
      {"--clients", &options.clients},
      {"--long-tokens", &options.long_tokens},
      {"--nice", &options.nice}};
  for (int i = 1; i + 1 < argc; i += 2) {
    if (const auto text = texts.find(argv[i]); text != texts.end()) {
      *text->second = argv[i + 1];
    } else if (const auto number = numbers.find(argv[i]);
               number == numbers.end() ||
               !absl::SimpleAtoi(argv[i + 1], number->second)) {
      std::fprintf(stderr, "soak: bad flag %s\n", argv[i]);
      return 2;
    }
  }
  return Soak(options).Run();
}

}  // namespace
}  // namespace qk::client

int main(int argc, char** argv) { return qk::client::Main(argc, argv); }
