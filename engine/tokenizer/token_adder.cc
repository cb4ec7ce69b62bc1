#include "engine/tokenizer/token_adder.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/formats/excerpt.h"

namespace qk {

TokenAdder::TokenAdder(const TokenIndex& vocabulary, TokenizerSpec* spec)
    : vocabulary_(vocabulary),
      spec_(spec),
      next_id_(static_cast<int32_t>(spec->unigram.has_value()
                                        ? spec->tokens.size()
                                        : vocabulary.size())) {
  for (size_t i = 0; i < spec->added.size(); ++i) {
    place_[spec->added[i].id] = i;
  }
}

absl::Status TokenAdder::AddNew(const AddedToken& token) {
  if (token.content.size() > kMaxAddedTokenBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("content has ", token.content.size(), " bytes, limit ",
                     kMaxAddedTokenBytes));
  }
  if (next_id_ > kMaxTokenId) {
    return absl::InvalidArgumentError(
        absl::StrCat("more than ", kMaxTokenId, " tokens"));
  }
  const size_t id = static_cast<size_t>(next_id_);
  if (id < spec_->tokens.size() && !spec_->tokens[id].empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", Excerpt(token.content), "\" gets id ", id, ", which is \"",
        Excerpt(spec_->tokens[id]), "\" in the vocabulary"));
  }
  if (id >= spec_->tokens.size()) spec_->tokens.resize(id + 1);
  spec_->tokens[id] = token.content;
  new_ids_[token.content] = next_id_;
  ++next_id_;
  return absl::OkStatus();
}

absl::Status TokenAdder::Add(AddedToken token) {
  if (token.content.empty()) return absl::OkStatus();
  if (!Find(token.content).has_value()) QK_RETURN_IF_ERROR(AddNew(token));
  token.id = *Find(token.content);
  const auto [place, is_new] =
      place_.try_emplace(token.id, spec_->added.size());
  if (is_new) spec_->added.emplace_back();
  spec_->added[place->second] = std::move(token);
  return absl::OkStatus();
}

std::optional<int32_t> TokenAdder::Find(absl::string_view content) const {
  if (const auto found = vocabulary_.find(content);
      found != vocabulary_.end()) {
    return found->second;
  }
  const auto found = new_ids_.find(std::string(content));
  if (found == new_ids_.end()) return std::nullopt;
  return found->second;
}

const AddedToken* TokenAdder::FindAdded(absl::string_view content) const {
  const auto id = Find(content);
  if (!id.has_value()) return nullptr;
  const auto place = place_.find(*id);
  return place == place_.end() ? nullptr : &spec_->added[place->second];
}

}  // namespace qk
