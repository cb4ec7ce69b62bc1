// Tables of requests and of users' usage.
#ifndef QKSCOPE_CLIENT_QKCTL_OUTPUT_REQUESTS_VIEW_H_
#define QKSCOPE_CLIENT_QKCTL_OUTPUT_REQUESTS_VIEW_H_

#include <string>

#include "client/qkctl/output/console.h"
#include "qkscope/v1/analysis.pb.h"

namespace qk::client {

std::string RequestsTable(const qkscope::v1::ListRequestsResponse& requests,
                          const Console& console);
std::string UsageTable(const qkscope::v1::GetUsageResponse& usage,
                       const Console& console);
// The memory of a model in bytes. On the CPU, device memory is host memory and
// counts once.
double MemoryBytes(const qkscope::v1::ModelInfo& model);
// "12.3 MiB"; "1.5 s", "2 min".
std::string HumanSize(double bytes);
std::string HumanTime(double milliseconds);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_OUTPUT_REQUESTS_VIEW_H_
