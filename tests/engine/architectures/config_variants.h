// Every small change of a config.json: one field, one kind of change each.
#ifndef QKSCOPE_TESTS_ENGINE_ARCHITECTURES_CONFIG_VARIANTS_H_
#define QKSCOPE_TESTS_ENGINE_ARCHITECTURES_CONFIG_VARIANTS_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/formats/json.h"

namespace qk::testing {

// A JSON value that can be changed.
struct Json {
  JsonType type = JsonType::kNull;
  std::string scalar;  // as it stands in the file, strings without quotes
  // Of an object; an array's have no keys.
  std::vector<std::pair<std::string, Json>> members;
};

Json MakeJson(const JsonValue& value);
std::string Text(const Json& json);

struct Variant {
  std::string path;    // "rope_scaling.factor", "layer_types[0]"
  std::string change;  // "+1", "removed", "= \"nonsense\""
  std::string before;  // the value's text; empty for one that was added
  std::string text;    // of the whole changed file
};

// Integers + 1, x 2, 0 and -1; others x 1.5; booleans flipped; strings another
// valid value of the field and nonsense; null a value of each type; arrays and
// objects with an element changed or gone; all removed and null; a field that
// nobody knows added to each object, and to the whole those of other families
// and of defaults that are not in the file.
std::vector<Variant> Variants(const Json& config);

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_ARCHITECTURES_CONFIG_VARIANTS_H_
