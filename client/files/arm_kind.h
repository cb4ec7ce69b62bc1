// Tells disrupted from undisrupted arms.
#ifndef QKSCOPE_CLIENT_FILES_ARM_KIND_H_
#define QKSCOPE_CLIENT_FILES_ARM_KIND_H_

#include "qkscope/v1/spec.pb.h"

namespace qk::client {

// Whether the arm changes no values.
inline bool IsUndisrupted(const qkscope::v1::Arm& arm) {
  return arm.disruptions().empty() && !arm.has_preset();
}

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_FILES_ARM_KIND_H_
