#include "engine/tokenizer/json_model.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/tokenizer/json_steps.h"
#include "engine/tokenizer/json_unigram.h"

namespace qk {
namespace {

// Bounds the ids that nobody has: an id costs 32 bytes.
constexpr int64_t kMaxTokensPerEntry = 2;
constexpr int64_t kMaxHoles = 1 << 20;

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

// Returns the type; files older than this member do not have it.
absl::StatusOr<std::string> TypeOf(const JsonValue& model) {
  const auto vocab = model.Find("vocab");
  absl::string_view missing = "(none)";
  if (model.Find("merges").has_value()) {
    missing = "BPE";
  } else if (vocab.has_value() && vocab->is_array()) {
    missing = "Unigram";
  }
  QK_ASSIGN_OR_RETURN(const absl::string_view type,
                      model.GetStringOr("type", missing));
  return std::string(type);
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

absl::Status ReadMerges(const JsonValue& model, const TokenIndex& index,
                        TokenizerSpec* spec) {
  QK_ASSIGN_OR_RETURN(const JsonValue merges, model.GetArray("merges"));
  const int64_t count = merges.size();
  if (count > kMaxMerges) {
    return merges.Error(absl::StrCat(count, " merges, limit ", kMaxMerges));
  }
  spec->bpe.merges.reserve(count);
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
    spec->bpe.merges.push_back(*merge);
    return absl::OkStatus();
  });
}

// spec->tokens must be set.
absl::Status ReadByteFallback(const JsonValue& model, TokenizerSpec* spec) {
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
                        TokenizerSpec* spec) {
  if (index.empty()) return root.Error("vocab: is empty");
  int32_t last = 0;
  for (const auto& entry : index) last = std::max(last, entry.second);
  const auto count = static_cast<int64_t>(index.size());
  if (last >= kMaxTokensPerEntry * count + kMaxHoles) {
    return root.Error(absl::StrCat("vocab: id ", last, " in a vocabulary of ",
                                   count, " tokens"));
  }
  std::vector<const TokenIndex::value_type*> by_id(last + 1, nullptr);
  for (const auto& entry : index) {
    const auto*& place = by_id[entry.second];
    if (place != nullptr) {
      const auto [first, second] = std::minmax(place->first, entry.first);
      return root.Error(absl::StrCat("vocab: id ", entry.second, " belongs to ",
                                     Quoted(first), " and ", Quoted(second)));
    }
    place = &entry;
  }
  spec->tokens.reserve(by_id.size());
  for (const auto* entry : by_id) {
    spec->tokens.emplace_back(entry == nullptr ? absl::string_view()
                                               : entry->first);
  }
  return absl::OkStatus();
}

absl::StatusOr<AddedToken> ReadAddedToken(const JsonValue& value) {
  AddedToken token;
  QK_ASSIGN_OR_RETURN(const absl::string_view content,
                      value.GetString("content"));
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

namespace {

absl::Status ReadBpe(const JsonValue& root, const JsonValue& model,
                     TokenIndex* index, TokenizerSpec* spec) {
  QK_RETURN_IF_ERROR(CheckUnsupported(model));
  QK_ASSIGN_OR_RETURN(const JsonValue vocab, model.GetObject("vocab"));
  QK_RETURN_IF_ERROR(ReadVocab(vocab, index));
  QK_RETURN_IF_ERROR(ReadMerges(model, *index, spec));
  QK_ASSIGN_OR_RETURN(spec->bpe.ignore_merges,
                      model.GetBoolOr("ignore_merges", false));
  QK_ASSIGN_OR_RETURN(spec->bpe.fuse_unknown,
                      model.GetBoolOr("fuse_unk", false));
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
  QK_RETURN_IF_ERROR(FillTokens(root, *index, spec));
  return ReadByteFallback(model, spec);
}

}  // namespace

absl::Status ReadJsonModel(const JsonValue& root, TokenIndex* index,
                           TokenizerSpec* spec) {
  QK_ASSIGN_OR_RETURN(const JsonValue model, root.GetObject("model"));
  QK_ASSIGN_OR_RETURN(const std::string type, TypeOf(model));
  if (type == "Unigram") return ReadJsonUnigram(model, index, spec);
  if (type == "BPE") return ReadBpe(root, model, index, spec);
  return model.Error(
      absl::StrCat("unsupported tokenizer model ", Quoted(type)));
}

absl::Status ReadJsonAddedTokens(const JsonValue& root, TokenAdder* adder) {
  if (!root.Find("added_tokens").has_value()) return absl::OkStatus();
  QK_ASSIGN_OR_RETURN(const JsonValue list, root.GetArray("added_tokens"));
  return list.ForEachElement([&](JsonValue value) -> absl::Status {
    // It does not count, but must be one.
    QK_RETURN_IF_ERROR(value.GetInt64InRange("id", 0, UINT32_MAX).status());
    QK_ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken(value));
    const absl::Status added = adder->Add(std::move(token));
    if (added.ok()) return added;
    const absl::string_view message = added.message();
    return value.Error(message);
  });
}

}  // namespace qk
