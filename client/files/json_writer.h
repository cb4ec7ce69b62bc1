// Messages as one line of JSON, for pipes: protobuf's JSON mapping with the
// fields' own names, except that
//  - 64-bit integers are numbers;
//  - fields at their default that have no presence are written too;
//  - bytes that are UTF-8 text get a second field, NAME_utf8, with the text;
//  - Layer.data is left out: its values are JsonOfTensor's;
//  - means and variances of an AggregateEntry are arrays of numbers, row-major.
// Parsers of protobuf JSON that ignore unknown fields read it.
#ifndef QKSCOPE_CLIENT_FILES_JSON_WRITER_H_
#define QKSCOPE_CLIENT_FILES_JSON_WRITER_H_

#include <cstdint>
#include <string>

#include "client/cpp/analysis_result.h"
#include "google/protobuf/message.h"

namespace qk::client {

std::string ToJson(const google::protobuf::Message& message);

// An AnalyzeEvent with `layer`: norms as an array of numbers `values`, in
// row-major order (NaN and infinities as the strings "NaN", "Infinity",
// "-Infinity"); raw values as base64 `data`, little-endian in `dtype`.
std::string JsonOfTensor(int64_t seq, const Tensor& tensor);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_FILES_JSON_WRITER_H_
