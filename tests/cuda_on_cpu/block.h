// An emulated block of threads. Its threads are fibers that change only at
// barriers and warp operations, in an order that the test chooses. What is an
// error on hardware or merely undefined there ends the test, with the kernel's
// line: a barrier that not all threads reach, a warp operation whose lanes
// disagree, shared memory beyond what the launch asked for (ASan), a read of
// another thread's data without a barrier (TSan, or bytes that change with the
// order), the use of what nobody wrote (NaN).
#ifndef QKSCOPE_TESTS_CUDA_ON_CPU_BLOCK_H_
#define QKSCOPE_TESTS_CUDA_ON_CPU_BLOCK_H_

#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <random>
#include <vector>

#include "tests/cuda_on_cpu/fiber.h"

struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  // As in CUDA, a number is a shape.
  constexpr dim3(unsigned x_size = 1, unsigned y_size = 1, unsigned z_size = 1)
      : x(x_size), y(y_size), z(z_size) {}
};

inline thread_local uint3 threadIdx, blockIdx;
inline thread_local dim3 blockDim, gridDim;

namespace qk::cuda_on_cpu {

// In which order blocks run, and threads between two barriers.
enum class Order { kAscending, kDescending, kRandom };

struct Options {
  Order order = Order::kAscending;
  uint32_t seed = 0;
  int max_shared = 163 << 10;  // bytes of a block; sm_80's limit
  // If set, it is called before each launch; unless it returns 0, the launch
  // fails with that code and does nothing.
  std::function<int()> before_launch;
};
Options& options();

struct Counters {
  int64_t launches = 0, blocks = 0, switches = 0, barriers = 0, warp_ops = 0;
};
Counters& counters();

// A place in a kernel.
struct Where {
  const char* file = "";
  int line = 0;

  // As a default argument: the place of the call.
  static constexpr Where Here(const char* file = __builtin_FILE(),
                              int line = __builtin_LINE()) {
    return {file, line};
  }
};

// While it lives, TSan sees no access to memory: the emulation's own is not a
// kernel's.
class Unseen {
 public:
  Unseen();
  ~Unseen();
  Unseen(const Unseen&) = delete;
  Unseen& operator=(const Unseen&) = delete;
};

// One lane's operands and results in a warp operation: the widest is mma's.
inline constexpr int kLaneIn = 48, kLaneOut = 16;

struct Warp {
  uint32_t arrived = 0;
  uint32_t mask = 0;
  uint32_t epoch = 0;
  int op = 0;
  alignas(16) uint8_t in[32][kLaneIn];
  alignas(16) uint8_t out[2][32][kLaneOut];

  bool Has(int lane) const { return (mask >> lane & 1) != 0; }
};

// A copy from global to shared memory that has not arrived.
struct AsyncCopy {
  void* to;
  const void* from;
};

class Block {
 public:
  // The block that runs now.
  static Block& current();

  // `body` is one thread of the kernel.
  Block(dim3 shape, size_t shared_bytes, std::function<void()> body);

  // Runs all threads of the block at `index` of the grid.
  void Run(uint3 index);

  // Exactly as long as the launch said: ASan watches both ends.
  void* shared() const { return shared_.get(); }
  int running() const { return running_; }
  int lane() const { return running_ % 32; }

  void Sync(Where where);
  // Whether `value` is true in any thread.
  bool SyncOr(bool value, Where where);
  void SyncWarp(uint32_t mask, Where where);

  // All lanes of `mask` meet. The last one calls combine(warp, out), which
  // fills out[lane] from warp.in[lane].
  template <typename In, typename Out, typename Combine>
  Out Meet(uint32_t mask, int op, const In& in, Where where,
           const Combine& combine) {
    static_assert(sizeof(In) <= kLaneIn && sizeof(Out) <= kLaneOut);
    const Unseen unseen;
    Warp& warp = Arrive(mask, op, where);
    std::memcpy(warp.in[lane()], &in, sizeof(In));
    const uint32_t epoch = warp.epoch % 2;
    if (warp.arrived == warp.mask) {
      combine(warp, warp.out[epoch]);
      Depart(warp);
    } else {
      WaitForWarp(where);
    }
    Out out;
    std::memcpy(&out, warp.out[epoch][lane()], sizeof(Out));
    return out;
  }

  // Groups of copies of the running thread, oldest first; the last is open.
  std::vector<std::vector<AsyncCopy>>& copies();

  [[noreturn]] void Fail(const char* what, Where where) const;

  // What launches pass on to each other, for TSan: a block knows what the host
  // and earlier launches wrote, and nothing of the other blocks of its own.
  static void BeginLaunch();
  static void EndLaunch();

 private:
  struct Thread {
    enum State { kReady, kBarrier, kWarp } state = kReady;
    Where where;
    std::vector<std::vector<AsyncCopy>> copies;
  };
  struct Delete {
    void operator()(uint8_t* p) const {
      ::operator delete[](p, std::align_val_t{16});
    }
  };

  static void Entry(void* self);
  Fiber& fiber(int thread) const;
  Warp& Arrive(uint32_t mask, int op, Where where);
  void Depart(Warp& warp);
  void WaitForWarp(Where where);
  int Next();
  void Yield();
  [[noreturn]] void Deadlock() const;

  const dim3 shape_;
  const int n_;  // threads
  const std::function<void()> body_;
  const size_t shared_bytes_;
  std::unique_ptr<uint8_t[], Delete> shared_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<int> ready_;
  size_t head_ = 0;
  int running_ = 0, live_ = 0, waiting_ = 0;
  std::unique_ptr<char[]> tags_;  // what barriers synchronise on, for TSan
  Where barrier_;
  bool any_ = false, any_before_ = false;  // of this SyncOr; of the last one
  std::mt19937 random_;
};

// Runs `body` for each thread of each block of the grid.
void RunGrid(dim3 grid, dim3 block, size_t shared_bytes,
             std::function<void()> body);

}  // namespace qk::cuda_on_cpu

#endif  // QKSCOPE_TESTS_CUDA_ON_CPU_BLOCK_H_
