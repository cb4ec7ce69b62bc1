#include "tests/cuda_on_cpu/fake_runtime.h"

#include <cstring>
#include <new>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/cuda/launch_error.h"
#include "tests/cuda_on_cpu/block.h"

namespace qk::cuda_on_cpu {
namespace {

constexpr std::align_val_t kAlignment{256};  // as cudaMalloc's
constexpr const char* kWords = "an error that the test asked for";

template <typename Handle>
intptr_t NumberOf(Handle handle) {
  return reinterpret_cast<intptr_t>(handle);
}

}  // namespace

void FakeRuntime::Delete::operator()(uint8_t* p) const {
  ::operator delete[](p, kAlignment);
}

FakeRuntime::FakeRuntime(Launches launches) : launches_(launches) {
  facts_.uuid = "GPU-00000000-0000-0000-0000-000000000000";
  facts_.name = "emulation";
  facts_.compute_capability = 90;
  facts_.multiprocessors = 4;
  facts_.memory_bytes = facts_.usable_bytes = int64_t{1} << 30;
  facts_.shared_bytes = options().max_shared;
  facts_.driver = 13000;
  if (launches == Launches::kUnseen) return;
  QK_CHECK(options().before_launch == nullptr);
  options().before_launch = [this] {
    MutexLock lock(&mutex_);
    ++counts_.launches;
    return Call();
  };
}

FakeRuntime::~FakeRuntime() {
  if (launches_ == Launches::kSeen) options().before_launch = nullptr;
}

bool FakeRuntime::failed() const {
  MutexLock lock(&mutex_);
  return failed_;
}

CallCounts FakeRuntime::counts() const {
  MutexLock lock(&mutex_);
  return counts_;
}

void FakeRuntime::Clear() {
  MutexLock lock(&mutex_);
  counts_ = {};
}

void FakeRuntime::FailCall(int64_t k, int error) {
  MutexLock lock(&mutex_);
  fail_at_ = k;
  fail_with_ = error;
  failed_ = false;
}

int FakeRuntime::Call() {
  ++counts_.all;
  clock_ += 1e-6;
  if (failed_ && cuda::IsLost(cuda::StatusOf(fail_with_, "", ""))) {
    return fail_with_;
  }
  if (fail_at_ < 0 || fail_at_-- > 0) return 0;
  failed_ = true;
  return fail_with_;
}

absl::Status FakeRuntime::Called(const std::string& name) {
  return cuda::StatusOf(Call(), name, kWords);
}

int64_t FakeRuntime::live_bytes() const {
  MutexLock lock(&mutex_);
  return Live();
}

int64_t FakeRuntime::Live() const {
  int64_t bytes = 0;
  for (const Heap* heap : {&device_, &pinned_}) {
    for (const auto& [data, memory] : *heap) bytes += memory.bytes;
  }
  return bytes;
}

int64_t FakeRuntime::live_objects() const {
  MutexLock lock(&mutex_);
  return static_cast<int64_t>(device_.size() + pinned_.size() + events_.size() +
                              streams_.size());
}

absl::StatusOr<void*> FakeRuntime::Take(Heap& heap, int64_t bytes,
                                        const std::string& name) {
  ++counts_.allocations;
  QK_RETURN_IF_ERROR(Called(absl::StrCat(name, " of ", bytes, " bytes")));
  Memory memory;
  memory.bytes = bytes;
  memory.data.reset(static_cast<uint8_t*>(::operator new[](bytes, kAlignment)));
  if (bytes > 0) std::memset(memory.data.get(), 0xFF, bytes);  // NaNs
  void* data = memory.data.get();
  heap.emplace(data, std::move(memory));
  return data;
}

absl::Status FakeRuntime::Give(Heap& heap, void* data,
                               const std::string& name) {
  QK_CHECK(heap.count(data) == 1);
  // As CUDA does when the device is lost: the memory is gone all the same.
  heap.erase(data);
  return Called(name);
}

void FakeRuntime::CheckInside(const void* data, int64_t bytes) const {
  auto after = device_.upper_bound(data);
  QK_CHECK(after != device_.begin());
  const auto& [begin, memory] = *std::prev(after);
  const int64_t offset = NumberOf(data) - NumberOf(begin);
  QK_CHECK(bytes >= 0 && offset + bytes <= memory.bytes);
}

absl::StatusOr<void*> FakeRuntime::Allocate(int64_t bytes, cuda::Stream) {
  MutexLock lock(&mutex_);
  return Take(device_, bytes, "Allocate");
}
absl::Status FakeRuntime::Free(void* data, cuda::Stream) {
  MutexLock lock(&mutex_);
  return Give(device_, data, "Free");
}
absl::StatusOr<void*> FakeRuntime::AllocatePinned(int64_t bytes) {
  MutexLock lock(&mutex_);
  return Take(pinned_, bytes, "AllocatePinned");
}
absl::Status FakeRuntime::FreePinned(void* data) {
  MutexLock lock(&mutex_);
  return Give(pinned_, data, "FreePinned");
}
absl::Status FakeRuntime::Trim() {
  MutexLock lock(&mutex_);
  return Called("Trim");
}
absl::StatusOr<int64_t> FakeRuntime::FreeBytes() {
  MutexLock lock(&mutex_);
  QK_RETURN_IF_ERROR(Called("FreeBytes"));
  return facts_.memory_bytes - Live();
}

absl::Status FakeRuntime::CopyToDevice(void* device, const void* host,
                                       int64_t bytes, cuda::Stream) {
  MutexLock lock(&mutex_);
  if (bytes == 0) return absl::OkStatus();
  ++counts_.to_device;
  counts_.bytes_to_device += bytes;
  CheckInside(device, bytes);
  QK_RETURN_IF_ERROR(Called("CopyToDevice"));
  std::memcpy(device, host, bytes);
  return absl::OkStatus();
}

absl::Status FakeRuntime::CopyToHost(void* host, const void* device,
                                     int64_t bytes, cuda::Stream) {
  MutexLock lock(&mutex_);
  if (bytes == 0) return absl::OkStatus();
  ++counts_.to_host;
  CheckInside(device, bytes);
  QK_RETURN_IF_ERROR(Called("CopyToHost"));
  std::memcpy(host, device, bytes);
  return absl::OkStatus();
}

absl::Status FakeRuntime::CopyOnDevice(void* to, const void* from,
                                       int64_t bytes, cuda::Stream) {
  MutexLock lock(&mutex_);
  if (bytes == 0) return absl::OkStatus();
  ++counts_.on_device;
  CheckInside(to, bytes);
  CheckInside(from, bytes);
  QK_RETURN_IF_ERROR(Called("CopyOnDevice"));
  std::memcpy(to, from, bytes);
  return absl::OkStatus();
}

absl::Status FakeRuntime::Zero(void* device, int64_t bytes, cuda::Stream) {
  MutexLock lock(&mutex_);
  CheckInside(device, bytes);
  QK_RETURN_IF_ERROR(Called("Zero"));
  if (bytes > 0) std::memset(device, 0, bytes);
  return absl::OkStatus();
}

absl::StatusOr<cuda::Stream> FakeRuntime::MakeStream() {
  MutexLock lock(&mutex_);
  QK_RETURN_IF_ERROR(Called("MakeStream"));
  streams_.insert(next_);
  return reinterpret_cast<cuda::Stream>(next_++);
}
absl::Status FakeRuntime::DestroyStream(cuda::Stream stream) {
  MutexLock lock(&mutex_);
  QK_CHECK(streams_.erase(NumberOf(stream)) == 1);
  return Called("DestroyStream");
}
absl::StatusOr<cuda::Event> FakeRuntime::MakeEvent() {
  MutexLock lock(&mutex_);
  QK_RETURN_IF_ERROR(Called("MakeEvent"));
  events_[next_] = 0;
  return reinterpret_cast<cuda::Event>(next_++);
}
absl::Status FakeRuntime::DestroyEvent(cuda::Event event) {
  MutexLock lock(&mutex_);
  QK_CHECK(events_.erase(NumberOf(event)) == 1);
  return Called("DestroyEvent");
}
absl::Status FakeRuntime::Record(cuda::Event event, cuda::Stream) {
  MutexLock lock(&mutex_);
  QK_RETURN_IF_ERROR(Called("Record"));
  events_.at(NumberOf(event)) = clock_;
  return absl::OkStatus();
}
absl::Status FakeRuntime::Follow(cuda::Stream, cuda::Event event) {
  MutexLock lock(&mutex_);
  QK_CHECK(events_.count(NumberOf(event)) == 1);
  return Called("Follow");
}
absl::StatusOr<bool> FakeRuntime::Happened(cuda::Event event) {
  MutexLock lock(&mutex_);
  QK_CHECK(events_.count(NumberOf(event)) == 1);
  QK_RETURN_IF_ERROR(Called("Happened"));
  return true;
}
absl::Status FakeRuntime::WaitFor(cuda::Event event) {
  MutexLock lock(&mutex_);
  ++counts_.waits;
  QK_CHECK(events_.count(NumberOf(event)) == 1);
  return Called("WaitFor an event");
}
absl::Status FakeRuntime::WaitFor(cuda::Stream) {
  MutexLock lock(&mutex_);
  ++counts_.waits;
  return Called("WaitFor a stream");
}
absl::StatusOr<double> FakeRuntime::SecondsBetween(cuda::Event from,
                                                   cuda::Event to) {
  MutexLock lock(&mutex_);
  QK_RETURN_IF_ERROR(Called("SecondsBetween"));
  return events_.at(NumberOf(to)) - events_.at(NumberOf(from));
}

absl::Status FakeRuntime::LaunchStatus() {
  return cuda::StatusOf(cuda::TakeLaunchError(), "a launch", kWords);
}

}  // namespace qk::cuda_on_cpu
