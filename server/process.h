// The process of qkscoped: flags, configuration, signals and exit. No other
// file handles flags and signals.
#ifndef QKSCOPE_SERVER_PROCESS_H_
#define QKSCOPE_SERVER_PROCESS_H_

#include <memory>
#include <string>
#include <vector>

#include "engine/create_backend.h"
#include "server/schedule/engine_device.h"

namespace qk {

// Returns the exit status. Once the server has started, it exits by _Exit and
// does not return. `backend`: nullptr stands for the one that the arguments
// name.
int RunProcess(
    const std::vector<std::string>& arguments,
    std::unique_ptr<Backend> backend = nullptr,
    std::unique_ptr<Device> device = std::make_unique<EngineDevice>());

}  // namespace qk

#endif  // QKSCOPE_SERVER_PROCESS_H_
