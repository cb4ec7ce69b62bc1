// The Analysis service's RPCs about requests: usage, listing, cancellation and
// kept results.
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "engine/base/check.h"
#include "server/calls/analysis_service.h"
#include "server/calls/pages.h"
#include "server/calls/result_stream.h"
#include "server/calls/unary_call.h"

namespace qk {
namespace {

absl::Status CheckAllUsers(bool all_users, const User& user) {
  if (!all_users || user.role == UserRole::kOperator) return absl::OkStatus();
  return absl::PermissionDeniedError(
      "all_users: only an operator may set this");
}

pb::UserUsage UsageToProto(const UserState& user) {
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
  out.set_age_ms(absl::ToInt64Milliseconds(absl::Now() - listed.submitted));
  out.set_device_ms(listed.device_seconds * 1e3);
  return out;
}

pb::ListedRequest KeptToProto(const KeptResult& result, absl::Duration ttl) {
  const ::qkscope::v1::SpoolHeader& header = result.header();
  const KeptResult::State state = result.state();
  const absl::Time now = absl::Now();
  pb::ListedRequest out;
  out.set_request_id(header.request_id());
  out.set_user(header.user());
  out.set_method(header.method());
  out.set_model(header.model());
  out.set_state(pb::ListedRequest::FINISHED);
  out.set_arms(header.arms());
  out.set_prompt_tokens(header.prompt_tokens());
  out.set_age_ms(absl::ToUnixMillis(now) - header.created_unix_ms());
  out.set_events(state.events);
  out.set_expires_in_ms(
      absl::ToInt64Milliseconds(state.finished_at + ttl - now));
  out.set_code(static_cast<int>(state.status.code()));
  return out;
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
        // The caller is listed even if it never sent a request.
        std::vector<UserState> users(1);
        users[0].alias = user.alias;
        users[0].weight = user.weight;
        users[0].budget = user.budget;
        for (UserState& state : core_->run.scheduler->Users()) {
          if (state.alias == user.alias) {
            users[0] = std::move(state);
          } else if (request.all_users()) {
            users.push_back(std::move(state));
          }
        }
        const auto next = FillPage(
            static_cast<int>(users.size()), request.offset(),
            [&](int i) { return UsageToProto(users[i]); },
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
        std::vector<pb::ListedRequest> requests;
        std::map<std::string, int64_t> events;  // by id, of unfinished results
        if (core_->results.store != nullptr) {
          const std::optional<std::string> whose =
              request.all_users() ? std::nullopt : std::optional(user.alias);
          for (const auto& result : core_->results.store->List(whose)) {
            const KeptResult::State state = result->state();
            if (state.finished) {
              requests.push_back(
                  KeptToProto(*result, core_->results.store->ttl()));
            } else {
              events[result->header().request_id()] = state.events;
            }
          }
        }
        for (const ListedRequest& listed : core_->run.scheduler->List()) {
          if (!request.all_users() && listed.info.user->alias != user.alias) {
            continue;
          }
          pb::ListedRequest& out = requests.emplace_back(ListedToProto(listed));
          const auto it = events.find(out.request_id());
          if (it != events.end()) out.set_events(it->second);
        }
        const auto next = FillPage(
            static_cast<int>(requests.size()), request.offset(),
            [&](int i) { return std::move(requests[i]); },
            response->mutable_requests());
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
        if (may) {
          running->Cancel(
              absl::CancelledError(absl::StrCat("cancelled by ", user.alias)));
          response->set_was_running(true);
        }
        bool kept = false;
        if (core_->results.store != nullptr) {
          for (const auto& result :
               core_->results.store->List(user.role == UserRole::kOperator
                                              ? std::nullopt
                                              : std::optional(user.alias))) {
            kept |= result->header().request_id() == id;
          }
        }
        if (kept) core_->results.store->Drop(id);
        return may || kept ? absl::OkStatus()
                           : absl::NotFoundError("request_id: no such request");
      });
}

AnalysisService::RawStream* AnalysisService::GetResult(
    Context* context, const grpc::ByteBuffer* bytes) {
  return ResultStream::GetResult(core_, context, *bytes);
}

}  // namespace qk
