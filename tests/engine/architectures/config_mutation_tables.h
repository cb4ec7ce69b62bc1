// Lists what may change in a config.json without a change of the model.
#ifndef QKSCOPE_TESTS_ENGINE_ARCHITECTURES_CONFIG_MUTATION_TABLES_H_
#define QKSCOPE_TESTS_ENGINE_ARCHITECTURES_CONFIG_MUTATION_TABLES_H_

#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tests/engine/architectures/config_variants.h"

namespace qk::testing {

struct Excuse {
  // "*", a model_type, a golden, or a prefix of several goldens' names
  // ("tiny_gptq_*").
  absl::string_view models;
  absl::string_view path;  // including all inside it
  // Variant::change, "*" for any, or "missing" for removed and null.
  absl::string_view change;
  absl::string_view reason;
  // The value before the change; "": any value.
  absl::string_view before = {};
};

absl::Span<const Excuse> AllExcuses();

// Returns null if there is none.
const Excuse* FindExcuse(const std::string& golden,
                         const std::string& model_type, const Variant& variant);

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_ARCHITECTURES_CONFIG_MUTATION_TABLES_H_
