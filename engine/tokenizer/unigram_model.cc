#include "engine/tokenizer/unigram_model.h"

#include <algorithm>
#include <limits>

#include "absl/algorithm/container.h"
#include "engine/base/check.h"
#include "engine/base/may_park.h"
#include "engine/tokenizer/unicode.h"

namespace qk {
namespace {

constexpr double kUnknownPenalty = 10;

std::vector<PieceTrie::Entry> Entries(const TokenizerSpec& spec) {
  std::vector<PieceTrie::Entry> entries;
  for (size_t id = 0; id < spec.unigram->scores.size(); ++id) {
    entries.emplace_back(spec.tokens[id], static_cast<int32_t>(id));
  }
  return entries;
}

// Takes the way to `end` if it is the first or better than the one before.
void Offer(const BestPath& path, BestPath* end) {
  if (end->id < 0 || path.score > end->score) *end = path;
}

}  // namespace

UnigramModel::UnigramModel(const TokenizerSpec& spec,
                           const std::vector<bool>& special)
    : scores_(spec.unigram->scores),
      special_(special),
      unknown_id_(spec.unknown_id),
      byte_tokens_(spec.byte_tokens),
      trie_(Entries(spec)) {
  double lowest = std::numeric_limits<double>::infinity();
  for (const double score : scores_) lowest = std::min(lowest, score);
  unknown_score_ = lowest - kUnknownPenalty;
}

absl::Status UnigramModel::FindPaths(absl::string_view word, bool with_special,
                                     std::vector<BestPath>* out) const {
  std::vector<BestPath>& paths = *out;
  paths.assign(word.size() + 1, {0, 0, -1});
  for (size_t at = 0; at < word.size();) {
    MayPark();
    const double till_here = paths[at].score;
    const auto begin = static_cast<uint32_t>(at);
    const size_t char_end = at + Utf8At(word, at).size;
    bool has_char = false;
    uint32_t node = PieceTrie::kRoot;
    for (size_t end = at; end < word.size();) {
      node = trie_.Child(node, static_cast<unsigned char>(word[end]));
      if (node == PieceTrie::kNone) break;
      ++end;
      const int32_t id = PieceAt(node, with_special);
      if (id < 0) continue;
      Offer({scores_[id] + till_here, begin, id}, &paths[end]);
      has_char |= end == char_end;
    }
    if (!has_char) {
      const double score = unknown_score_ + till_here;
      if (unknown_id_.has_value()) {
        Offer({score, begin, *unknown_id_}, &paths[char_end]);
      } else if (paths[char_end].id < 0 || score > paths[char_end].score) {
        return absl::InvalidArgumentError(
            "text: the tokenizer has no unknown token for one of its "
            "characters");
      }
    }
    at = char_end;
  }
  return absl::OkStatus();
}

absl::Status UnigramModel::Encode(absl::string_view word, bool with_special,
                                  ModelScratch* scratch, Visit visit) const {
  QK_RETURN_IF_ERROR(FindPaths(word, with_special, &scratch->paths));
  // The tokens of the best way, from the last to the first.
  std::vector<BpeSymbol>& tokens = scratch->symbols;
  tokens.clear();
  for (auto end = static_cast<uint32_t>(word.size()); end > 0;) {
    const BestPath& path = scratch->paths[end];
    const bool joins = !tokens.empty() && path.id == unknown_id_ &&
                       tokens.back().id == path.id;
    if (joins) {
      tokens.back().begin = path.begin;
    } else {
      tokens.push_back({path.id, path.begin, end});
    }
    end = path.begin;
  }
  for (auto token = tokens.rbegin(); token != tokens.rend(); ++token) {
    if (token->id == unknown_id_) {
      VisitUnknown(word, token->begin, token->end, with_special, visit);
    } else {
      visit(token->id, token->begin, token->end);
    }
  }
  return absl::OkStatus();
}

void UnigramModel::VisitUnknown(absl::string_view word, size_t begin,
                                size_t end, bool with_special,
                                Visit visit) const {
  const absl::string_view run = word.substr(begin, end - begin);
  // Characters that no piece spells alone may be a piece together.
  const int32_t whole = trie_.Find(run);
  if (whole >= 0 && (with_special || !special_[whole])) {
    return visit(whole, begin, end);
  }
  const auto byte_id = [&](char c) {
    return (*byte_tokens_)[static_cast<unsigned char>(c)];
  };
  if (byte_tokens_.has_value() &&
      absl::c_all_of(run, [&](char c) { return byte_id(c) >= 0; })) {
    // Each byte's token came from the whole run.
    for (const char c : run) visit(byte_id(c), begin, end);
    return;
  }
  visit(*unknown_id_, begin, end);
}

}  // namespace qk
