// Measures how fast a running server streams a kept result, compared with gRPC
// itself: a server in this process writes messages of the same sizes over
// loopback, all parts of one buffer, and has nothing else to do.
//
//   stream_rate ADDR MODEL
//
// The server must have a spool. The client reads both as ByteBuffers, unparsed.
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "qkscope/v1/analysis.grpc.pb.h"

namespace qk {
namespace {

namespace v1 = qkscope::v1;

constexpr int kRepeats = 5;

// Writes parts of one buffer.
class Repeater : public grpc::ServerGenericBidiReactor {
 public:
  explicit Repeater(const std::vector<size_t>& sizes)
      : sizes_(sizes),
        all_(std::string(*std::max_element(sizes.begin(), sizes.end()), 'x')) {
    Next();
  }
  void OnWriteDone(bool ok) override { ok ? Next() : Finish({}); }
  void OnDone() override { delete this; }

 private:
  void Next() {
    if (next_ == sizes_.size()) return Finish({});
    const grpc::Slice part = all_.sub(0, sizes_[next_++]);
    buffer_ = grpc::ByteBuffer(&part, 1);
    StartWrite(&buffer_);
  }

  const std::vector<size_t>& sizes_;
  const grpc::Slice all_;
  grpc::ByteBuffer buffer_;
  size_t next_ = 0;
};

class RepeaterService : public grpc::CallbackGenericService {
 public:
  explicit RepeaterService(std::vector<size_t> sizes)
      : sizes_(std::move(sizes)) {}
  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext*) override {
    return new Repeater(sizes_);
  }

 private:
  const std::vector<size_t> sizes_;
};

void Must(const grpc::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.error_message().c_str());
  std::exit(1);
}

struct Read {
  int64_t bytes = 0;
  std::vector<size_t> sizes;  // of the messages
  double seconds = 0;
  double rate() const { return static_cast<double>(bytes) / seconds; }
};

// Makes one server-streaming call and reads it to the end.
Read ReadAll(const std::shared_ptr<grpc::Channel>& channel,
             const std::string& method, const grpc::ByteBuffer& request) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const auto wait = [&] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  Read out;
  const absl::Time start = absl::Now();
  const auto call = stub.PrepareCall(&context, method, &queue);
  call->StartCall(nullptr);
  wait();
  call->WriteLast(request, {}, nullptr);
  wait();
  while (true) {
    grpc::ByteBuffer message;
    call->Read(&message, nullptr);
    if (!wait()) break;
    out.bytes += static_cast<int64_t>(message.Length());
    out.sizes.push_back(message.Length());
  }
  grpc::Status status;
  call->Finish(&status, nullptr);
  wait();
  out.seconds = absl::ToDoubleSeconds(absl::Now() - start);
  Must(status);
  return out;
}

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(),
                                   arguments);
}

// Makes a raw result of all layers' Q, K and V on the server's disk.
grpc::ByteBuffer KeptResult(const std::shared_ptr<grpc::Channel>& channel,
                            const std::string& model) {
  const auto stub = v1::Analysis::NewStub(channel);
  v1::AnalyzeRequest request;
  request.set_model(model);
  request.set_detach(true);
  request.mutable_capture()->set_form(v1::RAW);
  for (int i = 0; i < 512; ++i) {
    request.mutable_input()->mutable_token_ids()->add_ids(1 + i % 90);
  }
  grpc::ClientContext context;
  const auto reader = stub->Analyze(&context, request);
  v1::AnalyzeEvent event;
  v1::GetResultRequest get;
  while (reader->Read(&event)) {
    if (event.has_accepted()) {
      get.set_request_id(event.accepted().request_id());
    }
  }
  Must(reader->Finish());
  const grpc::Slice slice(get.SerializeAsString());
  const grpc::ByteBuffer buffer(&slice, 1);
  ReadAll(channel, "/qkscope.v1.Analysis/GetResult", buffer);  // till its end
  return buffer;
}

int Main(int argc, char** argv) {
  if (argc != 3) return 2;
  const auto channel = Connect(argv[1]);
  const grpc::ByteBuffer get = KeptResult(channel, argv[2]);
  const std::string method = "/qkscope.v1.Analysis/GetResult";
  const Read first = ReadAll(channel, method, get);
  RepeaterService service(first.sizes);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                           &port);
  builder.RegisterCallbackGenericService(&service);
  const auto server = builder.BuildAndStart();
  const auto peer = Connect("127.0.0.1:" + std::to_string(port));
  std::vector<double> ours, theirs;
  for (int i = 0; i < kRepeats; ++i) {  // in turns
    theirs.push_back(ReadAll(peer, "/peer/Stream", get).rate());
    ours.push_back(ReadAll(channel, method, get).rate());
  }
  std::sort(ours.begin(), ours.end());
  std::sort(theirs.begin(), theirs.end());
  const double mine = ours[kRepeats / 2], grpcs = theirs[kRepeats / 2];
  std::printf(
      "%.1f MB in %zu messages: %.2f GB/s; gRPC's ByteBuffer, as large: %.2f "
      "GB/s; %.0f %%\n",
      static_cast<double>(first.bytes) / 1e6, first.sizes.size(), mine / 1e9,
      grpcs / 1e9, 100 * mine / grpcs);
  return 0;
}

}  // namespace
}  // namespace qk

int main(int argc, char** argv) { return qk::Main(argc, argv); }
