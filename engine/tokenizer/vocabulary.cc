#include "engine/tokenizer/vocabulary.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/formats/excerpt.h"

namespace qk {
namespace {

absl::Status UnknownToken(absl::string_view what, absl::string_view token) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, " \"", Excerpt(token), "\" is not in the vocabulary"));
}

}  // namespace

TokenIndex IndexOf(const std::vector<std::string>& tokens) {
  TokenIndex index;
  for (size_t id = 0; id < tokens.size(); ++id) {
    index.emplace(tokens[id], static_cast<int32_t>(id));
  }
  return index;
}

absl::StatusOr<BpeMerge> MergeReader::Read(absl::string_view merge) {
  const size_t space = merge.find(' ');
  if (space == absl::string_view::npos || space == 0 ||
      space + 1 == merge.size() ||
      merge.find(' ', space + 1) != absl::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat(
        "must be two tokens and a space, got \"", Excerpt(merge), "\""));
  }
  return Read(merge.substr(0, space), merge.substr(space + 1));
}

absl::StatusOr<BpeMerge> MergeReader::Read(absl::string_view left,
                                           absl::string_view right) {
  const auto left_found = index_.find(left);
  if (left_found == index_.end()) return UnknownToken("part", left);
  const auto right_found = index_.find(right);
  if (right_found == index_.end()) return UnknownToken("part", right);
  joined_.assign(left.data(), left.size());
  joined_.append(right.data(), right.size());
  const auto joined_found = index_.find(joined_);
  if (joined_found == index_.end()) return UnknownToken("result", joined_);
  return BpeMerge{left_found->second, right_found->second, joined_found->second,
                  next_rank_++};
}

}  // namespace qk
