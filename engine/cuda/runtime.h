// What the CUDA backend asks of CUDA's runtime, beside launches (launch.h). The
// real one is the only caller of that runtime; tests have a fake one, which
// counts calls and makes them fail. No function here waits for the device
// unless its comment says so.
//
// Statuses: RESOURCE_EXHAUSTED if memory is short, which harms nothing else;
// UNAVAILABLE after an error that the device does not recover from (IsLost is
// true from then on); INTERNAL for our own bugs.
#ifndef QKSCOPE_ENGINE_CUDA_RUNTIME_H_
#define QKSCOPE_ENGINE_CUDA_RUNTIME_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/cuda/stream.h"

struct CUevent_st;

namespace qk::cuda {

using Event = CUevent_st*;

struct DeviceFacts {
  int index = 0;
  std::string uuid;  // "GPU-xxxxxxxx-xxxx-...", as nvidia-smi prints it
  std::string name;
  int compute_capability = 0;  // 90 is 9.0
  int multiprocessors = 0;
  int64_t memory_bytes = 0;
  int64_t usable_bytes = 0;  // of them, by Allocate
  int64_t shared_bytes = 0;  // that a block may have
  int driver = 0;            // the CUDA version that the driver has; 13000
};

class Runtime {
 public:
  virtual ~Runtime() = default;

  virtual const DeviceFacts& facts() const = 0;
  // Makes this thread's launches go to the device.
  virtual absl::Status Use() = 0;

  // --- memory; Allocate and Free are in the stream's order
  virtual absl::StatusOr<void*> Allocate(int64_t bytes, Stream stream) = 0;
  virtual absl::Status Free(void* data, Stream stream) = 0;
  // Host memory that the device copies to and from by itself. May wait.
  virtual absl::StatusOr<void*> AllocatePinned(int64_t bytes) = 0;
  virtual absl::Status FreePinned(void* data) = 0;
  // Gives memory that nothing uses back to other processes. Waits.
  virtual absl::Status Trim() = 0;
  // That Allocate may still give.
  virtual absl::StatusOr<int64_t> FreeBytes() = 0;

  virtual absl::Status CopyToDevice(void* device, const void* host,
                                    int64_t bytes, Stream stream) = 0;
  virtual absl::Status CopyToHost(void* host, const void* device, int64_t bytes,
                                  Stream stream) = 0;
  virtual absl::Status CopyOnDevice(void* to, const void* from, int64_t bytes,
                                    Stream stream) = 0;
  virtual absl::Status Zero(void* device, int64_t bytes, Stream stream) = 0;

  // --- order
  virtual absl::StatusOr<Stream> MakeStream() = 0;
  virtual absl::Status DestroyStream(Stream stream) = 0;
  virtual absl::StatusOr<Event> MakeEvent() = 0;
  virtual absl::Status DestroyEvent(Event event) = 0;
  virtual absl::Status Record(Event event, Stream stream) = 0;
  // What comes later in the stream happens after the event.
  virtual absl::Status Follow(Stream stream, Event event) = 0;
  virtual absl::StatusOr<bool> Happened(Event event) = 0;
  virtual absl::Status WaitFor(Event event) = 0;    // waits
  virtual absl::Status WaitFor(Stream stream) = 0;  // waits
  // Of the device's clock; both have happened.
  virtual absl::StatusOr<double> SecondsBetween(Event from, Event to) = 0;

  // The first launch of this thread that failed since the last question.
  virtual absl::Status LaunchStatus() = 0;
};

// What a code of CUDA's runtime (cudaError_t) means; OK for 0. `call` is what
// gave it, `words` CUDA's own.
absl::Status StatusOf(int error, const std::string& call,
                      const std::string& words);
// Whether the status says that the device is lost until the process ends.
bool IsLost(const absl::Status& status);

struct RuntimeOptions {
  std::string device;  // an index, a UUID, or "": the first
  // The most that Allocate may hold, in bytes or as a part of all that the
  // device has; 0 and 0: no limit.
  int64_t memory_bytes = 0;
  double memory_part = 0;
};
// UNAVAILABLE: there is no driver, no device, or one that is too old; the
// message says which. NOT_FOUND: no such device, with those that there are.
absl::StatusOr<std::unique_ptr<Runtime>> OpenRuntime(
    const RuntimeOptions& options);
// UNAVAILABLE as above.
absl::StatusOr<std::vector<DeviceFacts>> ListDevices();

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_RUNTIME_H_
