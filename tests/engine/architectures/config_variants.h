// Makes every small change of a config.json, one field at a time.
#ifndef QKSCOPE_TESTS_ENGINE_ARCHITECTURES_CONFIG_VARIANTS_H_
#define QKSCOPE_TESTS_ENGINE_ARCHITECTURES_CONFIG_VARIANTS_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/formats/json.h"

namespace qk::testing {

struct JsonMember;

// A JSON value that can be changed.
struct Json {
  JsonType type = JsonType::kNull;
  std::string scalar;  // as in the file, strings without quotes
  // An object's members have keys; an array's have none.
  std::vector<JsonMember> members;
};

struct JsonMember {
  std::string name;
  Json value;
};

Json MakeJson(const JsonValue& value);
std::string Text(const Json& json);

struct Variant {
  std::string path;    // "rope_scaling.factor", "layer_types[0]"
  std::string change;  // "+1", "removed", "= \"nonsense\""
  std::string before;  // the value's text; empty for one that was added
  std::string text;    // of the whole changed file
};

// Integers become + 1, x 2, 0 and -1; other numbers x 1.5; booleans are
// flipped; strings become another valid value of the field, and nonsense; null
// becomes a value of each type; arrays and objects have an element changed or
// removed. Every value is also removed and set to null. Each object gets an
// unknown field, and the whole file gets fields of other families and defaults
// that it lacks.
std::vector<Variant> Variants(const Json& config);

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_ARCHITECTURES_CONFIG_VARIANTS_H_
