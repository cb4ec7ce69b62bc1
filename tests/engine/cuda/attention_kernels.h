// Cases of attention: a pass of several sequences with its pages in device
// memory, and the oracle.
#ifndef QKSCOPE_TESTS_ENGINE_CUDA_ATTENTION_KERNELS_H_
#define QKSCOPE_TESTS_ENGINE_CUDA_ATTENTION_KERNELS_H_

#include <memory>
#include <string>
#include <vector>

#include "engine/cuda/attention.h"
#include "engine/cuda/kernels.h"
#include "tests/engine/cuda/kernel_testing.h"

namespace qk::testing {

struct Span {
  int first_position, rows;
  int end() const { return first_position + rows; }
};

struct AttentionCase {
  std::string name;
  int heads, kv_heads, head_dim;
  int window = 0;
  std::vector<Span> sequences;
  float softcap = 0;
  bool causal = true;
  // The last sequence reads pages of its own from its middle page on, where
  // each query head has its own keys.
  bool fresh = false;
};

std::vector<AttentionCase> AttentionCases();

// A case's tensors in host memory.
class AttentionData {
 public:
  AttentionData(const AttentionCase& c, ComputeType type, Random& random);

  // K (0) or V (1) of a position and query head: (head_dim).
  float* at(int kv, int sequence, int position, int head);
  std::vector<double> Oracle() const;
  // Row `row` of a sequence, for one head.
  std::vector<double> Probabilities(int sequence, int row, int head) const;
  int first_fresh_position(int sequence) const;

  const AttentionCase& c;
  const ComputeType type;
  float scale;
  std::vector<float> q;  // (rows of all, heads, head_dim), as it is read
  // (positions, kv_heads, head_dim), in the compute type; and, for fresh pages,
  // (positions, heads, head_dim).
  std::vector<std::vector<float>> kv[2];
  std::vector<float> fresh[2];

 private:
  const float* Read(int kv, int sequence, int position, int head) const;
};

// The device's side of a case: pages with two layers, of which the second is
// the case's, filled by AppendKv.
class DevicePass {
 public:
  explicit DevicePass(const AttentionData& data);

  // `blocks`: as PlanAttention takes it; 1: no tile is split.
  std::vector<float> Run(int blocks);
  std::vector<float> Pattern(int sequence, const std::vector<int>& rows,
                             const std::vector<int>& heads, int keys);

  // The bytes of a sequence's page.
  std::vector<uint8_t> Page(int sequence, int page) const {
    return pages_[first_page_[sequence] + page].Read();
  }
  const KvPart& layout() const { return layout_; }

 private:
  void Append(const std::vector<float>& k, const std::vector<float>& v,
              const KvPart& layout, const Span& span, int first_page,
              void* const* pages);
  cuda::AttentionShape Shape(int group) const;
  std::vector<float> Attend(bool of_fresh, int blocks);

  const AttentionData& data_;
  KvPart layout_, fresh_layout_;
  std::vector<Array<uint8_t>> pages_;
  std::vector<void*> page_list_;
  std::vector<int> first_page_;  // of each sequence
  std::vector<Array<uint8_t>> fresh_pages_;
  cuda::FreshPages fresh_;
};

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_CUDA_ATTENTION_KERNELS_H_
