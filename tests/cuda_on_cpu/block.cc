#include "tests/cuda_on_cpu/block.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace qk::cuda_on_cpu {
namespace {

// Addresses that stand for "the launch has begun" and "it has ended".
char began_tag, ended_tag;

void Release(void* tag) {
  (void)tag;
#ifdef __SANITIZE_THREAD__
  __tsan_release(tag);
#endif
}

void Acquire(void* tag) {
  (void)tag;
#ifdef __SANITIZE_THREAD__
  __tsan_acquire(tag);
#endif
}

Block*& Current() {
  thread_local Block* block = nullptr;
  return block;
}

std::vector<std::unique_ptr<Fiber>>& Stacks() {
  thread_local std::vector<std::unique_ptr<Fiber>> stacks;
  return stacks;
}

}  // namespace

Options& options() {
  static Options options;
  return options;
}

Counters& counters() {
  static Counters counters;
  return counters;
}

Unseen::Unseen() {
#ifdef __SANITIZE_THREAD__
  AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
#endif
}

Unseen::~Unseen() {
#ifdef __SANITIZE_THREAD__
  AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
  AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
#endif
}

Block& Block::current() { return *Current(); }

Block::Block(dim3 shape, size_t shared_bytes, std::function<void()> body)
    : shape_(shape),
      n_(static_cast<int>(shape.x * shape.y * shape.z)),
      body_(std::move(body)),
      shared_bytes_(shared_bytes),
      random_(options().seed) {
  if (shared_bytes > static_cast<size_t>(options().max_shared)) {
    Fail("more shared memory than a block may have", {});
  }
  if (n_ > 1024 || n_ < 1) Fail("a block has 1 to 1024 threads", {});
  warps_.resize((n_ + 31) / 32);
  threads_.resize(n_);
  // A thread that has ended has left it so.
  for (Thread& thread : threads_) thread.copies.resize(1);
  while (static_cast<int>(Stacks().size()) < 2 * n_) {
    Stacks().push_back(std::make_unique<Fiber>());
  }
}

// Two blocks in a row share no stack, or the barriers of the second would hide
// from TSan that it races with the first.
Fiber& Block::fiber(int thread) const {
  return *Stacks()[(counters().blocks % 2) * n_ + thread];
}

void Block::Entry(void* self) {
  Acquire(&began_tag);
  static_cast<Block*>(self)->body_();
  Release(&ended_tag);
}

void Block::BeginLaunch() { Release(&began_tag); }
void Block::EndLaunch() { Acquire(&ended_tag); }

void Block::Run(uint3 index) {
  Block* const outer = std::exchange(Current(), this);
  ++counters().blocks;
  // Memory of its own, for the sanitizers; NaN in every float type.
  shared_.reset(new (std::align_val_t{16}) uint8_t[shared_bytes_]);
  if (shared_bytes_ > 0) std::memset(shared(), 0xFF, shared_bytes_);
  blockIdx = index;
  blockDim = shape_;
  ready_.clear();
  head_ = 0;
  for (int i = 0; i < n_; ++i) {
    threads_[i].state = Thread::kReady;
    threads_[i].where = {};
    fiber(i).Prepare(&Block::Entry, this);
    ready_.push_back(i);
  }
  live_ = n_;
  waiting_ = 0;
  tags_ = std::make_unique<char[]>(1 + warps_.size());
  for (Warp& warp : warps_) warp = Warp();
  while (!ready_.empty()) {
    running_ = Next();
    const unsigned t = running_;
    threadIdx = {t % shape_.x, t / shape_.x % shape_.y,
                 t / (shape_.x * shape_.y)};
    ++counters().switches;
    fiber(running_).Resume();
    if (!fiber(running_).done()) continue;
    --live_;
    const auto& copies = threads_[running_].copies;
    if (copies.size() > 1 || !copies[0].empty()) {
      Fail("a thread ended before its copies have arrived", {});
    }
    if (waiting_ > 0 && waiting_ == live_) {
      Fail("a thread ended that others wait for", barrier_);
    }
  }
  if (live_ > 0) Deadlock();
  Current() = outer;
}

void Block::Sync(Where where) {
  const Unseen unseen;
  if (waiting_ == 0) {
    barrier_ = where;
    ++counters().barriers;
  } else if (barrier_.line != where.line) {
    Fail("threads of a block wait at different barriers", where);
  }
  threads_[running_].state = Thread::kBarrier;
  threads_[running_].where = where;
  Release(&tags_[0]);
  if (++waiting_ == n_) {
    waiting_ = 0;
    for (int i = 0; i < n_; ++i) {
      threads_[i].state = Thread::kReady;
      ready_.push_back(i);
    }
  }
  Yield();
  Acquire(&tags_[0]);
}

bool Block::SyncOr(bool value, Where where) {
  const Unseen unseen;
  any_ = any_ || value;
  if (waiting_ + 1 == n_) any_before_ = std::exchange(any_, false);
  Sync(where);
  return any_before_;
}

void Block::SyncWarp(uint32_t mask, Where where) {
  char* tag = &tags_[1 + running_ / 32];
  Release(tag);
  Meet<int, int>(mask, 0, 0, where, [](Warp&, uint8_t(*)[kLaneOut]) {});
  Acquire(tag);
}

Warp& Block::Arrive(uint32_t mask, int op, Where where) {
  Warp& warp = warps_[running_ / 32];
  const int lanes = n_ - running_ / 32 * 32;
  if (lanes < 32) mask &= (1u << lanes) - 1;
  if ((mask >> lane() & 1) == 0) Fail("a lane not in its own mask", where);
  if (warp.arrived == 0) {
    warp.mask = mask;
    warp.op = op;
    ++counters().warp_ops;
  } else if (warp.mask != mask || warp.op != op) {
    Fail("lanes of a warp meet in different operations", where);
  }
  warp.arrived |= 1u << lane();
  return warp;
}

void Block::Depart(Warp& warp) {
  warp.arrived = 0;
  ++warp.epoch;
  const int first = running_ / 32 * 32;
  for (int i = first; i < std::min(n_, first + 32); ++i) {
    if (i == running_ || !warp.Has(i - first)) continue;
    threads_[i].state = Thread::kReady;
    ready_.push_back(i);
  }
}

void Block::WaitForWarp(Where where) {
  threads_[running_].state = Thread::kWarp;
  threads_[running_].where = where;
  Yield();
}

std::vector<std::vector<AsyncCopy>>& Block::copies() {
  return threads_[running_].copies;
}

int Block::Next() {
  if (options().order == Order::kAscending) {  // a queue
    const int next = ready_[head_++];
    if (head_ == ready_.size()) {
      ready_.clear();
      head_ = 0;
    }
    return next;
  }
  if (options().order == Order::kRandom) {
    std::swap(ready_[random_() % ready_.size()], ready_.back());
  }
  const int next = ready_.back();
  ready_.pop_back();
  return next;
}

void Block::Yield() {
  const uint3 index = threadIdx;
  fiber(running_).Suspend();
  threadIdx = index;
}

void Block::Fail(const char* what, Where where) const {
  std::fprintf(stderr, "%s:%d: %s [thread %d of block (%u, %u, %u)]\n",
               where.file, where.line, what, running_, blockIdx.x, blockIdx.y,
               blockIdx.z);
  std::abort();
}

void Block::Deadlock() const {
  for (int i = 0; i < n_; ++i) {
    if (threads_[i].state == Thread::kReady) continue;
    std::fprintf(
        stderr,
        "%s:%d: thread %d of block (%u, %u, %u) waits for others for "
        "ever in a %s\n",
        threads_[i].where.file, threads_[i].where.line, i, blockIdx.x,
        blockIdx.y, blockIdx.z,
        threads_[i].state == Thread::kBarrier ? "barrier" : "warp operation");
    break;
  }
  std::abort();
}

void RunGrid(dim3 grid, dim3 block, size_t shared_bytes,
             std::function<void()> body) {
  ++counters().launches;
  gridDim = grid;
  Block emulated(block, shared_bytes, std::move(body));
  // Blocks run in no promised order, either.
  std::vector<uint3> order;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) order.push_back({x, y, z});
    }
  }
  if (options().order == Order::kDescending) {
    std::reverse(order.begin(), order.end());
  } else if (options().order == Order::kRandom) {
    std::shuffle(order.begin(), order.end(), std::mt19937(options().seed));
  }
  Block::BeginLaunch();
  {
    const Unseen unseen;
    for (const uint3& index : order) emulated.Run(index);
  }
  Block::EndLaunch();
}

}  // namespace qk::cuda_on_cpu
