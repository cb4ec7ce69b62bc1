// A tokenizer.model of type Unigram.
#ifndef QKSCOPE_ENGINE_TOKENIZER_SENTENCEPIECE_UNIGRAM_H_
#define QKSCOPE_ENGINE_TOKENIZER_SENTENCEPIECE_UNIGRAM_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/tokenizer/json_config.h"
#include "engine/tokenizer/sentencepiece_proto.h"
#include "engine/tokenizer/tokenizer.h"

namespace qk {

// Follows the model's own settings, as `transformers` 5 does for files without
// a class of their own; if the config's class is T5Tokenizer, that class.
// `bytes` are the file's.
absl::StatusOr<std::unique_ptr<Tokenizer>> UnigramFromSentencePiece(
    absl::string_view bytes, const SentencePieceModel& model,
    const TokenizerConfig& config);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_SENTENCEPIECE_UNIGRAM_H_
