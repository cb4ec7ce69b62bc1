#include "server/net/open_calls.h"

#include <algorithm>
#include <iterator>

namespace qk {

void OpenCalls::Add(const void* call, const void* connection) {
  MutexLock lock(&mutex_);
  Call& added = calls_[call];
  added = {};
  added.connection = &connections_[connection];
  ++added.connection->cost.calls;
  Charge(&added, CallLimits::kCallBytes, 0);
}

void OpenCalls::Remove(const void* call) {
  MutexLock lock(&mutex_);
  const auto found = calls_.find(call);
  if (found == calls_.end()) return;
  Call& removed = found->second;
  Charge(
      &removed,
      -CallLimits::kCallBytes - removed.header_bytes * CallLimits::kHeaderBytes,
      -removed.message_bytes);
  --removed.connection->cost.calls;
  calls_.erase(found);
}

bool OpenCalls::AddHeaders(const void* call, int64_t bytes) {
  MutexLock lock(&mutex_);
  const auto found = calls_.find(call);
  if (found == calls_.end()) return true;
  found->second.header_bytes += bytes;
  Charge(&found->second, bytes * CallLimits::kHeaderBytes, 0);
  return Allowed(found->second);
}

bool OpenCalls::AddMessage(const void* call, int64_t bytes) {
  MutexLock lock(&mutex_);
  const auto found = calls_.find(call);
  if (found == calls_.end() || found->second.message_ended) return true;
  Charge(&found->second, 0, bytes);
  return Allowed(found->second);
}

void OpenCalls::EndMessage(const void* call) {
  MutexLock lock(&mutex_);
  const auto found = calls_.find(call);
  if (found == calls_.end()) return;
  found->second.message_ended = true;
  Charge(&found->second, 0, -found->second.message_bytes);
}

bool OpenCalls::Cancel(const void* call, Time now) {
  MutexLock lock(&mutex_);
  if (connections_.size() >= drop_at_) DropIdle(now);
  const auto found = calls_.find(call);
  if (found == calls_.end()) return true;
  Connection* connection = found->second.connection;
  ForgetCancels(connection, now);
  return ++connection->cancels <= limits_.cancels;
}

size_t OpenCalls::connections() const {
  MutexLock lock(&mutex_);
  return connections_.size();
}

void OpenCalls::ForgetCancels(Connection* connection, Time now) const {
  const double seconds =
      std::chrono::duration<double>(now - connection->as_of).count();
  connection->as_of = now;
  connection->cancels =
      std::max(0.0, connection->cancels - seconds * limits_.cancels_per_second);
}

void OpenCalls::DropIdle(Time now) {
  for (auto it = connections_.begin(); it != connections_.end();) {
    Connection& connection = it->second;
    ForgetCancels(&connection, now);
    const bool idle = connection.cost.calls == 0 && connection.cancels == 0;
    it = idle ? connections_.erase(it) : std::next(it);
  }
  drop_at_ = std::max(kDropAt, 2 * connections_.size());
}

void OpenCalls::Charge(Call* call, int64_t call_bytes, int64_t message_bytes) {
  call->message_bytes += message_bytes;
  for (Cost* cost : {&call->connection->cost, &all_}) {
    cost->call_bytes += call_bytes;
    cost->message_bytes += message_bytes;
  }
}

bool OpenCalls::Allowed(const Call& call) const {
  const Cost& own = call.connection->cost;
  return own.calls <= limits_.calls_per_connection &&
         call.header_bytes <= limits_.header_bytes_per_call &&
         (all_.call_bytes <= limits_.call_bytes ||
          own.call_bytes <= limits_.few_call_bytes) &&
         (all_.message_bytes <= limits_.message_bytes ||
          own.message_bytes <= limits_.few_message_bytes);
}

}  // namespace qk
