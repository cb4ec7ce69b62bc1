#include "engine/tokenizer/added_tokens.h"

#include <tuple>

#include "engine/tokenizer/unicode.h"

namespace qk {
namespace {

bool HasClass(const Utf8Char& c, uint8_t classes) {
  return (CharClasses(c.code) & classes) != 0;
}

bool StandsAlone(absl::string_view text, size_t begin, size_t end) {
  const bool word_before =
      begin > 0 && HasClass(Utf8Before(text, begin), kWordChar);
  const bool word_after =
      end < text.size() && HasClass(Utf8At(text, end), kWordChar);
  return !word_before && !word_after;
}

size_t WhitespaceBegin(absl::string_view text, size_t begin, size_t least) {
  while (begin > least) {
    const Utf8Char c = Utf8Before(text, begin);
    if (!HasClass(c, kSpace)) break;
    begin -= c.size;
  }
  return begin;
}

size_t WhitespaceEnd(absl::string_view text, size_t end) {
  while (end < text.size()) {
    const Utf8Char c = Utf8At(text, end);
    if (!HasClass(c, kSpace)) break;
    end += c.size;
  }
  return end;
}

}  // namespace

std::pair<size_t, size_t> AddedToken::WithWhitespace(absl::string_view text,
                                                     size_t least, size_t begin,
                                                     size_t end) const {
  return {lstrip ? WhitespaceBegin(text, begin, least) : begin,
          rstrip ? WhitespaceEnd(text, end) : end};
}

AddedTokenMatcher::AddedTokenMatcher(const std::vector<Entry>& entries) {
  tokens_.push_back(nullptr);
  const auto child_slot = [&](uint32_t node, unsigned char byte) -> uint32_t& {
    return node == 0 ? root_[byte] : children_[uint64_t{node} << 8 | byte];
  };
  for (const Entry& entry : entries) {
    uint32_t node = 0;
    for (const char c : entry.spelling) {
      uint32_t& child = child_slot(node, static_cast<unsigned char>(c));
      if (child == 0) {
        child = static_cast<uint32_t>(tokens_.size());
        tokens_.push_back(nullptr);
      }
      node = child;
    }
    // If two contents have the same normalised form, the first one counts.
    if (tokens_[node] == nullptr) tokens_[node] = entry.token;
  }
}

uint32_t AddedTokenMatcher::Child(uint32_t node, unsigned char byte) const {
  if (node == 0) return root_[byte];
  const auto found = children_.find(uint64_t{node} << 8 | byte);
  return found == children_.end() ? 0 : found->second;
}

std::pair<const AddedToken*, size_t> AddedTokenMatcher::LongestAt(
    absl::string_view text, size_t begin) const {
  std::pair<const AddedToken*, size_t> longest = {nullptr, begin};
  uint32_t node = 0;
  for (size_t at = begin; at < text.size(); ++at) {
    node = Child(node, static_cast<unsigned char>(text[at]));
    if (node == 0) break;
    if (tokens_[node] != nullptr) longest = {tokens_[node], at + 1};
  }
  return longest;
}

void AddedTokenMatcher::ForEachPart(
    absl::string_view text,
    absl::FunctionRef<void(size_t, size_t, const AddedToken*)> visit) const {
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    if (root_[static_cast<unsigned char>(text[at])] == 0) {
      ++at;
      continue;
    }
    auto [token, end] = LongestAt(text, at);
    if (token == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at;
    at = end;
    if (token->single_word && !StandsAlone(text, begin, end)) continue;
    std::tie(begin, end) = token->WithWhitespace(text, done, begin, end);
    at = end;
    if (done < begin) visit(done, begin, nullptr);
    visit(begin, end, token);
    done = end;
  }
  if (done < text.size()) visit(done, text.size(), nullptr);
}

}  // namespace qk
