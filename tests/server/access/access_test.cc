// Tests that every RPC needs credentials; what a user may see; request ids.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/base/sha256.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor_database.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/generic/generic_stub.h"
#include "qkscope/v1/error.pb.h"
#include "server/calls/call_record.h"
#include "tests/server/server_testing.h"

namespace qk {
namespace {

using google::protobuf::DescriptorPool;
using google::protobuf::MethodDescriptor;
using grpc::StatusCode;
using testing::Analysis;
using testing::GoldenModel;
using ::testing::HasSubstr;
using testing::Parse;
using testing::ServerTest;
using testing::Tokens;

std::string Sha(const std::string& text) {
  Sha256 sha256;
  sha256.Update(text.data(), text.size());
  return sha256.FinishHex();
}

UserEntry Entry(const std::string& alias, UserRole role) {
  return testing::UserWithToken(alias, role, "token-of-" + alias);
}

// Returns all methods of our package that this binary, and so the server, has.
std::vector<const MethodDescriptor*> AllMethods() {
  std::vector<std::string> files;
  EXPECT_TRUE(
      DescriptorPool::internal_generated_database()->FindAllFileNames(&files));
  std::vector<const MethodDescriptor*> out;
  for (const std::string& name : files) {
    const auto* file = DescriptorPool::generated_pool()->FindFileByName(name);
    if (file == nullptr || !absl::StartsWith(file->package(), "qkscope.")) {
      continue;
    }
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m) {
        out.push_back(file->service(s)->method(m));
      }
    }
  }
  return out;
}

struct Outcome {
  grpc::Status status;
  int messages = 0;
  std::multimap<std::string, std::string> trailers;
};

class AccessTest : public ServerTest {
 protected:
  static ServerOptions WithUsers() {
    ServerOptions options = TinyOptions();
    options.access.users = {Entry("ada", UserRole::kUser),
                            Entry("root", UserRole::kOperator)};
    return options;
  }

  void Start(const ServerOptions& options) {
    StartServer(options);
    ASSERT_TRUE(server_->LoadModels().ok());
  }

  // Sends one empty message to any method and reads the whole answer.
  Outcome Call(const std::string& path,
               const std::vector<std::string>& authorization) {
    grpc::GenericStub stub(channel_);
    grpc::ClientContext context;
    for (const std::string& value : authorization) {
      context.AddMetadata("authorization", value);
    }
    grpc::CompletionQueue queue;
    void* tag = nullptr;
    bool ok = false;
    const auto await = [&] { return queue.Next(&tag, &ok) && ok; };
    auto call = stub.PrepareCall(&context, path, &queue);
    call->StartCall(nullptr);
    await();
    grpc::Slice nothing;
    call->WriteLast(grpc::ByteBuffer(&nothing, 1), {}, nullptr);
    await();
    Outcome out;
    for (;;) {
      grpc::ByteBuffer message;
      call->Read(&message, nullptr);
      if (!await()) break;
      ++out.messages;
    }
    call->Finish(&out.status, nullptr);
    await();
    for (const auto& [key, value] : context.GetServerTrailingMetadata()) {
      out.trailers.emplace(std::string(key.data(), key.size()),
                           std::string(value.data(), value.size()));
    }
    return out;
  }

  static std::string Path(const MethodDescriptor* method) {
    return absl::StrCat("/", method->service()->full_name(), "/",
                        method->name());
  }

  // Calls GetServerInfo with these authorization headers.
  StatusCode Try(const std::vector<std::string>& authorization) {
    return Call("/qkscope.v1.Analysis/GetServerInfo", authorization)
        .status.error_code();
  }
};

TEST_F(AccessTest, S4_EveryMethodAsksForCredentials) {
  Start(WithUsers());
  const auto methods = AllMethods();
  ASSERT_GE(methods.size(), 10u);
  std::set<std::string> names;
  for (const MethodDescriptor* method : methods) {
    SCOPED_TRACE(method->full_name());
    // Metrics and permissions know methods by this name.
    EXPECT_TRUE(names.insert(method->name()).second);
    for (const std::vector<std::string>& headers :
         {std::vector<std::string>{}, {"Bearer wrong"}}) {
      const Outcome out = Call(Path(method), headers);
      EXPECT_EQ(out.status.error_code(), StatusCode::UNAUTHENTICATED);
      EXPECT_EQ(out.status.error_message(), "missing or invalid token");
      EXPECT_EQ(out.messages, 0);
    }
    const bool everybodys = method->service()->name() == "Analysis";
    const Outcome user = Call(Path(method), {"Bearer token-of-ada"});
    if (everybodys) {
      EXPECT_NE(user.status.error_code(), StatusCode::PERMISSION_DENIED);
    } else {
      EXPECT_EQ(user.status.error_code(), StatusCode::PERMISSION_DENIED);
      EXPECT_EQ(user.status.error_message(),
                "token may not call " + method->name());
      EXPECT_EQ(user.messages, 0);
    }
    for (const Outcome& out :
         {user, Call(Path(method), {"Bearer token-of-root"})}) {
      EXPECT_NE(out.status.error_code(), StatusCode::UNAUTHENTICATED);
      EXPECT_NE(out.status.error_code(), StatusCode::UNIMPLEMENTED);
    }
  }
}

TEST_F(AccessTest, S4_MethodsOfOtherServicesNeedAnOperator) {
  EXPECT_EQ(RequiredRole("Analyze"), UserRole::kUser);
  EXPECT_EQ(RequiredRole("LoadModel"), UserRole::kOperator);
  EXPECT_EQ(RequiredRole(""), UserRole::kOperator);
}

TEST_F(AccessTest, S4_TokensOverTheWire) {
  Start(WithUsers());
  EXPECT_EQ(Try({"Bearer token-of-ada"}), StatusCode::OK);
  EXPECT_EQ(Try({"bearer token-of-ada"}), StatusCode::OK);
  for (const std::vector<std::string>& bad :
       std::vector<std::vector<std::string>>{
           {""},
           {"Bearer"},
           {"Bearer "},
           {"token-of-ada"},
           {"Basic token-of-ada"},
           {"Bearer token-of-ad"},
           {"Bearer token-of-adaa"},
           {"Bearer  token-of-ada"},
           {"Bearer " + Sha("token-of-ada")},
           {"Bearer token-of-ada", "Bearer token-of-ada"},
           {"Bearer wrong", "Bearer token-of-ada"},
           {"Bearer " + std::string(8192, 'a')}}) {
    EXPECT_EQ(Try(bad), StatusCode::UNAUTHENTICATED) << bad[0].substr(0, 80);
  }
}

TEST_F(AccessTest, HealthIsForEverybodyAndReflectionOnlyIfAskedFor) {
  constexpr char kReflection[] =
      "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
  Start(WithUsers());
  EXPECT_TRUE(Call("/grpc.health.v1.Health/Check", {}).status.ok());
  EXPECT_EQ(Call(kReflection, {}).status.error_code(),
            StatusCode::UNIMPLEMENTED);
  ServerOptions options = WithUsers();
  options.reflection = true;
  Start(options);
  EXPECT_NE(Call(kReflection, {}).status.error_code(),
            StatusCode::UNIMPLEMENTED);
  StartTiny();
  EXPECT_NE(Call(kReflection, {}).status.error_code(),
            StatusCode::UNIMPLEMENTED);
}

TEST_F(AccessTest, S13_OthersReachNoServerThatNobodyGuards) {
  ServerOptions options = TinyOptions();
  options.listen = "0.0.0.0:0";
  const auto refused = Server::Create(options, &log_);
  EXPECT_THAT(
      std::string(refused.status().message()),
      HasSubstr("listen: '0.0.0.0:0' can be reached by other machines"));
}

// The users file loses a user while that user's stream runs.
TEST_F(AccessTest, S4_RevokedUsersFinishWhatRuns) {
  const std::string file =
      absl::StrCat(::testing::TempDir(), "qk_access_test.", getpid());
  const auto write = [&](const std::string& alias) {
    std::ofstream(file) << "users { alias: '" << alias << "' token_sha256: '"
                        << Sha("token-of-" + alias) << "' }\n";
  };
  write("ada");
  ServerOptions options = TinyOptions();
  options.access.users_file = file;
  Start(options);
  std::string large = "model: 'tiny' " + Tokens(250) + " capture { form: RAW }";
  for (int i = 0; i < 60; ++i)
    absl::StrAppend(&large, " arms {name: 'a", i, "'}");
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer token-of-ada");
  auto reader = stub_->Analyze(&context, Parse<pb::AnalyzeRequest>(large));
  pb::AnalyzeEvent event;
  ASSERT_TRUE(reader->Read(&event));
  write("bob");
  server_->ReloadAccess();
  EXPECT_EQ(Try({"Bearer token-of-ada"}), StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(Try({"Bearer token-of-bob"}), StatusCode::OK);
  const Analysis rest = Read(reader.get());
  EXPECT_TRUE(rest.status.ok()) << rest.status.error_message();
  EXPECT_NE(rest.finished(), nullptr);
  std::ofstream(file) << "users { alias: 'ada' }\n";
  server_->ReloadAccess();
  EXPECT_EQ(Try({"Bearer token-of-bob"}), StatusCode::OK);
  std::filesystem::remove(file);
}

TEST_F(AccessTest, ModelsOfOthersDoNotExist) {
  ServerOptions options = WithUsers();
  options.models.push_back(
      {"other", GoldenModel("tiny_llama_gqa"), ComputeType::kF32, ""});
  options.access.users[0].user.allowed_models = {"tiny"};
  Start(options);
  const auto as = [](const std::string& alias) {
    auto context = std::make_unique<grpc::ClientContext>();
    context->AddMetadata("authorization", "Bearer token-of-" + alias);
    return context;
  };
  pb::ListModelsResponse list;
  ASSERT_TRUE(stub_->ListModels(as("ada").get(), {}, &list).ok());
  ASSERT_EQ(list.models_size(), 1);
  EXPECT_EQ(list.models(0).name(), "tiny");
  list.Clear();
  ASSERT_TRUE(stub_->ListModels(as("root").get(), {}, &list).ok());
  EXPECT_EQ(list.models_size(), 2);

  const auto get = [&](const std::string& alias, const std::string& name) {
    pb::GetModelRequest request;
    request.set_model(name);
    pb::ModelInfo info;
    return stub_->GetModel(as(alias).get(), request, &info);
  };
  EXPECT_TRUE(get("root", "other").ok());
  EXPECT_TRUE(get("ada", "tiny").ok());
  EXPECT_EQ(get("ada", "other").error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(get("ada", "other").error_message(),
            "model 'other' is not loaded; see ListModels");
  EXPECT_EQ(get("ada", "ether").error_message(),
            "model 'ether' is not loaded; see ListModels");

  const auto analyze = [&](const std::string& alias, const std::string& text) {
    auto context = as(alias);
    return Read(stub_->Analyze(context.get(), Parse<pb::AnalyzeRequest>(text))
                    .get())
        .status;
  };
  const std::string variant =
      "model: 'tiny' " + Tokens(4) + " arms {name: 'b' model: 'other'}";
  EXPECT_TRUE(analyze("root", variant).ok());
  EXPECT_EQ(analyze("ada", variant).error_code(), StatusCode::NOT_FOUND);
  EXPECT_TRUE(analyze("ada", "model: 'tiny' " + Tokens(4)).ok());
  EXPECT_EQ(analyze("ada", "model: 'other' " + Tokens(4)).error_code(),
            StatusCode::NOT_FOUND);
}

TEST_F(AccessTest, EveryAnswerHasItsRequestId) {
  Start(WithUsers());
  std::set<std::string> ids;
  for (const MethodDescriptor* method : AllMethods()) {
    SCOPED_TRACE(method->full_name());
    for (const std::vector<std::string>& headers :
         {std::vector<std::string>{}, {"Bearer token-of-root"}}) {
      const Outcome out = Call(Path(method), headers);
      ASSERT_EQ(out.trailers.count("x-qkscope-request-id"), 1u);
      const std::string id = out.trailers.find("x-qkscope-request-id")->second;
      EXPECT_EQ(id.size(), 16u);
      EXPECT_TRUE(ids.insert(id).second);
      if (out.status.ok()) continue;
      ::qkscope::v1::RpcStatus details;
      ASSERT_TRUE(details.ParseFromString(out.status.error_details()));
      EXPECT_EQ(details.code(), static_cast<int>(out.status.error_code()));
      EXPECT_EQ(details.message(), out.status.error_message());
      ASSERT_GE(details.details_size(), 1);
      const auto& last = *details.details().rbegin();
      EXPECT_EQ(last.type_url(), "type.googleapis.com/google.rpc.RequestInfo");
      ::qkscope::v1::RequestInfo info;
      ASSERT_TRUE(info.ParseFromString(last.value()));
      EXPECT_EQ(info.request_id(), id);
    }
  }
}

TEST_F(AccessTest, S10_LeakCheckFindsLeaks) {
  EXPECT_NE(testing::LeakIn("bad file '/srv/models/x'"), "");
  EXPECT_NE(testing::LeakIn("at 0x7f001234"), "");
  EXPECT_EQ(testing::LeakIn("reduce layers/heads/positions, 8/8, 0x1"), "");
}

}  // namespace
}  // namespace qk
