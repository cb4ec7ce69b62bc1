#include "engine/cuda/dynamic_library.h"

#include <dlfcn.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace qk::cuda {

void DynamicLibrary::Close::operator()(void* handle) const { dlclose(handle); }

absl::StatusOr<DynamicLibrary> DynamicLibrary::Open(
    const std::vector<std::string>& names) {
  std::vector<std::string> reasons;
  for (const std::string& name : names) {
    void* handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (handle != nullptr) return DynamicLibrary(name, handle);
    const char* reason = dlerror();
    reasons.push_back(
        absl::StrCat(name, " (", reason == nullptr ? "?" : reason, ")"));
  }
  return absl::UnavailableError(
      absl::StrCat("cannot open ", absl::StrJoin(reasons, ", nor ")));
}

void* DynamicLibrary::Address(const char* function) const {
  return dlsym(handle_.get(), function);
}

absl::Status DynamicLibrary::Missing(const char* function) const {
  return absl::UnavailableError(
      absl::StrCat(name_, " has no function ", function));
}

}  // namespace qk::cuda
