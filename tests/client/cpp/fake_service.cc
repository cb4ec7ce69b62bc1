#include "tests/client/cpp/fake_service.h"

#include <chrono>
#include <cmath>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

namespace qk::client {

namespace v1 = qkscope::v1;

FakeService::FakeService() {
  grpc::EnableDefaultHealthCheckService(true);
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                           &port);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  address_ = absl::StrCat("127.0.0.1:", port);
}

FakeService::~FakeService() {
  server_->Shutdown(std::chrono::system_clock::now());
}

v1::AnalyzeRequest FakeService::last_request() {
  std::lock_guard<std::mutex> lock(mutex_);
  return last_request_;
}

std::string FakeService::last_authorization() {
  std::lock_guard<std::mutex> lock(mutex_);
  return last_authorization_;
}

template <typename Event, typename Writer>
grpc::Status FakeService::Play(grpc::ServerContext* context,
                               std::vector<Event> sent, Writer* writer) const {
  const bool wait = hang;
  const grpc::Status end = status;
  for (const Event& event : sent) writer->Write(event);
  while (wait && !context->IsCancelled()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return end;
}

grpc::Status FakeService::Analyze(
    grpc::ServerContext* context, const v1::AnalyzeRequest* request,
    grpc::ServerWriter<v1::AnalyzeEvent>* writer) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    last_request_ = *request;
    const auto& metadata = context->client_metadata();
    const auto found = metadata.find("authorization");
    last_authorization_ =
        found == metadata.end()
            ? ""
            : std::string(found->second.data(), found->second.size());
  }
  Keep(*context, {"Analyze", "", 0, {}});
  return PlayFrom(context, 0, writer);
}

grpc::Status FakeService::GetResult(
    grpc::ServerContext* context, const v1::GetResultRequest* request,
    grpc::ServerWriter<v1::AnalyzeEvent>* writer) {
  Keep(*context, {"GetResult", request->request_id(), request->from_seq(), {}});
  return PlayFrom(context, request->from_seq(), writer);
}

grpc::Status FakeService::Cancel(grpc::ServerContext* context,
                                 const v1::CancelRequest* request,
                                 v1::CancelResponse*) {
  Keep(*context, {"Cancel", request->request_id(), 0, {}});
  return status;
}

void FakeService::Keep(const grpc::ServerContext& context, Call call) {
  const auto [begin, end] =
      context.client_metadata().equal_range("x-qkscope-replica");
  for (auto it = begin; it != end; ++it) {
    call.replicas.emplace_back(it->second.data(), it->second.size());
  }
  std::lock_guard<std::mutex> lock(mutex_);
  calls_.push_back(std::move(call));
}

grpc::Status FakeService::PlayFrom(
    grpc::ServerContext* context, int64_t from_seq,
    grpc::ServerWriter<v1::AnalyzeEvent>* writer) {
  std::vector<v1::AnalyzeEvent> all = events;
  if (!events_before.empty()) {
    all = std::move(events_before.front());
    events_before.pop_front();
  }
  std::vector<v1::AnalyzeEvent> sent;
  for (const v1::AnalyzeEvent& event : all) {
    if (event.seq() >= from_seq) sent.push_back(event);
  }
  if (answers.empty()) return Play(context, std::move(sent), writer);
  const Answer answer = answers.front();
  answers.pop_front();
  for (int i = 0; i < answer.events; ++i) writer->Write(sent[i]);
  return answer.status;
}

std::vector<FakeService::Call> FakeService::calls() {
  std::lock_guard<std::mutex> lock(mutex_);
  return calls_;
}

void FakeService::SetServing(bool serving) {
  server_->GetHealthCheckService()->SetServingStatus(serving);
}

std::vector<int> FakeService::score_calls() {
  std::lock_guard<std::mutex> lock(mutex_);
  return score_calls_;
}

std::vector<v1::AnalyzeManyRequest> FakeService::last_many_requests() {
  std::lock_guard<std::mutex> lock(mutex_);
  return last_many_requests_;
}

grpc::Status FakeService::AnalyzeMany(
    grpc::ServerContext* context,
    grpc::ServerReaderWriter<v1::AnalyzeManyEvent, v1::AnalyzeManyRequest>*
        stream) {
  std::vector<v1::AnalyzeManyRequest> requests;
  v1::AnalyzeManyRequest request;
  while (stream->Read(&request)) requests.push_back(request);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    last_many_requests_ = std::move(requests);
  }
  return Play(context, many_events, stream);
}

grpc::Status FakeService::GetServerInfo(grpc::ServerContext*,
                                        const v1::GetServerInfoRequest*,
                                        v1::ServerInfo* response) {
  response->set_version(version);
  response->set_replica(replica);
  v1::BackendInfo* backend = response->add_backends();
  backend->set_name("cpu");
  backend->set_device("a fake");
  backend->set_passed_over("cuda: no GPU");
  return grpc::Status::OK;
}

grpc::Status FakeService::GetUsage(grpc::ServerContext*,
                                   const v1::GetUsageRequest*,
                                   v1::GetUsageResponse* response) {
  v1::UserUsage* user = response->add_users();
  user->set_user("secretive");
  user->set_device_ms(600);
  user->set_device_ms_budget(1000);
  return grpc::Status::OK;
}

grpc::Status FakeService::ListModels(grpc::ServerContext*,
                                     const v1::ListModelsRequest* request,
                                     v1::ListModelsResponse* response) {
  for (int i = request->offset(); i < models; ++i) {
    if (response->models_size() == entries_per_answer) {
      response->set_next_offset(i);
      break;
    }
    v1::ModelInfo* model = response->add_models();
    model->set_name(i == 0 ? "fake" : absl::StrCat("fake", i));
    model->set_state(v1::ModelInfo::READY);
    model->set_num_layers(2);
  }
  return grpc::Status::OK;
}

grpc::Status FakeService::Generate(
    grpc::ServerContext*, const v1::GenerateRequest* request,
    grpc::ServerWriter<v1::GenerateEvent>* writer) {
  for (int i = 0; i < request->generate().max_new_tokens() && !non_finite;
       ++i) {
    v1::GenerateEvent event;
    event.mutable_token()->set_step(i);
    event.mutable_token()->set_text(absl::StrCat(" w", i, "\033[2J"));
    writer->Write(event);
  }
  if (status.ok()) {
    v1::GenerateEvent event;
    event.mutable_finished()->set_prompt_tokens(3);
    if (non_finite) {
      v1::ArmSummary* summary = event.mutable_finished()->mutable_summary();
      summary->set_stop_reason("non_finite");
      summary->mutable_non_finite()->set_logits(1);
    }
    writer->Write(event);
  }
  return status;
}

grpc::Status FakeService::Score(grpc::ServerContext*,
                                const v1::ScoreRequest* request,
                                v1::ScoreResponse* response) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    score_calls_.push_back(request->pairs_size());
  }
  for (const v1::ScorePair& pair : request->pairs()) {
    v1::ScoreResult* result = response->add_results();
    result->set_logprob(non_finite
                            ? std::nan("")
                            : -0.5 * (1 + request->arm().disruptions_size()));
    result->set_is_greedy(true);
    result->set_continuation_tokens(
        pair.continuation().has_token_ids()
            ? pair.continuation().token_ids().ids_size()
            : static_cast<int>(pair.continuation().text().size()));
  }
  return status;
}

grpc::Status FakeService::Tokenize(grpc::ServerContext*,
                                   const v1::TokenizeRequest* request,
                                   v1::TokenizeResponse* response) {
  const std::string& text = request->input().text();
  for (int i = request->offset(); i < static_cast<int>(text.size()); ++i) {
    if (response->tokens_size() == entries_per_answer) {
      response->set_next_offset(i);
      break;
    }
    v1::TokenPiece* token = response->add_tokens();
    token->set_id(static_cast<unsigned char>(text[i]));
    token->set_piece(std::string(1, text[i]));
    token->set_begin(i);
    token->set_end(i + 1);
  }
  response->set_total_tokens(static_cast<int>(text.size()));
  return status;
}

grpc::Status FakeService::Estimate(grpc::ServerContext*,
                                   const v1::AnalyzeRequest* request,
                                   v1::EstimateResponse* response) {
  response->mutable_estimate()->set_prompt_tokens(
      request->input().token_ids().ids_size());
  return status;
}

}  // namespace qk::client
