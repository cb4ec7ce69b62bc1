// Attention of some rows, on one thread.
#ifndef QKSCOPE_ENGINE_CPU_ATTENTION_TASK_H_
#define QKSCOPE_ENGINE_CPU_ATTENTION_TASK_H_

#include "engine/cpu/aligned_array.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/pair_product.h"

namespace qk::cpu {

// Some query rows of the heads that share one KV head.
struct AttentionTask {
  const float* q = nullptr;  // the first row and head
  float* out = nullptr;      // like q
  int row_stride = 0;        // in q and out
  int heads = 0;             // query heads of the group
  int head_dim = 0;
  int rows = 0;
  int first_position = 0;
  int window = 0;  // how many keys a row sees; 0: all
  int keys = 0;    // the sequence's
  bool causal = true;
  float scale = 0;
  float softcap = 0;
  const KvPage* pages = nullptr;
  int kv_head_numerator = 0;  // page head = this * page.heads / num_heads
  int num_heads = 0;
  const PairKernel* pairs = nullptr;  // for bf16 pages; null: they are float32
};

// The keys of one tile that a row sees: [begin, end).
struct Seen {
  int begin, end;
  bool operator==(const Seen& other) const {
    return begin == other.begin && end == other.end;
  }
};

// Per-thread memory that grows to the largest task so far.
class AttentionScratch {
 public:
  uint8_t* Get(size_t bytes) {
    if (bytes > bytes_) {
      data_ = AllocateAligned<uint8_t>(bytes);
      bytes_ = bytes;
    }
    return data_.get();
  }

 private:
  AlignedArray<uint8_t> data_;
  size_t bytes_ = 0;
};

void RunAttentionTask(const AttentionTask& task, AttentionScratch& scratch);

}  // namespace qk::cpu

#endif  // QKSCOPE_ENGINE_CPU_ATTENTION_TASK_H_
