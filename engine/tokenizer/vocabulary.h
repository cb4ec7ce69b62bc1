// Checks that the readers of tokenizer.json and GGUF share.
#ifndef QKSCOPE_ENGINE_TOKENIZER_VOCABULARY_H_
#define QKSCOPE_ENGINE_TOKENIZER_VOCABULARY_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/base/flat_hash.h"
#include "engine/tokenizer/bpe.h"

namespace qk {

inline constexpr int32_t kMaxTokenId = 1 << 24;
inline constexpr int64_t kMaxMerges = 2'000'000;
// Bounds the work at each byte of a text.
inline constexpr size_t kMaxAddedTokenBytes = 512;

// Maps spellings to ids.
using TokenIndex = FlatHashMap<absl::string_view, int32_t>;

// Indexes texts by id. It points into `tokens`.
TokenIndex IndexOf(const std::vector<std::string>& tokens);

class MergeReader {
 public:
  // `index` must outlive the reader.
  explicit MergeReader(const TokenIndex& index) : index_(index) {}

  // Reads "left right"; ranks count from 0. Errors are messages without a
  // place, for the caller to wrap.
  absl::StatusOr<BpeMerge> Read(absl::string_view merge);
  absl::StatusOr<BpeMerge> Read(absl::string_view left,
                                absl::string_view right);

 private:
  const TokenIndex& index_;
  std::string joined_;
  uint32_t next_rank_ = 0;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_VOCABULARY_H_
