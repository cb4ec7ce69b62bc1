// Who may wait when the queue is full. Each user has a share of its places, by
// weight, among the users who have requests there. What others do not use may
// be borrowed; a request on a borrowed place gives way to a user who has less
// than a share. Operators have a few places of their own beside the limit.
#ifndef QKSCOPE_SERVER_SCHEDULE_QUEUE_PLACES_H_
#define QKSCOPE_SERVER_SCHEDULE_QUEUE_PLACES_H_

namespace qk {

class RequestTable;
struct Account;
struct QueuedRequest;

struct QueuePlace {
  bool found = false;
  // The request that must end first; nullptr: the place is free. It is the
  // newest one of the user who exceeds his share by most.
  QueuedRequest* gives_way = nullptr;
};

// `limit`: on waiting requests, without the operators' places.
QueuePlace FindPlace(const Account& account, int limit, RequestTable* table);

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_QUEUE_PLACES_H_
