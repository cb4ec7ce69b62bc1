#include "server/config/device_memory.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/common/text.h"

namespace qk {

absl::StatusOr<DeviceMemory> ParseDeviceMemory(absl::string_view text) {
  absl::string_view number = text;
  int shift = 0;
  if (absl::ConsumeSuffix(&number, "KiB")) {
    shift = 10;
  } else if (absl::ConsumeSuffix(&number, "MiB")) {
    shift = 20;
  } else if (absl::ConsumeSuffix(&number, "GiB")) {
    shift = 30;
  }
  DeviceMemory memory;
  constexpr int64_t kMost = int64_t{1} << 50;
  const bool bytes = absl::SimpleAtoi(number, &memory.bytes);
  if (bytes && (shift > 0 || memory.bytes > 1) && memory.bytes > 0 &&
      memory.bytes <= kMost >> shift) {
    memory.bytes <<= shift;
    return memory;
  }
  memory = {};
  if (shift == 0 && absl::SimpleAtod(number, &memory.part) && memory.part > 0 &&
      memory.part <= 1) {
    return memory;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "must be a part in (0, 1], as 0.5, or bytes, as 40GiB; got '", Echo(text),
      "'"));
}

}  // namespace qk
