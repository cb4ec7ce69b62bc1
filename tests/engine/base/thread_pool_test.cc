#include "engine/base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <new>
#include <numeric>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace qk {
namespace {

TEST(ThreadPoolTest, EveryIndexRunsOnce) {
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    for (int64_t n : {0, 1, 2, 3, 7, 64, 1000}) {
      // Plain ints suffice: each belongs to one task, and For orders the tasks
      // before its end.
      std::vector<int> runs(n, 0);
      pool.For(n, [&](int64_t i, int thread) {
        ++runs[i];
        EXPECT_TRUE(thread >= 0 && thread < threads) << thread;
      });
      EXPECT_EQ(runs, std::vector<int>(n, 1)) << threads << " threads, " << n;
    }
  }
}

TEST(ThreadPoolTest, AThreadBeginsWithItsPartInEachLoop) {
  for (int threads : {2, 3, 8}) {
    ThreadPool pool(threads);
    for (int64_t n : {8, 9, 100}) {
      std::vector<int64_t> first(threads, -1);
      std::atomic<int> begun{0};
      pool.For(n, [&](int64_t i, int thread) {
        if (first[thread] >= 0) return;
        first[thread] = i;
        // Nobody is done before all have begun.
        ++begun;
        while (begun < threads) std::this_thread::yield();
      });
      for (int t = 0; t < threads; ++t) {
        EXPECT_EQ(first[t], t * n / threads) << threads << " threads, " << n;
      }
    }
  }
}

TEST(ThreadPoolTest, OthersDoTheWorkOfAThreadThatIsHeld) {
  constexpr int64_t kTasks = 100;
  ThreadPool pool(3);
  for (int held = 0; held < 3; ++held) {
    std::atomic<int64_t> done{0};
    std::atomic<bool> begun{false};
    std::vector<int> ran_by(kTasks, -1);
    pool.For(kTasks, [&](int64_t i, int thread) {
      ran_by[i] = thread;
      if (thread != held) {
        while (!begun) std::this_thread::yield();
      } else if (!begun.exchange(true)) {
        while (done < kTasks - 1) std::this_thread::yield();
      }
      ++done;
    });
    EXPECT_EQ(std::count(ran_by.begin(), ran_by.end(), held), 1);
  }
}

TEST(ThreadPoolTest, NothingRunsForNoTasks) {
  ThreadPool pool(2);
  for (int64_t n : {int64_t{0}, int64_t{-1}, INT64_MIN}) {
    pool.For(n, [](int64_t, int) { ADD_FAILURE(); });
  }
}

TEST(ThreadPoolTest, ManySmallLoopsEachEndBeforeTheNext) {
  for (int threads : {2, 4}) {
    ThreadPool pool(threads);
    std::vector<int64_t> values(5, 0);
    for (int64_t loop = 0; loop < 4000; ++loop) {
      pool.For(5, [&](int64_t i, int) {
        // This reads what another thread may have written in the previous loop.
        if (loop % 2 == 0) {
          ++values[i];
        } else {
          values[i] += loop;
        }
      });
    }
    for (int64_t value : values) EXPECT_EQ(value, 2000 + 2000 * 2000);
  }
}

TEST(ThreadPoolTest, LoopsSeeWhatTheLastLoopWrote) {
  ThreadPool pool(3);
  std::vector<int64_t> from(64);
  std::iota(from.begin(), from.end(), 0);
  std::vector<int64_t> to(64);
  for (int loop = 0; loop < 2000; ++loop) {
    pool.For(64, [&](int64_t i, int) { to[i] = from[63 - i] + 1; });
    from.swap(to);
  }
  EXPECT_EQ(std::accumulate(from.begin(), from.end(), int64_t{0}),
            64 * 63 / 2 + 64 * 2000);
}

TEST(ThreadPoolTest, AThreadNumberIsUsedByOneTaskAtATime) {
  ThreadPool pool(4);
  std::vector<int> scratch(4, 0);  // unguarded on purpose
  for (int loop = 0; loop < 200; ++loop) {
    pool.For(100, [&](int64_t, int thread) { ++scratch[thread]; });
  }
  EXPECT_EQ(std::accumulate(scratch.begin(), scratch.end(), 0), 20000);
}

TEST(ThreadPoolTest, CallersWaitForEachOther) {
  ThreadPool pool(2);
  std::atomic<int> inside{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int loop = 0; loop < 500; ++loop) {
        std::vector<int64_t> parts(6, 0);
        pool.For(6, [&](int64_t i, int) {
          // There are never more tasks at once than threads.
          EXPECT_LE(inside.fetch_add(1), 1);
          parts[i] = i;
          inside.fetch_sub(1);
        });
        EXPECT_EQ(std::accumulate(parts.begin(), parts.end(), int64_t{0}), 15);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
}

TEST(ThreadPoolTest, StartsAndStopsWithAndWithoutWork) {
  for (int i = 0; i < 200; ++i) {
    ThreadPool pool(1 + i % 4);
    if (i % 3 == 0) continue;
    std::atomic<int> runs{0};
    pool.For(i % 5, [&](int64_t, int) { ++runs; });
    EXPECT_EQ(runs, i % 5);
  }
}

TEST(ThreadPoolTest, WorkersThatFellAsleepWake) {
  ThreadPool pool(3);
  for (int i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::atomic<int> runs{0};
    pool.For(50, [&](int64_t, int) { ++runs; });
    EXPECT_EQ(runs, 50);
  }
}

// The exception arrives whichever thread throws it.
TEST(ThreadPoolTest, R13_WhatATaskThrowsComesOutOnceAllHaveEnded) {
  for (int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    for (int64_t bad = 0; bad < 100; ++bad) {
      std::atomic<int> ended = 0;
      EXPECT_THROW(pool.For(100,
                            [&](int64_t i, int) {
                              if (i == bad) throw std::bad_alloc();
                              ++ended;
                            }),
                   std::bad_alloc);
      // A single thread stops at the exception.
      EXPECT_EQ(ended, threads == 1 ? bad : 99);
      ended = 0;
      pool.For(100, [&](int64_t, int) { ++ended; });
      EXPECT_EQ(ended, 100);
    }
  }
}

}  // namespace
}  // namespace qk
