// A model's files, opened and checked, before its weights are read.
#ifndef QKSCOPE_ENGINE_MODEL_OPEN_MODEL_H_
#define QKSCOPE_ENGINE_MODEL_OPEN_MODEL_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/architectures/architecture.h"
#include "engine/formats/tensor_source.h"
#include "engine/model/model.h"
#include "engine/tokenizer/tokenizer.h"

namespace qk {

struct OpenModel {
  std::unique_ptr<TensorSource> source;
  Architecture architecture;
  std::unique_ptr<Tokenizer> tokenizer;
  // As in ModelDescription.
  std::string text_problem;
  std::vector<std::string> warnings;
};

// Errors are those of Model::Load.
absl::StatusOr<OpenModel> OpenModelFiles(const std::string& path,
                                         const IgnoredParts& ignored);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_MODEL_OPEN_MODEL_H_
