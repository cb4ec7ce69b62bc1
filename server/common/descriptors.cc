#include "server/common/descriptors.h"

#include <sys/resource.h>

#include <algorithm>
#include <limits>

namespace qk {

DescriptorShares ShareDescriptors(int limit) {
  DescriptorShares out;
  out.results = std::clamp(limit / 16, 2, 64);
  // LoadModel pins up to 512 files, and reads one more at a time.
  out.models = std::clamp(limit / 8, 4, 520);
  out.own = std::clamp(limit / 8, 8, 128);
  out.connections_end = limit - out.results - out.models - out.own;
  return out;
}

int RaiseDescriptorLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
  const rlim_t soft = limit.rlim_cur;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = soft;
  return static_cast<int>(
      std::min<rlim_t>(limit.rlim_cur, std::numeric_limits<int>::max()));
}

}  // namespace qk
