#include "engine/tokenizer/edited_text.h"

#include <algorithm>
#include <cstdint>

#include "engine/tokenizer/unicode.h"

namespace qk {

void TextEdit::CopyTo(size_t at) {
  if (at == done_) return;
  spans_.push_back({made_.size(), done_, at, 1, 1});
  made_.append(text_.data() + done_, at - done_);
  done_ = at;
}

bool TextEdit::HasRoom(size_t bytes) {
  if (made_.size() + bytes <= limit_) return true;
  overflows_ = true;
  return false;
}

void TextEdit::Make(absl::string_view made, size_t begin, size_t end) {
  if (made.empty() || !HasRoom(made.size())) return;
  spans_.push_back({made_.size(), begin, end, 0, 0});
  made_.append(made.data(), made.size());
}

void TextEdit::Replace(absl::string_view unit, size_t from_size, size_t end) {
  if (!HasRoom((end - done_) / from_size * unit.size())) return SkipTo(end);
  spans_.push_back({made_.size(), done_, end, unit.size(), from_size});
  for (; done_ < end; done_ += from_size) {
    made_.append(unit.data(), unit.size());
  }
}

std::pair<size_t, size_t> TextEdit::ToText(size_t begin, size_t end) const {
  if (begin == end) {
    const size_t at =
        begin == made_.size() ? text_.size() : ToText(begin, begin + 1).first;
    return {at, at};
  }
  auto span =
      std::upper_bound(spans_.begin(), spans_.end(), begin,
                       [](size_t at, const Span& s) { return at < s.begin; }) -
      1;
  std::pair<size_t, size_t> from = {SIZE_MAX, 0};
  for (; span != spans_.end() && span->begin < end; ++span) {
    size_t first = span->text_begin;
    size_t last = span->text_end;
    if (span->made_unit > 0) {
      const size_t skipped = std::max(begin, span->begin) - span->begin;
      const size_t units =
          (end - span->begin + span->made_unit - 1) / span->made_unit;
      last = std::min(last, first + units * span->text_unit);
      first += skipped / span->made_unit * span->text_unit;
    }
    from.first = std::min(from.first, first);
    from.second = std::max(from.second, last);
  }
  return from;
}

void EditedText::Keep(TextEdit edit) {
  if (!edit.changed()) return;
  edit.CopyTo(edit.text_.size());
  overflows_ |= edit.overflows();
  edits_.push_back(std::move(edit));
}

void EditedText::Prepend(absl::string_view prefix) {
  if (text().empty()) return;
  TextEdit edit = Edit();
  edit.Make(prefix, 0, 0);
  Keep(std::move(edit));
}

void EditedText::Replace(absl::string_view from, absl::string_view to) {
  const absl::string_view text = this->text();
  TextEdit edit = Edit();
  const bool one_char = Utf8At(from, 0).size == from.size();
  for (size_t at = text.find(from); at != absl::string_view::npos;) {
    size_t end = at + from.size();
    edit.CopyTo(at);
    if (one_char && !to.empty()) {
      while (text.substr(end, from.size()) == from) end += from.size();
      edit.Replace(to, from.size(), end);
    } else {
      edit.Make(to, end - Utf8Before(text, end).size, end);
      edit.SkipTo(end);
    }
    at = text.find(from, end);
  }
  Keep(std::move(edit));
}

std::pair<size_t, size_t> EditedText::ToOriginal(size_t begin,
                                                 size_t end) const {
  std::pair<size_t, size_t> at = {begin, end};
  for (auto edit = edits_.rbegin(); edit != edits_.rend(); ++edit) {
    at = edit->ToText(at.first, at.second);
  }
  return at;
}

}  // namespace qk
