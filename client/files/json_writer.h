// Writes messages as one line of JSON each, for pipes. The format is protobuf's
// JSON mapping with the original field names, except that
//  - 64-bit integers are numbers;
//  - fields without presence are written even if they have the default value;
//  - bytes that are UTF-8 text get a second field, NAME_utf8, with the text;
//  - Layer.data is left out: TensorToJson writes its values;
//  - means and variances of an AggregateEntry are arrays of numbers, row-major.
// Parsers of protobuf JSON can read it if they ignore unknown fields.
#ifndef QKSCOPE_CLIENT_FILES_JSON_WRITER_H_
#define QKSCOPE_CLIENT_FILES_JSON_WRITER_H_

#include <cstdint>
#include <string>

#include "client/cpp/analysis_result.h"
#include "google/protobuf/message.h"

namespace qk::client {

// A number; NaN and infinities are the strings "NaN", "Infinity" and
// "-Infinity".
std::string NumberJson(double value);

std::string ToJson(const google::protobuf::Message& message);

// Writes an AnalyzeEvent with `layer`. Norms are an array of numbers `values`
// in row-major order (NaN and infinities are the strings "NaN", "Infinity" and
// "-Infinity"). Raw values are base64 `data`, little-endian, of type `dtype`.
std::string TensorToJson(int64_t seq, const Tensor& tensor);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_FILES_JSON_WRITER_H_
