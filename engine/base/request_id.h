// A request's id: 16 lower-case hex digits that its server draws at random and,
// if the server is one of several replicas, "-" and the replica's name:
// "1f2e3d4c5b6a7988-b". Clients repeat that name beside the id, so that a
// balancer finds the replica that has the result.
#ifndef QKSCOPE_ENGINE_BASE_REQUEST_ID_H_
#define QKSCOPE_ENGINE_BASE_REQUEST_ID_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace qk {

// The longest id, with the longest name.
inline constexpr size_t kMaxRequestId = 16 + 1 + 63;
// What a replica's name must be, for errors.
inline constexpr char kReplicaNameRule[] =
    "[a-z0-9-]{1,63}, without - at an end";

// A name as in DNS: 1 to 63 of a-z, 0-9 and -, which is neither the first nor
// the last.
bool IsReplicaName(absl::string_view name);

// `replica`: a replica's name, or empty.
std::string MakeRequestId(uint64_t random, absl::string_view replica);

// Whether `text` is a request's id, of this or another replica, and therefore
// safe in a file's name.
bool IsRequestId(absl::string_view text);

// The name of the replica that an id is from. Empty if it has none, or if `id`
// is no request's id.
absl::string_view ReplicaOf(absl::string_view id);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BASE_REQUEST_ID_H_
