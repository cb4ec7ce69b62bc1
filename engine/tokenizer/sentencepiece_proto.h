// tokenizer.model: a serialised sentencepiece.ModelProto.
// https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
#ifndef QKSCOPE_ENGINE_TOKENIZER_SENTENCEPIECE_PROTO_H_
#define QKSCOPE_ENGINE_TOKENIZER_SENTENCEPIECE_PROTO_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace qk {

// The fields that matter here, with the defaults of the proto.
struct SentencePieceModel {
  // Indexed by id. `pieces` are valid UTF-8, not empty and all different.
  std::vector<std::string> pieces;
  std::vector<float> scores;
  std::vector<int64_t> types;  // values of PieceType

  int64_t model_type = 1;  // 1 Unigram, 2 BPE, 3 word, 4 char
  bool byte_fallback = false;
  bool treat_whitespace_as_suffix = false;
  int32_t unk_id = 0;
  int32_t bos_id = 1;  // -1: none
  int32_t eos_id = 2;

  std::string charsmap;  // normalisation rules; empty: none
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

// Errors are INVALID_ARGUMENT `tokenizer.model: message`.
absl::Status SentencePieceError(absl::string_view message);

absl::StatusOr<SentencePieceModel> ParseSentencePieceModel(
    absl::string_view bytes);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_SENTENCEPIECE_PROTO_H_
