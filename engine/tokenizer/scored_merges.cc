#include "engine/tokenizer/scored_merges.h"

#include <algorithm>
#include <cstddef>
#include <functional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "engine/base/flat_hash.h"
#include "engine/tokenizer/unicode.h"
#include "engine/tokenizer/vocabulary.h"

namespace qk {
namespace {

// Ranks the scores; equal scores get equal ranks.
class Ranks {
 public:
  Ranks(const std::vector<float>& scores, const std::vector<bool>& usable) {
    for (size_t id = 0; id < scores.size(); ++id) {
      if (usable[id]) descending_.push_back(scores[id]);
    }
    std::sort(descending_.begin(), descending_.end(), std::greater<>());
    descending_.erase(std::unique(descending_.begin(), descending_.end()),
                      descending_.end());
  }

  uint32_t Of(float score) const {
    return static_cast<uint32_t>(std::lower_bound(descending_.begin(),
                                                  descending_.end(), score,
                                                  std::greater<>()) -
                                 descending_.begin());
  }

 private:
  std::vector<float> descending_;
};

class Builder {
 public:
  Builder(const std::vector<std::string>& tokens,
          const std::vector<bool>& usable)
      : next_char_id_(static_cast<int32_t>(tokens.size())) {
    ids_.reserve(tokens.size());
    for (size_t id = 0; id < tokens.size(); ++id) {
      if (usable[id]) ids_.emplace(tokens[id], static_cast<int32_t>(id));
    }
  }

  // Finds all ways to build `token` from two neighbours.
  void Add(absl::string_view token, int32_t id, uint32_t rank) {
    for (size_t at = Utf8At(token, 0).size; at < token.size();
         at += Utf8At(token, at).size) {
      const int32_t left = IdOf(token.substr(0, at));
      const int32_t right = IdOf(token.substr(at));
      if (left >= 0 && right >= 0) {
        out_.merges.push_back({left, right, id, rank});
      }
    }
  }

  size_t merges() const { return out_.merges.size(); }
  ScoredMerges Take() { return std::move(out_); }

 private:
  // Returns the id of a token or of a single character; -1 if the part is
  // neither.
  int32_t IdOf(absl::string_view part) {
    const auto found = ids_.find(part);
    if (found != ids_.end()) return found->second;
    const Utf8Char first = Utf8At(part, 0);
    if (first.size < part.size()) return -1;
    const auto [entry, added] =
        out_.char_ids.try_emplace(first.code, next_char_id_);
    if (added) ++next_char_id_;
    return entry->second;
  }

  FlatHashMap<absl::string_view, int32_t> ids_;
  int32_t next_char_id_;
  ScoredMerges out_;
};

}  // namespace

absl::StatusOr<ScoredMerges> MergesOfScores(
    const std::vector<std::string>& tokens, const std::vector<float>& scores,
    const std::vector<bool>& usable) {
  const Ranks ranks(scores, usable);
  Builder builder(tokens, usable);
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!usable[id] || tokens[id].empty()) continue;
    // Each way to cut a token takes time proportional to its length.
    if (tokens[id].size() > kMaxAddedTokenBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("id ", id, ": token has ", tokens[id].size(),
                       " bytes, limit ", kMaxAddedTokenBytes));
    }
    builder.Add(tokens[id], static_cast<int32_t>(id), ranks.Of(scores[id]));
    if (builder.merges() > size_t{kMaxMerges}) {
      return absl::InvalidArgumentError(
          absl::StrCat("the tokens have over ", kMaxMerges,
                       " ways to be merged from others"));
    }
  }
  return builder.Take();
}

}  // namespace qk
