#include "engine/tokenizer/json_config.h"

#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/formats/excerpt.h"
#include "engine/tokenizer/json_model.h"

namespace qk {
namespace {

// The names that every tokenizer has, in the order in which their tokens are
// added; names of a model's own ("image_token") come after them.
constexpr absl::string_view kNames[] = {"bos_token", "eos_token", "unk_token",
                                        "sep_token", "pad_token", "cls_token",
                                        "mask_token"};

// Reads a special token, which is written as its text or as an object with the
// text as `content`.
absl::StatusOr<AddedToken> ReadNamedToken(const JsonValue& value) {
  if (value.is_object()) {
    QK_ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken(value));
    token.special = true;
    return token;
  }
  AddedToken token;
  QK_ASSIGN_OR_RETURN(const absl::string_view content, value.AsString());
  token.content = std::string(content);
  token.special = true;
  return token;
}

}  // namespace

TokenizerConfig::TokenizerConfig() {
  for (const absl::string_view name : kNames) {
    named_.emplace_back(std::string(name), std::nullopt);
  }
}

void TokenizerConfig::SetName(absl::string_view key, AddedToken token) {
  const auto found = absl::c_find_if(
      named_, [&](const auto& named) { return named.first == key; });
  if (found != named_.end()) {
    found->second = std::move(token);
  } else {
    named_.emplace_back(std::string(key), std::move(token));
  }
}

absl::Status TokenizerConfig::ReadNames(const JsonValue& object) {
  return object.ForEachMember([&](absl::string_view key,
                                  JsonValue value) -> absl::Status {
    if (value.is_null()) return absl::OkStatus();
    if (key == "extra_special_tokens" || key == "additional_special_tokens") {
      return ReadExtra(value);
    }
    if (!absl::EndsWith(key, "_token")) return absl::OkStatus();
    // Names of a model's own are not told from other members, such as
    // "add_bos_token".
    const bool is_token = value.is_string() || value.is_object();
    if (!is_token && !absl::c_linear_search(kNames, key)) {
      return absl::OkStatus();
    }
    QK_ASSIGN_OR_RETURN(AddedToken token, ReadNamedToken(value));
    SetName(key, std::move(token));
    return absl::OkStatus();
  });
}

// A list of tokens, or an object with names for them.
absl::Status TokenizerConfig::ReadExtra(const JsonValue& extra) {
  if (extra.is_object()) {
    return extra.ForEachMember(
        [&](absl::string_view key, JsonValue value) -> absl::Status {
          QK_ASSIGN_OR_RETURN(AddedToken token, ReadNamedToken(value));
          SetName(key, std::move(token));
          return absl::OkStatus();
        });
  }
  return extra.ForEachElement([&](JsonValue value) -> absl::Status {
    QK_ASSIGN_OR_RETURN(AddedToken token, ReadNamedToken(value));
    if (!IsExtra(token.content)) extra_.push_back(std::move(token));
    return absl::OkStatus();
  });
}

absl::Status TokenizerConfig::ReadDecoder(const JsonValue& decoder) {
  return decoder.ForEachMember(
      [&](absl::string_view key, JsonValue value) -> absl::Status {
        int64_t id;
        if (!absl::SimpleAtoi(key, &id) || id < 0) {
          return value.Error(
              absl::StrCat("must be an id, got \"", Excerpt(key), "\""));
        }
        QK_ASSIGN_OR_RETURN(decoder_[id], ReadAddedToken(value));
        return absl::OkStatus();
      });
}

absl::Status TokenizerConfig::ReadAddedTokens(absl::string_view json) {
  QK_ASSIGN_OR_RETURN(const JsonDocument document,
                      JsonDocument::Parse("added_tokens", json, {}));
  return document.root().ForEachMember(
      [&](absl::string_view content, JsonValue value) -> absl::Status {
        QK_ASSIGN_OR_RETURN(const int64_t id, value.AsInt64());
        AddedToken token;
        token.content = std::string(content);
        token.special = IsNamed(content) || IsExtra(content);
        token.normalized = !token.special;
        decoder_[id] = std::move(token);
        return absl::OkStatus();
      });
}

absl::StatusOr<TokenizerConfig> TokenizerConfig::Read(
    const TokenizerSettings& files) {
  TokenizerConfig config;
  if (!files.config.empty()) {
    QK_ASSIGN_OR_RETURN(
        config.document_,
        JsonDocument::Parse("tokenizer_config", files.config, {}));
    const JsonValue root = config.document_->root();
    QK_RETURN_IF_ERROR(config.ReadNames(root));
    if (root.Find("added_tokens_decoder").has_value()) {
      QK_ASSIGN_OR_RETURN(const JsonValue decoder,
                          root.GetObject("added_tokens_decoder"));
      QK_RETURN_IF_ERROR(config.ReadDecoder(decoder));
      return config;
    }
  }
  if (!files.special_tokens_map.empty()) {
    QK_ASSIGN_OR_RETURN(const JsonDocument map,
                        JsonDocument::Parse("special_tokens_map",
                                            files.special_tokens_map, {}));
    QK_RETURN_IF_ERROR(config.ReadNames(map.root()));
  }
  if (!files.added_tokens.empty()) {
    QK_RETURN_IF_ERROR(config.ReadAddedTokens(files.added_tokens));
  }
  return config;
}

std::optional<JsonValue> TokenizerConfig::root() const {
  if (!document_.has_value()) return std::nullopt;
  return document_->root();
}

std::optional<std::string> TokenizerConfig::Name(absl::string_view key) const {
  for (const auto& [name, token] : named_) {
    if (name == key && token.has_value()) return token->content;
  }
  return std::nullopt;
}

void TokenizerConfig::SetDefaultName(absl::string_view key,
                                     absl::string_view content) {
  if (Name(key).has_value()) return;
  AddedToken token;
  token.content = std::string(content);
  token.special = true;
  SetName(key, std::move(token));
}

bool TokenizerConfig::IsNamed(absl::string_view content) const {
  return absl::c_any_of(named_, [&](const auto& named) {
    return named.second.has_value() && named.second->content == content;
  });
}

bool TokenizerConfig::IsExtra(absl::string_view content) const {
  return absl::c_any_of(extra_, [&](const AddedToken& token) {
    return token.content == content;
  });
}

absl::Status TokenizerConfig::AddTokens(TokenAdder* adder) const {
  const absl::Status status = AddAll(adder);
  if (status.ok()) return status;
  return absl::InvalidArgumentError(
      absl::StrCat("tokenizer_config: ", status.message()));
}

absl::Status TokenizerConfig::AddAll(TokenAdder* adder) const {
  for (const auto& [id, token] : decoder_) {
    const AddedToken* known = adder->FindAdded(token.content);
    if (known != nullptr && known->SameFlags(token)) continue;
    AddedToken added = token;
    added.special |= IsNamed(token.content);
    QK_RETURN_IF_ERROR(adder->Add(std::move(added)));
  }
  const auto add_if_new = [&](const AddedToken& token) {
    if (adder->FindAdded(token.content) != nullptr) return absl::OkStatus();
    return adder->Add(token);
  };
  for (const auto& [name, token] : named_) {
    if (token.has_value()) QK_RETURN_IF_ERROR(add_if_new(*token));
  }
  for (const AddedToken& token : extra_) {
    QK_RETURN_IF_ERROR(add_if_new(token));
  }
  return absl::OkStatus();
}

absl::Status TokenizerConfig::AddPlainNames(TokenAdder* adder) const {
  const auto add = [&](const AddedToken& token) {
    AddedToken plain;
    plain.content = token.content;
    plain.special = true;
    return adder->Add(std::move(plain));
  };
  for (const auto& [name, token] : named_) {
    if (token.has_value()) QK_RETURN_IF_ERROR(add(*token));
  }
  for (const AddedToken& token : extra_) QK_RETURN_IF_ERROR(add(token));
  return absl::OkStatus();
}

void TokenizerConfig::SetBosAndEos(const TokenAdder& adder,
                                   TokenizerSpec* spec) const {
  if (const auto bos = Name("bos_token"); bos.has_value()) {
    spec->bos_id = adder.Find(*bos);
  }
  if (const auto eos = Name("eos_token"); eos.has_value()) {
    if (const auto id = adder.Find(*eos)) spec->stop_ids.push_back(*id);
  }
}

}  // namespace qk
