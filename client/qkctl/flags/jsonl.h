// Reads files of JSON lines with prompts.
#ifndef QKSCOPE_CLIENT_QKCTL_FLAGS_JSONL_H_
#define QKSCOPE_CLIENT_QKCTL_FLAGS_JSONL_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/struct.pb.h"
#include "qkscope/v1/analysis.pb.h"

namespace qk::client {

struct JsonLine {
  int number = 0;    // from 1
  std::string text;  // the JSON object as it stands in the file
  google::protobuf::Struct fields;
};

// Calls `take` for each line that is not blank. "-" is standard input. The file
// is UTF-8; a byte order mark at its beginning is skipped. If a line is not a
// JSON object or `take` fails, returns INVALID_ARGUMENT with --jsonl, path and
// line number.
absl::Status ReadJsonLines(
    const std::string& path,
    const std::function<absl::Status(const JsonLine& line)>& take);

// A prompt's id, which may be a JSON string or a JSON integer of any size.
struct JsonId {
  std::string text;        // an integer's digits as they stand in the file
  bool is_number = false;  // whether it is an integer
};

// Reads the member "id"; without it, the id is the line's number. Fails if it
// is neither a string nor an integer.
absl::StatusOr<JsonId> IdOf(const JsonLine& line);

// Reads the member `name` as text, or the member `name`_ids as token ids.
absl::Status InputOf(const google::protobuf::Struct& line,
                     const std::string& name, qkscope::v1::Input* input);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_FLAGS_JSONL_H_
