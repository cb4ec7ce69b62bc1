#include "engine/tokenizer/sentencepiece_proto.h"

#include <bit>
#include <cstddef>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/flat_hash.h"
#include "engine/base/utf8.h"
#include "engine/formats/excerpt.h"
#include "engine/tokenizer/piece_vocabulary.h"
#include "engine/tokenizer/vocabulary.h"
#include "engine/tokenizer/wire_format.h"

namespace qk {
namespace {

constexpr size_t kMaxBytes = size_t{64} << 20;

// Calls `read` for each field of the message `name`.
absl::Status ForEachField(
    absl::string_view name, absl::string_view message,
    absl::FunctionRef<absl::Status(const WireField&)> read) {
  for (WireReader reader(message); !reader.done();) {
    const auto field = reader.Next();
    if (!field.ok()) {
      const absl::string_view what = field.status().message();
      return SentencePieceError(absl::StrCat(name, ": ", what));
    }
    QK_RETURN_IF_ERROR(read(*field));
  }
  return absl::OkStatus();
}

// Reads one value of a message.
class FieldReader {
 public:
  FieldReader(absl::string_view message, const WireField& field)
      : message_(message), field_(field) {}

  absl::Status Expect(WireType type) const {
    if (field_.type == type) return absl::OkStatus();
    return SentencePieceError(absl::StrCat(
        message_, ": field ", field_.number, " has wire type ",
        static_cast<int>(field_.type), ", not ", static_cast<int>(type)));
  }
  absl::Status Read(bool* out) const {
    *out = field_.value != 0;
    return Expect(WireType::kVarint);
  }
  absl::Status Read(int64_t* out) const {
    *out = static_cast<int64_t>(field_.value);
    return Expect(WireType::kVarint);
  }
  absl::Status Read(int32_t* out) const {
    *out = static_cast<int32_t>(field_.value);
    return Expect(WireType::kVarint);
  }
  absl::Status Read(float* out) const {
    *out = std::bit_cast<float>(static_cast<uint32_t>(field_.value));
    return Expect(WireType::kFixed32);
  }
  absl::Status Read(std::string* out) const {
    *out = std::string(field_.bytes);
    return Expect(WireType::kBytes);
  }

 private:
  absl::string_view message_;
  const WireField& field_;
};

absl::Status ReadPiece(absl::string_view message, SentencePieceModel* model) {
  std::string piece;
  float score = 0;
  int64_t type = kNormalPiece;
  const std::string name = absl::StrCat("pieces[", model->pieces.size(), "]");
  QK_RETURN_IF_ERROR(ForEachField(name, message, [&](const WireField& field) {
    const FieldReader reader(name, field);
    if (field.number == 1) return reader.Read(&piece);
    if (field.number == 2) return reader.Read(&score);
    if (field.number == 3) return reader.Read(&type);
    return absl::OkStatus();
  }));
  if (piece.empty() || FindInvalidUtf8(piece).has_value()) {
    return SentencePieceError(absl::StrCat(
        name, ": must be UTF-8 and not empty, got \"", Excerpt(piece), "\""));
  }
  if (type < kNormalPiece || type > kBytePiece) {
    return SentencePieceError(
        absl::StrCat(name, ": type must be 1 to 6, got ", type));
  }
  if (model->pieces.size() > size_t{kMaxTokenId}) {
    return SentencePieceError(absl::StrCat("over ", kMaxTokenId, " pieces"));
  }
  model->pieces.push_back(std::move(piece));
  model->scores.push_back(score);
  model->types.push_back(type);
  return absl::OkStatus();
}

absl::Status ReadTrainerSpec(absl::string_view message,
                             SentencePieceModel* model) {
  constexpr char kName[] = "trainer_spec";
  return ForEachField(kName, message, [&](const WireField& field) {
    const FieldReader reader(kName, field);
    switch (field.number) {
      case 3:
        return reader.Read(&model->model_type);
      case 24:
        return reader.Read(&model->treat_whitespace_as_suffix);
      case 35:
        return reader.Read(&model->byte_fallback);
      case 40:
        return reader.Read(&model->unk_id);
      case 41:
        return reader.Read(&model->bos_id);
      case 42:
        return reader.Read(&model->eos_id);
      default:
        return absl::OkStatus();
    }
  });
}

absl::Status ReadNormalizerSpec(absl::string_view message,
                                SentencePieceModel* model) {
  constexpr char kName[] = "normalizer_spec";
  return ForEachField(kName, message, [&](const WireField& field) {
    const FieldReader reader(kName, field);
    switch (field.number) {
      case 2:
        return reader.Read(&model->charsmap);
      case 3:
        return reader.Read(&model->add_dummy_prefix);
      case 4:
        return reader.Read(&model->remove_extra_whitespaces);
      case 5:
        return reader.Read(&model->escape_whitespaces);
      default:
        return absl::OkStatus();
    }
  });
}

absl::Status CheckPieces(const SentencePieceModel& model) {
  if (model.pieces.empty()) return SentencePieceError("there are no pieces");
  FlatHashSet<absl::string_view> seen;
  for (const std::string& piece : model.pieces) {
    if (!seen.insert(piece).second) {
      return SentencePieceError(
          absl::StrCat("pieces: \"", Excerpt(piece), "\" is there twice"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status SentencePieceError(absl::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat("tokenizer.model: ", message));
}

absl::StatusOr<SentencePieceModel> ParseSentencePieceModel(
    absl::string_view bytes) {
  if (bytes.size() > kMaxBytes) {
    return SentencePieceError(
        absl::StrCat(bytes.size(), " bytes, limit ", kMaxBytes));
  }
  SentencePieceModel model;
  constexpr char kName[] = "ModelProto";
  QK_RETURN_IF_ERROR(ForEachField(kName, bytes, [&](const WireField& field) {
    if (field.number < 1 || field.number > 3) return absl::OkStatus();
    const absl::Status is_bytes =
        FieldReader(kName, field).Expect(WireType::kBytes);
    if (!is_bytes.ok()) return is_bytes;
    if (field.number == 1) return ReadPiece(field.bytes, &model);
    if (field.number == 2) return ReadTrainerSpec(field.bytes, &model);
    return ReadNormalizerSpec(field.bytes, &model);
  }));
  QK_RETURN_IF_ERROR(CheckPieces(model));
  return model;
}

}  // namespace qk
