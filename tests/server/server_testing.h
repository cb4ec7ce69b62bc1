// A real server in this process, on loopback, with the tiny golden models.
#ifndef QKSCOPE_TESTS_SERVER_SERVER_TESTING_H_
#define QKSCOPE_TESTS_SERVER_SERVER_TESTING_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/sha256.h"
#include "google/protobuf/text_format.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "qkscope/v1/analysis.grpc.pb.h"
#include "server/server.h"
#include "tests/server/leak_check.h"
#include "tests/temp_folder.h"

namespace qk::testing {

inline std::string GoldenModel(const std::string& name) {
  return std::string(QK_SOURCE_DIR) + "/tests/goldens/" + name;
}

template <typename Message>
Message Parse(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message))
      << text;
  return message;
}

// Returns a user with this token.
inline UserEntry UserWithToken(const std::string& alias, UserRole role,
                               const std::string& token) {
  Sha256 sha256;
  sha256.Update(token.data(), token.size());
  UserEntry entry;
  entry.user.alias = alias;
  entry.user.role = role;
  entry.token_sha256 = sha256.FinishHex();
  entry.where = alias;
  return entry;
}

// Everything that one Analyze returned.
struct Analysis {
  std::vector<pb::AnalyzeEvent> events;
  grpc::Status status;

  const pb::Finished* finished() const {
    if (events.empty() || !events.back().has_finished()) return nullptr;
    return &events.back().finished();
  }
  std::vector<const pb::Layer*> layers() const {
    std::vector<const pb::Layer*> out;
    for (const auto& event : events) {
      if (event.has_layer()) out.push_back(&event.layer());
    }
    return out;
  }
};

class ServerTest : public ::testing::Test {
 protected:
  // "tiny" has grouped queries, context 256, vocabulary 97 and no tokenizer.
  static ServerOptions TinyOptions() {
    ServerOptions options;
    options.version = "test";
    options.listen = "127.0.0.1:0";
    // The metrics listener takes 2 s to stop.
    options.metrics_listen = "";
    options.threads = 1;
    options.log_level = LogLevel::kError;
    // Readers may stall for as long as a test likes.
    options.limits.write_stall_timeout_ms = 3'600'000;
    options.models.push_back(
        {"tiny", GoldenModel("tiny_llama_gqa"), ComputeType::kF32, ""});
    return options;
  }

  // Such a channel takes at most 64 KiB of a stream that nobody reads, however
  // fast the connection seems to be: a call with larger results cannot end
  // before its reader has read that far.
  static grpc::ChannelArguments ChannelArguments() {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    return arguments;
  }

  void StartServer(
      const ServerOptions& options,
      std::unique_ptr<Device> device = std::make_unique<EngineDevice>(),
      std::unique_ptr<Backend> backend = nullptr) {
    auto server =
        Server::Create(options, &log_, std::move(device), std::move(backend));
    ASSERT_TRUE(server.ok()) << server.status().message();
    server_ = *std::move(server);
    channel_ = grpc::experimental::CreateCustomChannelWithInterceptors(
        server_->address(), grpc::InsecureChannelCredentials(),
        ChannelArguments(), LeakCheck::Factories());
    stub_ = pb::Analysis::NewStub(channel_);
  }

  void StartTiny() {
    StartServer(TinyOptions());
    const absl::Status loaded = server_->LoadModels();
    ASSERT_TRUE(loaded.ok()) << loaded.message();
  }

  Analysis Analyze(const pb::AnalyzeRequest& request) {
    grpc::ClientContext context;
    return Read(stub_->Analyze(&context, request).get());
  }
  Analysis Analyze(const std::string& request) {
    return Analyze(Parse<pb::AnalyzeRequest>(request));
  }
  // Returns a call context with the user's token; with none if it is empty.
  static std::unique_ptr<grpc::ClientContext> As(const std::string& token) {
    auto context = std::make_unique<grpc::ClientContext>();
    if (!token.empty()) {
      context->AddMetadata("authorization", "Bearer " + token);
    }
    return context;
  }
  Analysis AnalyzeAs(const std::string& token, const std::string& request) {
    const auto context = As(token);
    return Read(
        stub_->Analyze(context.get(), Parse<pb::AnalyzeRequest>(request))
            .get());
  }

  static Analysis Read(grpc::ClientReader<pb::AnalyzeEvent>* reader) {
    Analysis out;
    pb::AnalyzeEvent event;
    while (reader->Read(&event)) out.events.push_back(event);
    out.status = reader->Finish();
    return out;
  }

  Log log_{LogLevel::kError};
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<pb::Analysis::Stub> stub_;
};

// Returns a prompt of `count` token ids, as text proto.
inline std::string Tokens(int count) {
  std::string ids;
  for (int i = 0; i < count; ++i) {
    ids += " ids: " + std::to_string(3 + (7 * i) % 90);
  }
  return "input {token_ids {" + ids + "}}";
}

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_SERVER_SERVER_TESTING_H_
