// Reads the files that stand beside a vocabulary: tokenizer_config.json,
// special_tokens_map.json, added_tokens.json.
#ifndef QKSCOPE_ENGINE_TOKENIZER_JSON_CONFIG_H_
#define QKSCOPE_ENGINE_TOKENIZER_JSON_CONFIG_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/formats/json.h"
#include "engine/tokenizer/token_adder.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace qk {

// What the files say, as AutoTokenizer of `transformers` 5 combines them:
// tokenizer_config.json with "added_tokens_decoder" makes the other two
// superfluous.
class TokenizerConfig {
 public:
  TokenizerConfig();

  static absl::StatusOr<TokenizerConfig> Read(const TokenizerSettings& files);

  // The root of tokenizer_config.json; nullopt if there is none.
  std::optional<JsonValue> root() const;
  // Returns the content of the token of that name ("eos_token").
  std::optional<std::string> Name(absl::string_view key) const;
  // For a class that names tokens where the files do not.
  void SetDefaultName(absl::string_view key, absl::string_view content);

  // Adds every token that the files name to the vocabulary, with its flags.
  // Errors name the file.
  absl::Status AddTokens(TokenAdder* adder) const;
  // Gives the named and extra tokens the flags of plain text, as some classes
  // do after AddTokens.
  absl::Status AddPlainNames(TokenAdder* adder) const;
  // Sets spec->bos_id and the first of spec->stop_ids, if the files name them.
  // Call this after AddTokens.
  void SetBosAndEos(const TokenAdder& adder, TokenizerSpec* spec) const;

 private:
  absl::Status ReadNames(const JsonValue& object);
  absl::Status ReadExtra(const JsonValue& extra);
  absl::Status ReadDecoder(const JsonValue& decoder);
  absl::Status ReadAddedTokens(absl::string_view json);
  absl::Status AddAll(TokenAdder* adder) const;
  void SetName(absl::string_view key, AddedToken token);
  bool IsNamed(absl::string_view content) const;
  bool IsExtra(absl::string_view content) const;

  std::optional<JsonDocument> document_;
  // By name ("eos_token"): first the names that every tokenizer has.
  std::vector<std::pair<std::string, std::optional<AddedToken>>> named_;
  std::vector<AddedToken> extra_;          // "extra_special_tokens"
  std::map<int64_t, AddedToken> decoder_;  // "added_tokens_decoder", by id
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_JSON_CONFIG_H_
