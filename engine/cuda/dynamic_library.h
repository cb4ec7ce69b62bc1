// A shared library that is opened when the program runs, because most machines
// lack it.
#ifndef QKSCOPE_ENGINE_CUDA_DYNAMIC_LIBRARY_H_
#define QKSCOPE_ENGINE_CUDA_DYNAMIC_LIBRARY_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace qk::cuda {

class DynamicLibrary {
 public:
  // Opens the first of the names (or paths) that there is. UNAVAILABLE: none,
  // with each name and why not. A library that was opened stays in the process:
  // NVIDIA's start threads and register functions for its end.
  static absl::StatusOr<DynamicLibrary> Open(
      const std::vector<std::string>& names);

  // The name that was opened.
  const std::string& name() const { return name_; }

  // Sets a pointer to a function of the library. UNAVAILABLE: it has none.
  template <typename Function>
  absl::Status Find(const char* function, Function** pointer) const {
    void* address = Address(function);
    if (address == nullptr) return Missing(function);
    *pointer = reinterpret_cast<Function*>(address);
    return absl::OkStatus();
  }

 private:
  struct Close {
    void operator()(void* handle) const;
  };
  DynamicLibrary(const std::string& name, void* handle)
      : name_(name), handle_(handle) {}
  void* Address(const char* function) const;
  absl::Status Missing(const char* function) const;

  std::string name_;
  std::unique_ptr<void, Close> handle_;
};

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_DYNAMIC_LIBRARY_H_
