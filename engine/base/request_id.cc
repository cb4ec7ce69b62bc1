#include "engine/base/request_id.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace qk {
namespace {

constexpr size_t kDigits = 16;
constexpr size_t kMaxReplicaName = kMaxRequestId - kDigits - 1;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

bool IsReplicaName(absl::string_view name) {
  return !name.empty() && name.size() <= kMaxReplicaName &&
         name.front() != '-' && name.back() != '-' &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return IsDigit(c) || (c >= 'a' && c <= 'z') || c == '-';
         });
}

std::string MakeRequestId(uint64_t random, absl::string_view replica) {
  return absl::StrCat(absl::Hex(random, absl::kZeroPad16),
                      replica.empty() ? "" : "-", replica);
}

bool IsRequestId(absl::string_view text) {
  const absl::string_view digits = text.substr(0, kDigits);
  if (digits.size() < kDigits ||
      !std::all_of(digits.begin(), digits.end(), [](char c) {
        return IsDigit(c) || (c >= 'a' && c <= 'f');
      })) {
    return false;
  }
  return text.size() == kDigits ||
         (text[kDigits] == '-' && IsReplicaName(text.substr(kDigits + 1)));
}

absl::string_view ReplicaOf(absl::string_view id) {
  if (id.size() == kDigits || !IsRequestId(id)) return {};
  return id.substr(kDigits + 1);
}

}  // namespace qk
