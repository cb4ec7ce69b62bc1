// What a backend runs on, and with which kernels. The manifest holds this.
#ifndef QKSCOPE_ENGINE_TYPES_BACKEND_INFO_H_
#define QKSCOPE_ENGINE_TYPES_BACKEND_INFO_H_

#include <map>
#include <string>
#include <vector>

namespace qk {

struct BackendInfo {
  std::string name;    // "cpu"
  std::string device;  // the processor's name
  int threads = 0;
  // Everything on which a result's bits may depend, beside the model and the
  // request.
  std::vector<std::string> kernel_ids;
  std::map<std::string, std::string> library_versions;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TYPES_BACKEND_INFO_H_
