// The ops of the hooks of a pass. Jobs of all its sequences are collected, and
// each kind of op runs once over them. What goes to the host lies side by side
// in one piece of device memory, so that one copy per step brings it there.
#ifndef QKSCOPE_ENGINE_HOOKS_HOOK_OPS_H_
#define QKSCOPE_ENGINE_HOOKS_HOOK_OPS_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "engine/backend/backend.h"

namespace qk {

// A part of what one copy brings to the host.
class StagedResult {
 public:
  StagedResult() = default;  // never here
  StagedResult(std::shared_ptr<const Arrival> copy, int64_t offset,
               int64_t bytes)
      : copy_(std::move(copy)), offset_(offset), bytes_(bytes) {}

  bool here() const { return copy_ != nullptr && copy_->here(); }
  // Requires here().
  absl::Span<const uint8_t> bytes() const {
    return copy_->bytes().subspan(offset_, bytes_);
  }

 private:
  std::shared_ptr<const Arrival> copy_;
  int64_t offset_ = 0;
  int64_t bytes_ = 0;
};

class HookOps {
 public:
  // Bytes of `memory` that Take(result, scratch) needs.
  static int64_t BytesFor(int64_t result, int64_t scratch = 0) {
    return Rounded(result) + Rounded(scratch);
  }

  // `memory` must outlive the object. It may be replaced while nothing is
  // waiting in it: after Fetch.
  HookOps(Backend* backend, const DeviceBuffer& memory)
      : backend_(backend), memory_(memory) {}

  struct Room {
    void* result = nullptr;   // device memory; goes to the host with Fetch
    void* scratch = nullptr;  // device memory; contents are gone after Run
    StagedResult staged;      // the result on the host
  };
  // Whether Take would run no job that was added before, nor fetch.
  bool Fits(int64_t result_bytes, int64_t scratch_bytes = 0) const;
  // Returns room for the jobs that are added next. It may run those before.
  Room Take(int64_t result_bytes, int64_t scratch_bytes = 0);

  void Add(const MomentsJob& job) { moments_.push_back(job); }
  void Add(const SelectJob& job) { selects_.push_back(job); }
  void Add(const ReplaceJob& job) { replaces_.push_back(job); }
  void Add(const TokenRuleJob& job) { token_rules_.push_back(job); }
  void Add(const NormsJob& job) { norms_.push_back(job); }
  void Add(const TokenNormsJob& job) { token_norms_.push_back(job); }
  void Add(const CopyOutJob& job) { copies_out_.push_back(job); }
  void Add(const CopyJob& job) { copies_.push_back(job); }

  // Runs the jobs added so far, kind by kind in the order above.
  void Run();
  // Starts the copy of all results so far. Runs their jobs first.
  void Fetch();

 private:
  int64_t size() const { return memory_.bytes() / 64 * 64; }
  static int64_t Rounded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

  Backend* backend_;
  const DeviceBuffer& memory_;
  int64_t results_ = 0;  // bytes from the start of memory_
  int64_t scratch_ = 0;  // bytes at its end
  std::shared_ptr<Arrival> copy_ = std::make_shared<Arrival>();
  std::vector<MomentsJob> moments_;
  std::vector<SelectJob> selects_;
  std::vector<ReplaceJob> replaces_;
  std::vector<TokenRuleJob> token_rules_;
  std::vector<NormsJob> norms_;
  std::vector<TokenNormsJob> token_norms_;
  std::vector<CopyOutJob> copies_out_;
  std::vector<CopyJob> copies_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_HOOKS_HOOK_OPS_H_
