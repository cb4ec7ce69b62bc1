// Reads files of JSON lines with prompts.
#ifndef QKSCOPE_CLIENT_QKCTL_FLAGS_JSONL_H_
#define QKSCOPE_CLIENT_QKCTL_FLAGS_JSONL_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "google/protobuf/struct.pb.h"
#include "qkscope/v1/analysis.pb.h"

namespace qk::client {

// Calls `take` for each line that is not blank. "-" is standard input. If a
// line is not a JSON object or `take` fails, returns INVALID_ARGUMENT with
// --jsonl, path and line number.
absl::Status ReadJsonLines(
    const std::string& path,
    const std::function<
        absl::Status(int number, const google::protobuf::Struct& line)>& take);

// Reads the member `name` as text, or the member `name`_ids as token ids.
absl::Status InputOf(const google::protobuf::Struct& line,
                     const std::string& name, qkscope::v1::Input* input);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_FLAGS_JSONL_H_
