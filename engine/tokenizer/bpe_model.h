// BPE of bytes (as GPT-2) or of characters (as SentencePiece).
#ifndef QKSCOPE_ENGINE_TOKENIZER_BPE_MODEL_H_
#define QKSCOPE_ENGINE_TOKENIZER_BPE_MODEL_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "engine/base/flat_hash.h"
#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/byte_fallback.h"
#include "engine/tokenizer/tokenizer_model.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace qk {

class BpeModel : public TokenizerModel {
 public:
  // `special` says by id which tokens are special. A merge that makes a special
  // token or a byte token is left out: text must never become one.
  BpeModel(const TokenizerSpec& spec, const std::vector<bool>& special);

  absl::Status Encode(absl::string_view word, bool with_special,
                      ModelScratch* scratch, Visit visit) const override;

 private:
  void FindByteIds(const TokenizerSpec& spec, const std::vector<bool>& special);
  void FindCharIds(const TokenizerSpec& spec, const std::vector<bool>& special);
  void FindWholeWords(const TokenizerSpec& spec,
                      const std::vector<bool>& special);
  // The symbols from which merges start. Those that no token spells have the id
  // unknown_symbol().
  void StartSymbols(absl::string_view word,
                    std::vector<BpeSymbol>* symbols) const;
  // Handles the symbols from number `first` on that no token spells; returns
  // the number after them.
  size_t EncodeUnknown(absl::string_view word,
                       const std::vector<BpeSymbol>& symbols, size_t first,
                       Visit visit) const;
  int32_t unknown_symbol() const { return INT32_MAX; }

  const int32_t vocab_size_;
  const bool byte_level_;
  const bool fuse_unknown_;
  const std::optional<ByteTokens> byte_tokens_;
  const std::optional<int32_t> unknown_id_;
  BpeMergeTable merges_;
  std::array<int32_t, 256> byte_ids_;  // or unknown_symbol()
  FlatHashMap<char32_t, int32_t> char_ids_;
  // Words that are not built by merges; empty without ignore_merges.
  FlatHashMap<std::string, int32_t> whole_words_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_BPE_MODEL_H_
