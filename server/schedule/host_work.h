// Runs the host's part of calls: messages are read, checked and converted,
// texts become tokens, lists are made. This work has its own order among users,
// apart from the device's: fair queueing by the seconds of the processor that
// each has used (fair_share.h), in turns of a few milliseconds.
//
// A task that takes longer is parked (engine/base/may_park.h) while others have
// their turns. It keeps its thread, so the number of tasks that have begun is
// bounded, and lower for large messages. All but one of the places where tasks
// run may be one user's.
//
// The bytes of messages that wait, and of large ones that have begun, come from
// pools that users share; who cannot have them is told to try again.
#ifndef QKSCOPE_SERVER_SCHEDULE_HOST_WORK_H_
#define QKSCOPE_SERVER_SCHEDULE_HOST_WORK_H_

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "engine/base/may_park.h"
#include "engine/base/mutex.h"
#include "server/common/byte_pool.h"
#include "server/common/user.h"
#include "server/schedule/clock.h"
#include "server/schedule/fair_share.h"

namespace qk {

class Scheduler;

struct HostWorkOptions {
  int places = 2;  // tasks that run at one time
  int max_threads = 64;
  // Of max_threads, for large messages.
  int max_large = 32;
  double turn = 0.005;  // seconds
  // Bytes of messages that wait or are being read.
  int64_t max_waiting_bytes = int64_t{64} << 20;
  // Bytes of large messages that are being read. A parsed message may take 60
  // times its bytes.
  int64_t max_open_bytes = int64_t{16} << 20;
};

// Thread-safe.
class HostWork {
 public:
  // Both must outlive the object. `accounts` is charged for the work.
  HostWork(const HostWorkOptions& options, const Clock* clock,
           Scheduler* accounts);
  // Runs what is left.
  ~HostWork();

  // What to do once the work is charged, such as to send its answer.
  using Then = std::function<void()>;
  // `may`: why the work must not be done after all. May return nullptr:
  // nothing.
  using Work = std::function<Then(const absl::Status& may)>;

  // Runs `work` on some thread when it is the user's turn; `bytes`: of the
  // message that it reads. Fails with RESOURCE_EXHAUSTED (ScheduleRefusalOf) if
  // too many bytes wait or, for `needs_budget`, if the user's budget is used
  // up; the latter is looked at again before the work is done.
  absl::Status Post(std::shared_ptr<const User> user, int64_t bytes,
                    bool needs_budget, Work work) ABSL_LOCKS_EXCLUDED(mutex_);

  int threads() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Task;
  class TaskParking;
  struct DueFirst {
    bool operator()(const Task* a, const Task* b) const;
  };
  using Queue = std::set<Task*, DueFirst>;
  // One user's tasks.
  struct Tasks {
    Queue small;  // have not begun
    Queue large;
    Queue parked;
    int running = 0;
    int begun_large = 0;
    int64_t open_bytes = 0;

    bool empty() const {
      return running == 0 && small.empty() && large.empty() && parked.empty();
    }
  };

  void Loop();
  void RunOne(std::unique_ptr<Task> task) ABSL_LOCKS_EXCLUDED(mutex_);
  // Called by a running task: lets others go first if its turn is over.
  void Park(Task* task) ABSL_LOCKS_EXCLUDED(mutex_);
  // Charges the task for what it used since the last time; returns it.
  double Charge(Task* task) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Gives free places to tasks.
  void Dispatch() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The user's next task: the one due first. nullptr: none may run.
  Task* NextOf(const Tasks& tasks) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Task* ChooseNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool MayBeginLarge(const Tasks& tasks, const Task& task) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AddThread() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Begin(Task* task) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const HostWorkOptions options_;
  const Clock* const clock_;
  Scheduler* const accounts_;
  BytePool waiting_bytes_;

  mutable Mutex mutex_;
  CondVar ready_changed_;
  CondVar resumed_;
  FairShare share_ ABSL_GUARDED_BY(mutex_);
  std::map<Account*, Tasks> users_ ABSL_GUARDED_BY(mutex_);
  std::list<std::unique_ptr<Task>> ready_ ABSL_GUARDED_BY(mutex_);
  uint64_t arrivals_ ABSL_GUARDED_BY(mutex_) = 0;
  int tasks_ ABSL_GUARDED_BY(mutex_) = 0;    // not done
  int running_ ABSL_GUARDED_BY(mutex_) = 0;  // places in use
  int begun_ ABSL_GUARDED_BY(mutex_) = 0;
  int large_ ABSL_GUARDED_BY(mutex_) = 0;  // of begun_
  int64_t open_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int idle_threads_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_HOST_WORK_H_
