// The --arm language, which describes one arm of a request.
//
//   ARM    := [NAME=]SPEC            NAME: letters, digits, '_', '-'
//   SPEC   := clean | RULE[;RULE]... | preset:NAME    then [,KEY=VALUE]...
//   RULE   := SELECT[,KEY=VALUE]...
//   SELECT := top_k:K | bottom_k:K | random_k:K | threshold[:LAMBDA]
//           | explicit:HEAD/DIM[+HEAD/DIM]...
//
//   top_k:1,replace=zero        big=threshold:5,layers=0-3+7,tensors=q+k
//   preset:rope_with_llm/llama  random_k:1,seed=7;top_k:1,tensors=v
//
// An arm without a name is named after its spec, with '_' for '+' and ';',
// which names must not contain.
#ifndef QKSCOPE_CLIENT_QKCTL_FLAGS_ARM_SPEC_H_
#define QKSCOPE_CLIENT_QKCTL_FLAGS_ARM_SPEC_H_

#include <string>

#include "absl/status/statusor.h"
#include "qkscope/v1/spec.pb.h"

namespace qk::client {

// INVALID_ARGUMENT names the arm, the key and the values that are allowed.
absl::StatusOr<qkscope::v1::Arm> ParseArm(const std::string& text);

// Returns the table of keys and their values, for --help.
std::string ArmSpecHelp();

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_FLAGS_ARM_SPEC_H_
