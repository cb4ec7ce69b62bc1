// qkscoped's process: flags, configuration, signals, and how it exits. The only
// place with flags and signals.
#ifndef QKSCOPE_SERVER_PROCESS_H_
#define QKSCOPE_SERVER_PROCESS_H_

#include <memory>
#include <string>
#include <vector>

#include "engine/create_backend.h"

namespace qk {

// The exit status; one that has served exits at once. `backend`: nullptr is the
// one that the arguments name.
int RunProcess(const std::vector<std::string>& arguments,
               std::unique_ptr<Backend> backend = nullptr);

}  // namespace qk

#endif  // QKSCOPE_SERVER_PROCESS_H_
