// What a tokenizer's file says. The readers of tokenizer.json, GGUF,
// tokenizer.model and vocab.json fill this in.
#ifndef QKSCOPE_ENGINE_TOKENIZER_TOKENIZER_SPEC_H_
#define QKSCOPE_ENGINE_TOKENIZER_TOKENIZER_SPEC_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/flat_hash.h"
#include "engine/tokenizer/added_tokens.h"
#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/byte_fallback.h"
#include "engine/tokenizer/decoder.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/pre_tokenizer.h"

namespace qk {

// What only byte pair encoding has.
struct BpeSpec {
  std::vector<BpeMerge> merges;
  // A word that is itself a token is not built by merges.
  bool ignore_merges = false;
  // Characters that have no token but may be merged: their ids count from
  // tokens.size() on.
  FlatHashMap<char32_t, int32_t> char_ids;
  // A run of unknown characters becomes one unknown token.
  bool fuse_unknown = false;
};

// What only the unigram model has.
struct UnigramSpec {
  // By id, finite: the logarithms of the pieces' probabilities. There are as
  // many as the model's own pieces; tokens after them are added tokens.
  std::vector<double> scores;
};

// Everything that a file says, checked: all ids are in [0, tokens.size()).
struct TokenizerSpec {
  std::vector<std::string> tokens;  // by id, spelled as in the file; UTF-8
  std::vector<AddedToken> added;    // contents are not empty
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  // Tokens spell bytes in GPT-2's alphabet; else they are characters.
  bool byte_level = true;
  BpeSpec bpe;
  // The model is unigram, and `bpe` does not count.
  std::optional<UnigramSpec> unigram;
  // Stands for characters that no token spells,
  std::optional<ByteTokens> byte_tokens;
  // or else for these and for bytes without a token. nullopt: BPE leaves them
  // out, and unigram refuses the text.
  std::optional<int32_t> unknown_id;
  TokenDecoder decoder;
  // add_special_tokens puts these before and after the text.
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;
  std::optional<int32_t> bos_id;
  std::vector<int32_t> stop_ids;
  std::string sha256_hex;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_TOKENIZER_SPEC_H_
