// An in-process Analysis service that answers as a test tells it.
#ifndef QKSCOPE_TESTS_CLIENT_CPP_FAKE_SERVICE_H_
#define QKSCOPE_TESTS_CLIENT_CPP_FAKE_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "qkscope/v1/analysis.grpc.pb.h"

namespace qk::client {

class FakeService : public qkscope::v1::Analysis::Service {
 public:
  // Listens on a free loopback port.
  FakeService();
  ~FakeService() override;

  const std::string& address() const { return address_; }

  // The events and the final status of Analyze. A call copies them before it
  // sends: once its client has returned, a test may change all this even if the
  // call still runs.
  std::vector<qkscope::v1::AnalyzeEvent> events;
  grpc::Status status;
  // What the first calls send in place of `events`, one entry each.
  std::deque<std::vector<qkscope::v1::AnalyzeEvent>> events_before;
  // What the next calls of Analyze and GetResult do instead, one entry each:
  // they send so many events and end with this status.
  struct Answer {
    int events = 0;
    grpc::Status status;
  };
  std::deque<Answer> answers;
  // Analyze waits for its cancellation after the events.
  bool hang = false;

  // The log-probabilities of Score, and why Generate ends, are not finite.
  bool non_finite = false;
  // Tokenize and ListModels answer with at most so many entries.
  int entries_per_answer = 1000;
  int models = 1;
  // ServerInfo.replica.
  std::string replica;
  std::string version = "1.2.3";

  // What AnalyzeMany sends once it has read all prompts.
  std::vector<qkscope::v1::AnalyzeManyEvent> many_events;

  // These return the requests and headers of the last call.
  qkscope::v1::AnalyzeRequest last_request();
  std::string last_authorization();
  // Each call of Analyze, GetResult and Cancel: its method, id and first event,
  // and the values of the header x-qkscope-replica.
  struct Call {
    std::string method;
    std::string request_id;
    int64_t from_seq = 0;
    std::vector<std::string> replicas;
  };
  std::vector<Call> calls();
  // Whether health says SERVING; it does at first.
  void SetServing(bool serving);
  std::vector<qkscope::v1::AnalyzeManyRequest> last_many_requests();
  // Returns the number of pairs of each call of Score.
  std::vector<int> score_calls();

  grpc::Status Analyze(
      grpc::ServerContext* context, const qkscope::v1::AnalyzeRequest* request,
      grpc::ServerWriter<qkscope::v1::AnalyzeEvent>* writer) override;
  grpc::Status GetResult(
      grpc::ServerContext* context,
      const qkscope::v1::GetResultRequest* request,
      grpc::ServerWriter<qkscope::v1::AnalyzeEvent>* writer) override;
  grpc::Status Cancel(grpc::ServerContext* context,
                      const qkscope::v1::CancelRequest* request,
                      qkscope::v1::CancelResponse* response) override;
  grpc::Status AnalyzeMany(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<qkscope::v1::AnalyzeManyEvent,
                               qkscope::v1::AnalyzeManyRequest>* stream)
      override;
  grpc::Status GetServerInfo(grpc::ServerContext* context,
                             const qkscope::v1::GetServerInfoRequest* request,
                             qkscope::v1::ServerInfo* response) override;
  grpc::Status GetUsage(grpc::ServerContext* context,
                        const qkscope::v1::GetUsageRequest* request,
                        qkscope::v1::GetUsageResponse* response) override;
  grpc::Status ListModels(grpc::ServerContext* context,
                          const qkscope::v1::ListModelsRequest* request,
                          qkscope::v1::ListModelsResponse* response) override;
  grpc::Status Generate(
      grpc::ServerContext* context, const qkscope::v1::GenerateRequest* request,
      grpc::ServerWriter<qkscope::v1::GenerateEvent>* writer) override;
  grpc::Status Score(grpc::ServerContext* context,
                     const qkscope::v1::ScoreRequest* request,
                     qkscope::v1::ScoreResponse* response) override;
  grpc::Status Tokenize(grpc::ServerContext* context,
                        const qkscope::v1::TokenizeRequest* request,
                        qkscope::v1::TokenizeResponse* response) override;
  grpc::Status Estimate(grpc::ServerContext* context,
                        const qkscope::v1::AnalyzeRequest* request,
                        qkscope::v1::EstimateResponse* response) override;

 private:
  // Copies what it sends.
  template <typename Event, typename Writer>
  grpc::Status Play(grpc::ServerContext* context, std::vector<Event> sent,
                    Writer* writer) const;

  void Keep(const grpc::ServerContext& context, Call call);
  grpc::Status PlayFrom(grpc::ServerContext* context, int64_t from_seq,
                        grpc::ServerWriter<qkscope::v1::AnalyzeEvent>* writer);

  std::mutex mutex_;
  qkscope::v1::AnalyzeRequest last_request_;
  std::string last_authorization_;
  std::vector<Call> calls_;
  std::vector<qkscope::v1::AnalyzeManyRequest> last_many_requests_;
  std::vector<int> score_calls_;
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace qk::client

#endif  // QKSCOPE_TESTS_CLIENT_CPP_FAKE_SERVICE_H_
