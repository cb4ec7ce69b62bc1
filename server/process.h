// qkscoped's process: flags, configuration, signals, and how it exits. The only
// place with flags and signals.
#ifndef QKSCOPE_SERVER_PROCESS_H_
#define QKSCOPE_SERVER_PROCESS_H_

#include <memory>
#include <string>
#include <vector>

#include "engine/create_backend.h"
#include "server/schedule/engine_device.h"

namespace qk {

// The exit status; one that has served exits at once. `backend`: nullptr is the
// CPU's.
int RunProcess(
    const std::vector<std::string>& arguments,
    std::unique_ptr<Backend> backend = nullptr,
    std::unique_ptr<Device> device = std::make_unique<EngineDevice>());

}  // namespace qk

#endif  // QKSCOPE_SERVER_PROCESS_H_
