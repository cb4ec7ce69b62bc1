// Converts text to token ids and back. One interface serves BPE of bytes and of
// characters and unigram models, read from a tokenizer.json, a SentencePiece
// tokenizer.model, vocab.json with merges.txt, or a GGUF file.
#ifndef QKSCOPE_ENGINE_TOKENIZER_TOKENIZER_H_
#define QKSCOPE_ENGINE_TOKENIZER_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace qk {

class GgufFile;

struct EncodeOptions {
  // Adds the special tokens that the tokenizer's own template asks for (BOS,
  // EOS). Unset: the tokenizer's own setting.
  std::optional<bool> add_special_tokens;
  // Whether text that spells a special token ("<|im_start|>") becomes that
  // token. False for user text: a prompt cannot forge a chat turn.
  bool parse_special = false;
};

struct TokenSpan {
  int32_t id;
  // The bytes [begin, end) of the text from which the token came. begin == end
  // for a token that the tokenizer added, and for one that consists of an added
  // space only.
  uint32_t begin;
  uint32_t end;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Returns INVALID_ARGUMENT, naming the byte, if the text is not UTF-8.
  virtual absl::StatusOr<std::vector<TokenSpan>> Encode(
      absl::string_view text, const EncodeOptions& options) const = 0;

  // Encodes `text` with special tokens exactly at the places that `special`
  // names, in their order, as Encode does where parse_special finds them just
  // there. They must be added tokens of the vocabulary. Nothing is added before
  // or after the text.
  virtual absl::StatusOr<std::vector<TokenSpan>> EncodeAround(
      absl::string_view text, absl::Span<const TokenSpan> special) const;

  // Returns the text that the ids spell, without a space that Encode adds in
  // front. Special tokens are left out unless asked for. An id outside the
  // vocabulary is OUT_OF_RANGE, naming the index. The bytes may end inside a
  // UTF-8 character, and byte tokens that are not UTF-8 stay the bytes they
  // are.
  virtual absl::StatusOr<std::string> Decode(absl::Span<const int32_t> ids,
                                             bool keep_special) const = 0;

  // Returns the bytes of one token as they are in the middle of a text; `id`
  // must be in [0, vocab_size()).
  virtual std::string Piece(int32_t id) const = 0;
  virtual bool IsSpecial(int32_t id) const = 0;
  // Returns the id of a special or added token by its exact text.
  virtual std::optional<int32_t> FindSpecial(absl::string_view text) const = 0;

  // The largest id plus one.
  virtual int32_t vocab_size() const = 0;
  virtual std::optional<int32_t> bos_id() const = 0;
  // The ids that end a generation (EOS, and EOT where the file names one).
  virtual const std::vector<int32_t>& stop_ids() const = 0;
  virtual bool adds_special_tokens_by_default() const = 0;
  // Whether a pattern of the file finds words, not code for a known one.
  virtual bool runs_pattern() const = 0;
  // The digest of the tokenizer.json or tokenizer.model file, or of the
  // tokenizer.* entries of a GGUF file.
  virtual const std::string& sha256_hex() const = 0;
};

// The bytes of the files that stand beside a vocabulary; empty: there is no
// such file.
struct TokenizerSettings {
  absl::string_view config = {};              // tokenizer_config.json
  absl::string_view special_tokens_map = {};  // special_tokens_map.json
  absl::string_view added_tokens = {};        // added_tokens.json
};

// The readers below add the tokens that the settings name as AutoTokenizer of
// `transformers` 5 does. The model's own config.json may name eos_token_id; the
// caller adds those ids.

// `tokenizer_json` holds the bytes of tokenizer.json.
absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromJson(
    absl::string_view tokenizer_json, const TokenizerSettings& settings);

// `model` holds the bytes of a SentencePiece tokenizer.model of type BPE or
// Unigram, read as `transformers` converts it. The config's add_bos_token,
// add_eos_token, legacy and (BPE) add_prefix_space count too, and for Unigram
// the tokenizer_class T5Tokenizer with its extra_ids.
absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromSentencePiece(
    absl::string_view model, const TokenizerSettings& settings);

// `vocab_json` and `merges` hold the bytes of vocab.json and merges.txt. Only
// the classes GPT2Tokenizer and Qwen2Tokenizer of tokenizer_config.json are
// read from them. The config's add_bos_token and add_prefix_space count too.
absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromVocabAndMerges(
    absl::string_view vocab_json, absl::string_view merges,
    const TokenizerSettings& settings);

// Reads a model's folder: tokenizer.json, else tokenizer.model or
// spiece.model, else vocab.json
// and merges.txt, with the files beside them. nullptr if it has none of these.
absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromFolder(
    const std::string& folder);

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromGguf(
    const GgufFile& file);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_TOKENIZER_H_
