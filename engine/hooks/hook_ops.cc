#include "engine/hooks/hook_ops.h"

#include "engine/base/check.h"

namespace qk {

bool HookOps::Fits(int64_t result_bytes, int64_t scratch_bytes) const {
  return results_ + scratch_ + BytesFor(result_bytes, scratch_bytes) <= size();
}

HookOps::Room HookOps::Take(int64_t result_bytes, int64_t scratch_bytes) {
  if (!Fits(result_bytes, scratch_bytes)) Fetch();
  QK_CHECK(Fits(result_bytes, scratch_bytes));
  uint8_t* memory = memory_.as<uint8_t>();
  Room room;
  room.result = memory + results_;
  room.staged = StagedResult(copy_, results_, result_bytes);
  results_ += Rounded(result_bytes);
  scratch_ += Rounded(scratch_bytes);
  room.scratch = memory + size() - scratch_;
  return room;
}

void HookOps::Run() {
  const auto run = [this](auto op, auto& jobs) {
    if (jobs.empty()) return;
    (backend_->*op)(jobs);
    jobs.clear();
  };
  run(&Backend::AddMoments, moments_);
  run(&Backend::SelectDims, selects_);
  run(&Backend::ReplaceDims, replaces_);
  run(&Backend::DisruptPerToken, token_rules_);
  run(&Backend::FinishNorms, norms_);
  run(&Backend::TokenNorms, token_norms_);
  run(&Backend::CopyOut, copies_out_);
  run(&Backend::CopyOnDevice, copies_);
  scratch_ = 0;
}

void HookOps::Fetch() {
  Run();
  if (results_ == 0) return;
  *copy_ = backend_->Fetch(memory_.as<void>(), results_);
  copy_ = std::make_shared<Arrival>();
  results_ = 0;
}

}  // namespace qk
