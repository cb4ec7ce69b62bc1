#include "engine/tokenizer/normalizer.h"

#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "engine/base/check.h"
#include "engine/tokenizer/char_changes.h"
#include "engine/tokenizer/normal_forms.h"
#include "engine/tokenizer/unicode.h"

namespace qk {
namespace {

using Kind = NormalizerStep::Kind;

absl::Status ReplacePattern(const NormalizerStep& step, EditedText* edited) {
  const absl::string_view text = edited->text();
  TextEdit edit = edited->Edit();
  PatternScratch scratch;
  QK_RETURN_IF_ERROR(
      step.pattern->ForEachMatch(text, &scratch, [&](size_t begin, size_t end) {
        // As in `tokenizers`, what is written came from the character before
        // the match's end.
        const size_t last = end == 0 ? 0 : end - Utf8Before(text, end).size;
        edit.CopyTo(begin);
        edit.Make(step.to, last, end);
        edit.SkipTo(end);
      }));
  edited->Keep(std::move(edit));
  return absl::OkStatus();
}

// The steps that turn text() into an edit of it.
void Write(const NormalizerStep& step, absl::string_view text, TextEdit* edit) {
  switch (step.kind) {
    case Kind::kNfc:
      return ApplyNormalForm(NormalForm::kNfc, text, edit);
    case Kind::kNfd:
      return ApplyNormalForm(NormalForm::kNfd, text, edit);
    case Kind::kNfkc:
      return ApplyNormalForm(NormalForm::kNfkc, text, edit);
    case Kind::kNfkd:
      return ApplyNormalForm(NormalForm::kNfkd, text, edit);
    case Kind::kNmt:
      return ApplyNmt(text, edit);
    case Kind::kLowercase:
      return ApplyLowercase(text, edit);
    case Kind::kStripAccents:
      return ApplyStripAccents(text, edit);
    case Kind::kStripLeft:
      return ApplyStrip(Side::kLeft, false, text, edit);
    case Kind::kStripRight:
      return ApplyStrip(Side::kRight, false, text, edit);
    case Kind::kCharsmap:
      return step.charsmap->Apply(text, edit);
    default:
      QK_CHECK(step.kind == Kind::kStripSpaces);
      return ApplyStrip(Side::kBoth, true, text, edit);
  }
}

absl::Status ApplyStep(const NormalizerStep& step, EditedText* edited) {
  switch (step.kind) {
    case Kind::kPrepend:
      edited->Prepend(step.to);
      return absl::OkStatus();
    case Kind::kReplace:
      edited->Replace(step.from, step.to);
      return absl::OkStatus();
    case Kind::kReplacePattern:
      return ReplacePattern(step, edited);
    default:
      TextEdit edit = edited->Edit();
      Write(step, edited->text(), &edit);
      edited->Keep(std::move(edit));
      return absl::OkStatus();
  }
}

}  // namespace

absl::StatusOr<EditedText> Normalize(const Normalizer& normalizer,
                                     absl::string_view text) {
  EditedText edited(text);
  for (const NormalizerStep& step : normalizer) {
    QK_RETURN_IF_ERROR(ApplyStep(step, &edited));
    if (edited.overflows()) {
      return absl::InvalidArgumentError(
          "text: the tokenizer's normalizer makes it too long");
    }
  }
  return edited;
}

}  // namespace qk
