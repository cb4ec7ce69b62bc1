#include "engine/tokenizer/normalizer.h"

namespace qk {

EditedText Normalize(const Normalizer& normalizer, absl::string_view text) {
  EditedText edited(text);
  for (const NormalizerStep& step : normalizer) {
    switch (step.kind) {
      case NormalizerStep::Kind::kNfc:
        edited.Nfc();
        break;
      case NormalizerStep::Kind::kPrepend:
        edited.Prepend(step.to);
        break;
      case NormalizerStep::Kind::kReplace:
        edited.Replace(step.from, step.to);
        break;
    }
  }
  return edited;
}

}  // namespace qk
