// The Analysis service's RPCs about requests: usage, listing, cancellation and
// kept results.
#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/check.h"
#include "engine/base/monotonic.h"
#include "server/calls/analysis_service.h"
#include "server/calls/pages.h"
#include "server/calls/result_stream.h"
#include "server/calls/unary_call.h"
#include "server/calls/user_states.h"

namespace qk {
namespace {

absl::Status CheckAllUsers(bool all_users, const User& user) {
  if (!all_users || user.role == UserRole::kOperator) return absl::OkStatus();
  return absl::PermissionDeniedError(
      "all_users: only an operator may set this");
}

// `kept`: what the user has in the store, which is nullptr if there is none.
pb::UserUsage UsageToProto(const UserState& user, const ResultStore* store,
                           const KeptAmount& kept) {
  pb::UserUsage out;
  out.set_user(user.alias);
  out.set_weight(user.weight);
  out.set_device_ms(user.window.device_seconds * 1e3);
  out.set_streamed_bytes(user.window.bytes);
  out.set_window_s(user.budget.window_s);
  out.set_total_device_ms(user.device_seconds * 1e3);
  out.set_host_ms(user.window.host_seconds * 1e3);
  out.set_total_host_ms(user.host_seconds * 1e3);
  out.set_total_streamed_bytes(user.bytes);
  out.set_requests_in_flight(user.in_flight);
  out.set_requests_queued(user.queued);
  out.set_share(user.share);
  const UserBudget& budget = user.budget;
  if (budget.device_ms_per_window > 0) {
    out.set_device_ms_budget(budget.device_ms_per_window);
  }
  if (budget.bytes_per_window > 0)
    out.set_bytes_budget(budget.bytes_per_window);
  if (budget.max_in_flight > 0) {
    out.set_max_requests_in_flight(budget.max_in_flight);
  }
  if (budget.max_queued > 0) out.set_max_requests_queued(budget.max_queued);
  if (store == nullptr) return out;
  out.set_kept_results(kept.results);
  out.set_kept_bytes(kept.bytes);
  const KeptAmount most = store->MostOf(budget);
  out.set_max_kept_results(most.results);
  out.set_max_kept_bytes(most.bytes);
  return out;
}

pb::ListedRequest ListedToProto(const ListedRequest& listed) {
  pb::ListedRequest out;
  out.set_request_id(listed.info.id);
  out.set_user(listed.info.user->alias);
  out.set_method(listed.info.method);
  out.set_model(listed.info.model);
  out.set_state(listed.streaming ? pb::ListedRequest::STREAMING
                : listed.running ? pb::ListedRequest::RUNNING
                                 : pb::ListedRequest::QUEUED);
  out.set_priority(listed.info.priority == Priority::kBatch ? pb::BATCH
                                                            : pb::INTERACTIVE);
  out.set_queue_position(listed.position);
  out.set_arms(listed.info.arms);
  out.set_prompt_tokens(listed.info.prompt_tokens);
  out.set_age_ms(absl::ToInt64Milliseconds(MonotonicNow() - listed.submitted));
  out.set_device_ms(listed.device_seconds * 1e3);
  return out;
}

pb::ListedRequest KeptToProto(const KeptResult& result,
                              const ResultStore& store) {
  const ::qkscope::v1::SpoolHeader& header = result.header();
  const KeptResult::State state = result.state();
  const absl::Time now = store.Now();
  pb::ListedRequest out;
  out.set_request_id(header.request_id());
  out.set_user(header.user());
  out.set_method(header.method());
  out.set_model(header.model());
  out.set_state(pb::ListedRequest::FINISHED);
  out.set_arms(header.arms());
  out.set_prompt_tokens(header.prompt_tokens());
  out.set_age_ms(absl::ToInt64Milliseconds(now - state.created));
  out.set_events(state.events);
  out.set_expires_in_ms(std::max<int64_t>(
      0, absl::ToInt64Milliseconds(state.finished_at + store.ttl() - now)));
  out.set_code(static_cast<int>(state.status.code()));
  return out;
}

// Whether a result is kept whose request is about to leave the scheduler.
bool HasFinished(const ResultStore* store, const std::string& id) {
  if (store == nullptr) return false;
  const auto result = store->Find(id, std::nullopt);
  return result.ok() && (*result)->state().finished;
}

}  // namespace

grpc::ServerUnaryReactor* AnalysisService::GetUsage(
    Context* context, const grpc::ByteBuffer* bytes, grpc::ByteBuffer* answer) {
  return Answer<pb::GetUsageRequest, pb::GetUsageResponse>(
      core_->call, context, "GetUsage", Budget::kNotNeeded, bytes, answer,
      [this](CallRecord* call, const pb::GetUsageRequest& request,
             pb::GetUsageResponse* response) -> absl::Status {
        const User& user = *call->user();
        QK_RETURN_IF_ERROR(CheckAllUsers(request.all_users(), user));
        QK_RETURN_IF_ERROR(CheckOffset(request.offset()));
        const ResultStore* store = core_->results.store;
        std::map<std::string, KeptAmount> kept;
        if (store != nullptr) kept = store->KeptByUser();
        // The caller is listed even if it never sent a request.
        std::vector<UserState> users = {NewState(user)};
        for (UserState& state : core_->run.scheduler->Users()) {
          if (state.alias == user.alias) {
            users[0] = std::move(state);
          } else if (request.all_users()) {
            users.push_back(std::move(state));
          }
        }
        if (request.all_users()) {
          AddOwners(kept, *core_->call.identity, &users);
        }
        const auto next = FillPage(
            static_cast<int>(users.size()), request.offset(),
            [&](int i) {
              return UsageToProto(users[i], store, kept[users[i].alias]);
            },
            response->mutable_users());
        if (next.has_value()) response->set_next_offset(*next);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* AnalysisService::ListRequests(
    Context* context, const grpc::ByteBuffer* bytes, grpc::ByteBuffer* answer) {
  return Answer<pb::ListRequestsRequest, pb::ListRequestsResponse>(
      core_->call, context, "ListRequests", Budget::kNotNeeded, bytes, answer,
      [this](CallRecord* call, const pb::ListRequestsRequest& request,
             pb::ListRequestsResponse* response) -> absl::Status {
        const User& user = *call->user();
        QK_RETURN_IF_ERROR(CheckAllUsers(request.all_users(), user));
        QK_RETURN_IF_ERROR(CheckOffset(request.offset()));
        const ResultStore* store = core_->results.store;
        std::vector<std::shared_ptr<KeptResult>> finished;
        std::map<std::string, int64_t> events;  // by id, of unfinished results
        if (store != nullptr) {
          for (auto& result :
               store->List(request.all_users() ? std::nullopt
                                               : std::optional(user.alias))) {
            const KeptResult::State state = result->state();
            if (state.finished) {
              finished.push_back(std::move(result));
            } else {
              events[result->header().request_id()] = state.events;
            }
          }
        }
        std::vector<ListedRequest> others = core_->run.scheduler->List();
        std::erase_if(others, [&](const ListedRequest& listed) {
          return (!request.all_users() &&
                  listed.info.user->alias != user.alias) ||
                 HasFinished(store, listed.info.id);
        });
        // Entries are made when their page is.
        const size_t kept = finished.size();
        const auto make = [&](int i) {
          const auto index = static_cast<size_t>(i);
          if (index < kept) return KeptToProto(*finished[index], *store);
          pb::ListedRequest out = ListedToProto(others[index - kept]);
          const auto it = events.find(out.request_id());
          if (it != events.end()) out.set_events(it->second);
          return out;
        };
        const auto next =
            FillPage(static_cast<int>(kept + others.size()), request.offset(),
                     make, response->mutable_requests());
        if (next.has_value()) response->set_next_offset(*next);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* AnalysisService::Cancel(Context* context,
                                                  const grpc::ByteBuffer* bytes,
                                                  grpc::ByteBuffer* answer) {
  return Answer<pb::CancelRequest, pb::CancelResponse>(
      core_->call, context, "Cancel", Budget::kNotNeeded, bytes, answer,
      [this](CallRecord* call, const pb::CancelRequest& request,
             pb::CancelResponse* response) -> absl::Status {
        const User& user = *call->user();
        const std::string& id = request.request_id();
        const auto running = core_->run.scheduler->Find(id);
        const bool may =
            running != nullptr && (running->info().user->alias == user.alias ||
                                   user.role == UserRole::kOperator);
        ResultStore* store = core_->results.store;
        if (may) {
          // The scheduler lets go of a request after its last event is kept.
          response->set_was_running(!HasFinished(store, id));
          running->Cancel(
              absl::CancelledError(absl::StrCat("cancelled by ", user.alias)));
        }
        const bool kept =
            store != nullptr && store
                                    ->Find(id, user.role == UserRole::kOperator
                                                   ? std::nullopt
                                                   : std::optional(user.alias))
                                    .ok();
        if (kept) store->Drop(id);
        return may || kept ? absl::OkStatus()
                           : absl::NotFoundError("request_id: no such request");
      });
}

AnalysisService::RawStream* AnalysisService::GetResult(
    Context* context, const grpc::ByteBuffer* bytes) {
  return ResultStream::GetResult(core_, context, *bytes);
}

}  // namespace qk
