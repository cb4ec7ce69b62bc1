#include "server/events/frame_queue.h"

#include <atomic>
#include <string>
#include <thread>
#include <utility>

#include "gtest/gtest.h"
#include "server/common/executor.h"

namespace qk {
namespace {

constexpr int64_t kLimit = 1 << 20;

class FrameQueueTest : public ::testing::Test {
 protected:
  std::unique_ptr<FrameQueue> Make(int64_t bytes = 1000) {
    auto queue = std::make_unique<FrameQueue>(QueueRoom{&pool_, "u", bytes},
                                              &buffered_, [this] { ++wakes_; });
    EXPECT_TRUE(queue->TakeRoom());
    return queue;
  }
  static LayerFrame Frame(int layer, size_t bytes) {
    LayerFrame frame;
    frame.layer = layer;
    frame.data.assign(bytes, 'x');
    return frame;
  }

  BytePool pool_{"stream buffers", kLimit};
  std::atomic<int64_t> buffered_ = 0;
  std::atomic<int> wakes_ = 0;
};

TEST_F(FrameQueueTest, KeepsTheOrder) {
  const auto queue = Make();
  queue->PushPosition(3);
  queue->OnLayer(Frame(7, 10));
  queue->OnToken({0, 1, 42, "t", -1.0f});
  queue->OnFinished(absl::OkStatus(), {}, {});
  EXPECT_EQ(std::get<QueuePosition>(*queue->Pop()).position, 3);
  EXPECT_EQ(std::get<LayerFrame>(*queue->Pop()).layer, 7);
  EXPECT_EQ(std::get<TokenEvent>(*queue->Pop()).id, 42);
  EXPECT_TRUE(std::get<RunEnd>(*queue->Pop()).status.ok());
  EXPECT_FALSE(queue->Pop().has_value());
}

TEST_F(FrameQueueTest, OnlyTheNewestPositionWaits) {
  const auto queue = Make();
  for (int position : {5, 4, 2}) queue->PushPosition(position);
  EXPECT_EQ(std::get<QueuePosition>(*queue->Pop()).position, 2);
  EXPECT_FALSE(queue->Pop().has_value());
}

TEST_F(FrameQueueTest, WakesTheReaderOnceAndOnlyIfItWaits) {
  const auto queue = Make();
  queue->OnLayer(Frame(0, 1));
  EXPECT_EQ(wakes_, 0);
  EXPECT_TRUE(queue->Pop().has_value());
  EXPECT_FALSE(queue->Pop().has_value());
  queue->OnLayer(Frame(1, 1));
  queue->OnLayer(Frame(2, 1));
  EXPECT_EQ(wakes_, 1);
}

TEST_F(FrameQueueTest, CountsWhatWaits) {
  {
    const auto queue = Make();
    queue->OnLayer(Frame(0, 500));
    queue->OnLayer(Frame(1, 300));
    EXPECT_GE(buffered_, 800);
    EXPECT_LT(buffered_, 2000);
    queue->Pop();
    EXPECT_GE(buffered_, 800);
    queue->Pop();
    EXPECT_GE(buffered_, 300);
    EXPECT_LT(buffered_, 800);
    EXPECT_FALSE(queue->Pop().has_value());
    EXPECT_EQ(buffered_, 0);
    queue->OnLayer(Frame(2, 500));
    queue->Pop();
    EXPECT_GE(buffered_, 500);
  }
  EXPECT_EQ(buffered_, 0);
}

TEST_F(FrameQueueTest, LeaseGoesBackAsTheReaderReads) {
  {
    const auto queue = Make(1000);
    EXPECT_EQ(pool_.taken(), 1000);
    queue->Release(400);
    EXPECT_EQ(pool_.taken(), 600);
    queue->Release(5000);  // at most what is left
    EXPECT_EQ(pool_.taken(), 0);
  }
  EXPECT_EQ(pool_.taken(), 0);
}

TEST_F(FrameQueueTest, DiscardDropsEverythingNowAndLater) {
  const auto queue = Make();
  queue->OnLayer(Frame(0, 500));
  queue->Discard();
  queue->OnLayer(Frame(1, 500));
  EXPECT_EQ(buffered_, 0);
  EXPECT_EQ(pool_.taken(), 0);
  EXPECT_FALSE(queue->Pop().has_value());
  EXPECT_EQ(wakes_, 0);
}

// A reader that never reads does not keep the writer from finishing.
TEST_F(FrameQueueTest, AWriterNeverWaits) {
  const auto queue = Make();
  std::thread writer([&] {
    for (int i = 0; i < 10000; ++i) queue->OnLayer(Frame(i, 100));
    queue->OnFinished(absl::OkStatus(), {}, {});
  });
  writer.join();
  EXPECT_GE(buffered_, 1'000'000);
}

TEST_F(FrameQueueTest, R26_HoldsNoRoomUntilItIsTaken) {
  FrameQueue queue(QueueRoom{&pool_, "u", kLimit / 2}, &buffered_, [] {});
  EXPECT_EQ(pool_.taken(), 0);
  ASSERT_TRUE(queue.TakeRoom());
  EXPECT_EQ(pool_.taken(), kLimit / 2);
  queue.GiveRoomBack();
  EXPECT_EQ(pool_.taken(), 0);
  auto others = pool_.Take("v", kLimit);
  ASSERT_TRUE(others.ok());
  EXPECT_FALSE(queue.TakeRoom());
  EXPECT_EQ(pool_.taken(), kLimit);
}

TEST_F(FrameQueueTest, OneWriterOneReaderThread) {
  constexpr int kFrames = 5000;
  std::atomic<bool> done = false;
  int received = 0;
  {
    Executor executor(2);
    std::unique_ptr<FrameQueue> queue;
    std::function<void()> pump = [&] {
      while (auto item = queue->Pop()) {
        if (std::holds_alternative<RunEnd>(*item)) {
          done = true;
          return;
        }
        EXPECT_EQ(std::get<LayerFrame>(*item).layer, received++);
      }
    };
    queue = std::make_unique<FrameQueue>(
        QueueRoom{&pool_, "u", 1000}, &buffered_, [&] { executor.Post(pump); });
    executor.Post(pump);
    std::thread writer([&] {
      for (int i = 0; i < kFrames; ++i) queue->OnLayer(Frame(i, 8));
      queue->OnFinished(absl::OkStatus(), {}, {});
    });
    writer.join();
    while (!done) std::this_thread::yield();
  }
  EXPECT_EQ(received, kFrames);
  EXPECT_EQ(buffered_, 0);
}

}  // namespace
}  // namespace qk
