#include "engine/cuda/runtime.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <charconv>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "engine/base/check.h"
#include "engine/cuda/launch_error.h"

namespace qk::cuda {
namespace {

constexpr int kOldestDevice = 80;  // what engine/cuda/CMakeLists.txt compiles

absl::Status Checked(cudaError_t error, const std::string& call) {
  // A failure that is not sticky must not be taken for the next launch's.
  if (error != cudaSuccess) cudaGetLastError();
  return StatusOf(error, call, cudaGetErrorString(error));
}

// Why no device can be used.
absl::Status Unusable(cudaError_t error) {
  int driver = 0;
  cudaDriverGetVersion(&driver);
  const std::string needs =
      absl::StrFormat("this build needs a driver for CUDA %d.%d or newer",
                      CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
  if (driver == 0) {
    return absl::UnavailableError(
        absl::StrCat("there is no NVIDIA driver; ", needs));
  }
  if (error == cudaErrorInsufficientDriver) {
    return absl::UnavailableError(
        absl::StrFormat("the NVIDIA driver is for CUDA %d.%d; %s",
                        driver / 1000, driver % 1000 / 10, needs));
  }
  return absl::UnavailableError(
      absl::StrCat("no NVIDIA GPU can be used: ", cudaGetErrorString(error)));
}

std::string UuidOf(const cudaUUID_t& uuid) {
  std::string text = "GPU-";
  for (int i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    absl::StrAppendFormat(&text, "%02x",
                          static_cast<unsigned char>(uuid.bytes[i]));
  }
  return text;
}

absl::StatusOr<DeviceFacts> FactsOf(int index) {
  cudaDeviceProp properties;
  QK_RETURN_IF_ERROR(Checked(cudaGetDeviceProperties(&properties, index),
                             "cudaGetDeviceProperties"));
  DeviceFacts facts;
  facts.index = index;
  facts.uuid = UuidOf(properties.uuid);
  facts.name = properties.name;
  facts.compute_capability = 10 * properties.major + properties.minor;
  facts.multiprocessors = properties.multiProcessorCount;
  facts.memory_bytes = static_cast<int64_t>(properties.totalGlobalMem);
  facts.usable_bytes = facts.memory_bytes;
  facts.shared_bytes = static_cast<int64_t>(properties.sharedMemPerBlockOptin);
  cudaDriverGetVersion(&facts.driver);
  return facts;
}

class CudaRuntime final : public Runtime {
 public:
  explicit CudaRuntime(const DeviceFacts& facts) : facts_(facts) {}
  ~CudaRuntime() override {
    if (pool_ != nullptr) cudaMemPoolDestroy(pool_);
  }
  CudaRuntime(const CudaRuntime&) = delete;
  CudaRuntime& operator=(const CudaRuntime&) = delete;

  // A pool of its own, which holds at most `bytes` (0: any number). It keeps
  // some memory that nothing uses, and gives the rest back whenever the host
  // waits for the device.
  absl::Status MakePool(int64_t bytes) {
    QK_RETURN_IF_ERROR(Use());
    cudaMemPoolProps properties = {};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = facts_.index;
    properties.maxSize = static_cast<size_t>(bytes);
    if (bytes > 0) {
      facts_.usable_bytes = std::min(facts_.memory_bytes, bytes);
    }
    QK_RETURN_IF_ERROR(
        Checked(cudaMemPoolCreate(&pool_, &properties), "cudaMemPoolCreate"));
    uint64_t kept = uint64_t{1} << 30;
    return Checked(
        cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &kept),
        "cudaMemPoolSetAttribute");
  }

  const DeviceFacts& facts() const override { return facts_; }
  absl::Status Use() override {
    thread_local int used = -1;
    if (used == facts_.index) return absl::OkStatus();
    QK_RETURN_IF_ERROR(Checked(cudaSetDevice(facts_.index), "cudaSetDevice"));
    used = facts_.index;
    return absl::OkStatus();
  }

  absl::StatusOr<void*> Allocate(int64_t bytes, Stream stream) override {
    void* data = nullptr;
    QK_RETURN_IF_ERROR(
        Checked(cudaMallocFromPoolAsync(&data, static_cast<size_t>(bytes),
                                        pool_, stream),
                absl::StrCat("cudaMallocFromPoolAsync of ", bytes, " bytes")));
    return data;
  }
  absl::Status Free(void* data, Stream stream) override {
    return Checked(cudaFreeAsync(data, stream), "cudaFreeAsync");
  }
  absl::StatusOr<void*> AllocatePinned(int64_t bytes) override {
    void* data = nullptr;
    QK_RETURN_IF_ERROR(
        Checked(cudaMallocHost(&data, static_cast<size_t>(bytes)),
                absl::StrCat("cudaMallocHost of ", bytes, " bytes")));
    return data;
  }
  absl::Status FreePinned(void* data) override {
    return Checked(cudaFreeHost(data), "cudaFreeHost");
  }
  absl::Status Trim() override {
    QK_RETURN_IF_ERROR(
        Checked(cudaDeviceSynchronize(), "cudaDeviceSynchronize"));
    return Checked(cudaMemPoolTrimTo(pool_, 0), "cudaMemPoolTrimTo");
  }
  absl::StatusOr<int64_t> FreeBytes() override {
    size_t free = 0, total = 0;
    QK_RETURN_IF_ERROR(
        Checked(cudaMemGetInfo(&free, &total), "cudaMemGetInfo"));
    // The pool keeps some of what was freed.
    uint64_t reserved = 0, used = 0;
    QK_RETURN_IF_ERROR(
        Checked(cudaMemPoolGetAttribute(
                    pool_, cudaMemPoolAttrReservedMemCurrent, &reserved),
                "cudaMemPoolGetAttribute"));
    QK_RETURN_IF_ERROR(Checked(
        cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrUsedMemCurrent, &used),
        "cudaMemPoolGetAttribute"));
    return std::min(static_cast<int64_t>(free + reserved - used),
                    facts_.usable_bytes - static_cast<int64_t>(used));
  }

  absl::Status CopyToDevice(void* device, const void* host, int64_t bytes,
                            Stream stream) override {
    return Copy(device, host, bytes, cudaMemcpyHostToDevice, stream);
  }
  absl::Status CopyToHost(void* host, const void* device, int64_t bytes,
                          Stream stream) override {
    return Copy(host, device, bytes, cudaMemcpyDeviceToHost, stream);
  }
  absl::Status CopyOnDevice(void* to, const void* from, int64_t bytes,
                            Stream stream) override {
    return Copy(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
  }
  absl::Status Zero(void* device, int64_t bytes, Stream stream) override {
    return Checked(
        cudaMemsetAsync(device, 0, static_cast<size_t>(bytes), stream),
        "cudaMemsetAsync");
  }

  absl::StatusOr<Stream> MakeStream() override {
    Stream stream = nullptr;
    QK_RETURN_IF_ERROR(
        Checked(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                "cudaStreamCreateWithFlags"));
    return stream;
  }
  absl::Status DestroyStream(Stream stream) override {
    return Checked(cudaStreamDestroy(stream), "cudaStreamDestroy");
  }
  absl::StatusOr<Event> MakeEvent() override {
    Event event = nullptr;
    QK_RETURN_IF_ERROR(Checked(cudaEventCreate(&event), "cudaEventCreate"));
    return event;
  }
  absl::Status DestroyEvent(Event event) override {
    return Checked(cudaEventDestroy(event), "cudaEventDestroy");
  }
  absl::Status Record(Event event, Stream stream) override {
    return Checked(cudaEventRecord(event, stream), "cudaEventRecord");
  }
  absl::Status Follow(Stream stream, Event event) override {
    return Checked(cudaStreamWaitEvent(stream, event, 0),
                   "cudaStreamWaitEvent");
  }
  absl::StatusOr<bool> Happened(Event event) override {
    const cudaError_t error = cudaEventQuery(event);
    if (error == cudaErrorNotReady) {
      cudaGetLastError();
      return false;
    }
    QK_RETURN_IF_ERROR(Checked(error, "cudaEventQuery"));
    return true;
  }
  absl::Status WaitFor(Event event) override {
    return Checked(cudaEventSynchronize(event), "cudaEventSynchronize");
  }
  absl::Status WaitFor(Stream stream) override {
    return Checked(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  }
  absl::StatusOr<double> SecondsBetween(Event from, Event to) override {
    float milliseconds = 0;
    QK_RETURN_IF_ERROR(Checked(cudaEventElapsedTime(&milliseconds, from, to),
                               "cudaEventElapsedTime"));
    return milliseconds / 1e3;
  }
  absl::Status LaunchStatus() override {
    return Checked(static_cast<cudaError_t>(TakeLaunchError()), "a launch");
  }

 private:
  absl::Status Copy(void* to, const void* from, int64_t bytes,
                    cudaMemcpyKind kind, Stream stream) {
    if (bytes == 0) return absl::OkStatus();
    return Checked(
        cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), kind, stream),
        "cudaMemcpyAsync");
  }

  DeviceFacts facts_;
  cudaMemPool_t pool_ = nullptr;
};

bool IsNamed(const DeviceFacts& facts, const std::string& name) {
  int index = -1;
  const auto [end, error] =
      std::from_chars(name.data(), name.data() + name.size(), index);
  const bool number = error == std::errc() && end == name.data() + name.size();
  return number ? index == facts.index : name == facts.uuid;
}

}  // namespace

absl::StatusOr<std::vector<DeviceFacts>> ListDevices() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    cudaGetLastError();
    return Unusable(error);
  }
  std::vector<DeviceFacts> devices;
  for (int i = 0; i < count; ++i) {
    QK_ASSIGN_OR_RETURN(const DeviceFacts facts, FactsOf(i));
    devices.push_back(facts);
  }
  return devices;
}

absl::StatusOr<std::unique_ptr<Runtime>> OpenRuntime(
    const RuntimeOptions& options) {
  QK_ASSIGN_OR_RETURN(const std::vector<DeviceFacts> devices, ListDevices());
  const DeviceFacts* chosen = nullptr;
  std::vector<std::string> names;
  for (const DeviceFacts& facts : devices) {
    if (chosen == nullptr &&
        (options.device.empty() || IsNamed(facts, options.device))) {
      chosen = &facts;
    }
    names.push_back(
        absl::StrCat(facts.index, " (", facts.name, ", ", facts.uuid, ")"));
  }
  if (chosen == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("there is no device \"", options.device,
                     "\"; there are: ", absl::StrJoin(names, ", ")));
  }
  if (chosen->compute_capability < kOldestDevice) {
    return absl::UnavailableError(absl::StrFormat(
        "%s has compute capability %d.%d; %d.%d or newer is needed",
        chosen->name, chosen->compute_capability / 10,
        chosen->compute_capability % 10, kOldestDevice / 10,
        kOldestDevice % 10));
  }
  auto runtime = std::make_unique<CudaRuntime>(*chosen);
  const auto part = static_cast<int64_t>(
      options.memory_part * static_cast<double>(chosen->memory_bytes));
  QK_RETURN_IF_ERROR(runtime->MakePool(std::max(options.memory_bytes, part)));
  return runtime;
}

}  // namespace qk::cuda
