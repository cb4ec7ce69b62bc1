#include "engine/formats/sigbus_guard.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "engine/base/check.h"
#include "engine/base/mutex.h"

namespace qk {

namespace {

// Guards everything but the handler's reads. Global, because a signal handler
// belongs to the process and gets no argument from us.
Mutex mutex;

}  // namespace

// An entry of a list that only grows, so that the handler can walk it without a
// lock. `begin` is 0 while the entry guards nothing.
struct SigbusGuard::Range {
  std::atomic<uintptr_t> begin = 0;
  std::atomic<uintptr_t> end = 0;
  std::atomic<bool> faulted = false;
  bool taken ABSL_GUARDED_BY(mutex) = true;
  Range* next = nullptr;
};

namespace {

using Range = SigbusGuard::Range;

std::atomic<Range*> ranges = nullptr;
struct sigaction previous;

Range* FindRange(uintptr_t address) {
  for (Range* range = ranges.load(std::memory_order_acquire); range != nullptr;
       range = range->next) {
    const uintptr_t begin = range->begin.load(std::memory_order_acquire);
    if (begin != 0 && address >= begin && address < range->end.load()) {
      return range;
    }
  }
  return nullptr;
}

// Makes only async-signal-safe calls (mmap is a bare system call on Linux).
void OnSigbus(int signal, siginfo_t* info, void* context) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  Range* range = FindRange(address);
  if (range != nullptr) {
    const auto page_bytes = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    const uintptr_t into_page = address % page_bytes;
    range->faulted.store(true);
    // What follows in the file is gone as well.
    if (mmap(static_cast<char*>(info->si_addr) - into_page,
             range->end.load() - (address - into_page), PROT_READ,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED) {
      return;
    }
  }
  if ((previous.sa_flags & SA_SIGINFO) != 0) {
    previous.sa_sigaction(signal, info, context);
  } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
    previous.sa_handler(signal);
  } else {
    // Returning repeats the read, which now ends the process as it should.
    ::signal(signal, SIG_DFL);
  }
}

void InstallHandler() {
  struct sigaction action = {};
  action.sa_sigaction = OnSigbus;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigemptyset(&action.sa_mask);
  QK_CHECK(sigaction(SIGBUS, &action, &previous) == 0);
}

Range* TakeRange() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
  for (Range* range = ranges.load(); range != nullptr; range = range->next) {
    if (range->taken) continue;
    range->taken = true;
    return range;
  }
  if (ranges.load() == nullptr) InstallHandler();
  Range* range = new Range;
  range->next = ranges.load();
  ranges.store(range, std::memory_order_release);
  return range;
}

}  // namespace

SigbusGuard::SigbusGuard(const void* begin, size_t bytes) {
  MutexLock lock(&mutex);
  range_ = TakeRange();
  const auto address = reinterpret_cast<uintptr_t>(begin);
  range_->faulted.store(false);
  range_->end.store(address + bytes);
  range_->begin.store(address, std::memory_order_release);
}

SigbusGuard::~SigbusGuard() {
  MutexLock lock(&mutex);
  range_->begin.store(0);
  range_->taken = false;
}

bool SigbusGuard::faulted() const { return range_->faulted.load(); }

}  // namespace qk
