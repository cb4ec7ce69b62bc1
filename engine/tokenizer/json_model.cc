#include "engine/tokenizer/json_model.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/tokenizer/json_steps.h"

namespace qk {
namespace {

// Members that change BPE in ways that the supported models do not use.
absl::Status CheckUnsupported(const JsonValue& model) {
  QK_ASSIGN_OR_RETURN(const double dropout, model.GetDoubleOr("dropout", 0));
  if (dropout != 0) {
    return model.Error(
        absl::StrCat("dropout: must be 0 or null, got ", dropout));
  }
  for (const absl::string_view key :
       {"continuing_subword_prefix", "end_of_word_suffix"}) {
    QK_ASSIGN_OR_RETURN(const absl::string_view value,
                        model.GetStringOr(key, ""));
    if (!value.empty()) {
      return model.Error(
          absl::StrCat(key, ": must be empty or null, got ", Quoted(value)));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckType(const JsonValue& model) {
  // Files older than this member do not have it.
  const bool looks_like_bpe = model.Find("merges").has_value();
  QK_ASSIGN_OR_RETURN(
      const absl::string_view type,
      model.GetStringOr("type", looks_like_bpe ? "BPE" : "(none)"));
  if (type == "BPE") return absl::OkStatus();
  return model.Error(
      absl::StrCat("unsupported tokenizer model ", Quoted(type)));
}

// Enters one token; the same text may come again with the same id.
absl::Status Enter(const JsonValue& where, absl::string_view text, int64_t id,
                   TokenIndex* index) {
  if (id < 0 || id > kMaxTokenId) {
    return where.Error(
        absl::StrCat("id ", id, " is outside [0, ", kMaxTokenId, "]"));
  }
  const auto [entry, added] =
      index->try_emplace(text, static_cast<int32_t>(id));
  if (!added && entry->second != id) {
    return where.Error(
        absl::StrCat(Quoted(text), " has id ", entry->second, " and id ", id));
  }
  return absl::OkStatus();
}

absl::Status ReadAddedTokens(const JsonValue& root, TokenIndex* index,
                             BpeTokenizerSpec* spec) {
  if (!root.Find("added_tokens").has_value()) return absl::OkStatus();
  QK_ASSIGN_OR_RETURN(const JsonValue list, root.GetArray("added_tokens"));
  TokenIndex seen;
  return list.ForEachElement([&](JsonValue value) -> absl::Status {
    QK_ASSIGN_OR_RETURN(const int64_t id, value.GetInt64("id"));
    QK_ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken(value));
    QK_ASSIGN_OR_RETURN(const absl::string_view content,
                        value.GetString("content"));
    QK_RETURN_IF_ERROR(Enter(value, content, id, index));
    if (!seen.emplace(content, 0).second) {
      return value.Error(absl::StrCat(Quoted(content), " is there twice"));
    }
    token.id = static_cast<int32_t>(id);
    spec->added.push_back(std::move(token));
    return absl::OkStatus();
  });
}

absl::Status ReadMerges(const JsonValue& model, const TokenIndex& index,
                        BpeTokenizerSpec* spec) {
  QK_ASSIGN_OR_RETURN(const JsonValue merges, model.GetArray("merges"));
  const int64_t count = merges.size();
  if (count > kMaxMerges) {
    return merges.Error(absl::StrCat(count, " merges, limit ", kMaxMerges));
  }
  spec->merges.reserve(count);
  MergeReader reader(index);
  return merges.ForEachElement([&](JsonValue value) -> absl::Status {
    absl::StatusOr<BpeMerge> merge;
    if (value.is_array()) {
      std::vector<absl::string_view> parts;
      QK_RETURN_IF_ERROR(value.ForEachElement([&](JsonValue part) {
        auto text = part.AsString();
        if (text.ok()) parts.push_back(*text);
        return text.status();
      }));
      if (parts.size() != 2) {
        return value.Error(
            absl::StrCat("must be a pair, got ", parts.size(), " tokens"));
      }
      merge = reader.Read(parts[0], parts[1]);
    } else {
      QK_ASSIGN_OR_RETURN(const absl::string_view text, value.AsString());
      merge = reader.Read(text);
    }
    if (!merge.ok()) {
      const absl::string_view message = merge.status().message();
      return value.Error(message);
    }
    spec->merges.push_back(*merge);
    return absl::OkStatus();
  });
}

// spec->tokens must be set.
absl::Status ReadByteFallback(const JsonValue& model, BpeTokenizerSpec* spec) {
  QK_ASSIGN_OR_RETURN(const bool byte_fallback,
                      model.GetBoolOr("byte_fallback", false));
  if (!byte_fallback) return absl::OkStatus();
  auto byte_tokens = FindByteTokens(spec->tokens);
  if (!byte_tokens.ok()) {
    const absl::string_view message = byte_tokens.status().message();
    return model.Error(absl::StrCat("vocab: ", message));
  }
  spec->byte_tokens = *byte_tokens;
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadVocab(const JsonValue& vocab, TokenIndex* index) {
  return vocab.ForEachMember(
      [&](absl::string_view text, JsonValue value) -> absl::Status {
        QK_ASSIGN_OR_RETURN(const int64_t id, value.AsInt64());
        return Enter(value, text, id, index);
      });
}

absl::Status FillTokens(const JsonValue& root, const TokenIndex& index,
                        BpeTokenizerSpec* spec) {
  std::vector<const TokenIndex::value_type*> by_id(index.size(), nullptr);
  for (const auto& entry : index) {
    const size_t id = static_cast<size_t>(entry.second);
    if (id >= by_id.size()) continue;  // a hole, which is reported below
    if (by_id[id] != nullptr) {
      const auto [first, second] = std::minmax(by_id[id]->first, entry.first);
      return root.Error(absl::StrCat("vocab: id ", id, " belongs to ",
                                     Quoted(first), " and ", Quoted(second)));
    }
    by_id[id] = &entry;
  }
  if (by_id.empty()) return root.Error("vocab: is empty");
  spec->tokens.reserve(by_id.size());
  for (const auto* entry : by_id) {
    if (entry == nullptr) {
      return root.Error(absl::StrCat("vocab: id ", spec->tokens.size(),
                                     " is missing, there are ", by_id.size(),
                                     " tokens"));
    }
    spec->tokens.emplace_back(entry->first);
  }
  return absl::OkStatus();
}

absl::StatusOr<AddedToken> ReadAddedToken(const JsonValue& value) {
  AddedToken token;
  QK_ASSIGN_OR_RETURN(const absl::string_view content,
                      value.GetString("content"));
  if (content.empty()) return value.Error("content is empty");
  if (content.size() > kMaxAddedTokenBytes) {
    return value.Error(absl::StrCat("content has ", content.size(),
                                    " bytes, limit ", kMaxAddedTokenBytes));
  }
  token.content = std::string(content);
  QK_ASSIGN_OR_RETURN(token.special, value.GetBoolOr("special", false));
  QK_ASSIGN_OR_RETURN(token.single_word, value.GetBoolOr("single_word", false));
  QK_ASSIGN_OR_RETURN(token.lstrip, value.GetBoolOr("lstrip", false));
  QK_ASSIGN_OR_RETURN(token.rstrip, value.GetBoolOr("rstrip", false));
  QK_ASSIGN_OR_RETURN(token.normalized,
                      value.GetBoolOr("normalized", !token.special));
  return token;
}

absl::Status ReadJsonModel(const JsonValue& root, TokenIndex* index,
                           BpeTokenizerSpec* spec) {
  QK_ASSIGN_OR_RETURN(const JsonValue model, root.GetObject("model"));
  QK_RETURN_IF_ERROR(CheckType(model));
  QK_RETURN_IF_ERROR(CheckUnsupported(model));
  QK_ASSIGN_OR_RETURN(const JsonValue vocab, model.GetObject("vocab"));
  QK_RETURN_IF_ERROR(ReadVocab(vocab, index));
  QK_RETURN_IF_ERROR(ReadMerges(model, *index, spec));
  QK_ASSIGN_OR_RETURN(spec->ignore_merges,
                      model.GetBoolOr("ignore_merges", false));
  QK_ASSIGN_OR_RETURN(spec->fuse_unknown, model.GetBoolOr("fuse_unk", false));
  if (model.Find("unk_token").has_value()) {
    QK_ASSIGN_OR_RETURN(const absl::string_view unknown,
                        model.GetString("unk_token"));
    const auto found = index->find(unknown);
    if (found == index->end()) {
      return model.Error(absl::StrCat("unk_token: ", Quoted(unknown),
                                      " is not in the vocabulary"));
    }
    spec->unknown_id = found->second;
  }
  QK_RETURN_IF_ERROR(ReadAddedTokens(root, index, spec));
  QK_RETURN_IF_ERROR(FillTokens(root, *index, spec));
  return ReadByteFallback(model, spec);
}

}  // namespace qk
