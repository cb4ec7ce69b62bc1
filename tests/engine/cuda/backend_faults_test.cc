// Every call of CUDA's runtime fails once: the error is the right one, nothing
// is left behind, and the next request is answered.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/engine/cuda/backend_testing.h"
#include "tests/engine/cuda/kernel_testing.h"
#include "tests/engine/layer_step.h"

namespace qk::testing {
namespace {

constexpr int kStep = kSanitized ? 7 : 1;  // from failing call to failing call

absl::StatusOr<std::shared_ptr<const Model>> LoadTiny(
    Backend* backend, const std::string& sha256 = "") {
  ModelOptions options;
  options.expected_sha256 = sha256;
  options.compute = ComputeType::kBF16;
  options.kv_cache_bytes = 1 << 20;
  options.max_rows_per_pass = 64;
  return Model::Load(GoldenPath("tiny_llama_gqa"), options, backend);
}

// Runs to the end, or to the first failure.
absl::Status Finish(qk::Run* run, const Model& model) {
  QK_RETURN_IF_ERROR(run->Reserve());
  while (!run->finished()) {
    std::vector<Sequence*> sequences;
    run->AppendReady(&model, &sequences);
    Pass pass(model, sequences);
    while (!pass.done()) pass.RunStep();
    run->AfterPass(sequences, pass.Finish(), 0);
  }
  return absl::OkStatus();
}

// The frames and tokens of a request with capture, a rule and generation.
absl::StatusOr<std::string> Answer(const std::shared_ptr<const Model>& model) {
  Recorder recorder;
  RunSpec spec = SpecOf(model, 5, {.capture = true, .rules = true});
  spec.generate->max_new_tokens = 2;
  QK_ASSIGN_OR_RETURN(const auto run, qk::Run::Create(spec, &recorder));
  QK_RETURN_IF_ERROR(Finish(run.get(), *model));
  QK_RETURN_IF_ERROR(recorder.final_status);
  std::string all;
  for (const LayerFrame& frame : recorder.frames) all += frame.data;
  for (const TokenEvent& token : recorder.tokens) {
    absl::StrAppend(&all, " ", token.id, " ", token.logprob);
  }
  EXPECT_EQ(recorder.tokens.size(), 2u);
  EXPECT_FALSE(recorder.frames.empty());
  return all;
}

TEST(CudaFaultsTest, LoadingAModel) {
  int64_t k = 0;
  for (bool failed = true; failed; k += kStep) {
    EmulatedDevice device;
    const int64_t before = device.runtime->live_objects();
    device.runtime->FailCall(k, kCudaOutOfMemory);
    {
      const auto model = LoadTiny(device.backend.get());
      failed = device.runtime->failed();
      if (!model.ok()) {
        EXPECT_EQ(model.status().code(), absl::StatusCode::kResourceExhausted)
            << k << ": " << model.status();
      }
      EXPECT_TRUE(failed || model.ok()) << model.status();
    }
    EXPECT_TRUE(LoadTiny(device.backend.get()).ok()) << k;
    // What the backend keeps for the next load.
    EXPECT_LE(device.runtime->live_objects(), before + 12) << k;
    device.backend.reset();
    EXPECT_EQ(device.runtime->live_objects(), 0) << k;
  }
  EXPECT_GT(k, 50);
}

// A load that has failed for another reason, too.
TEST(CudaFaultsTest, AFailureDoesNotReachTheNextLoad) {
  int64_t k = 0;
  for (bool failed = true; failed; k += kStep) {
    EmulatedDevice device;
    device.runtime->FailCall(k, kCudaOutOfMemory);
    EXPECT_FALSE(LoadTiny(device.backend.get(), std::string(64, '0')).ok());
    failed = device.runtime->failed();
    device.runtime->FailCall(-1, 0);
    const auto next = LoadTiny(device.backend.get());
    EXPECT_TRUE(next.ok()) << k << ": " << next.status();
  }
  EXPECT_GT(k, 50);
}

TEST(CudaFaultsTest, AnswersARequest) {
  EmulatedDevice device;
  auto model = LoadTiny(device.backend.get());
  ASSERT_TRUE(model.ok()) << model.status();
  const absl::StatusOr<std::string> want = Answer(*model);
  ASSERT_TRUE(want.ok()) << want.status();
  const int64_t live = device.runtime->live_objects();
  int64_t k = 0;
  for (bool failed = true; failed; k += kStep) {
    device.runtime->FailCall(k, kCudaOutOfMemory);
    const absl::StatusOr<std::string> got = Answer(*model);
    failed = device.runtime->failed();
    device.runtime->FailCall(-1, 0);
    if (got.ok()) {
      EXPECT_EQ(*got, *want) << k;
    } else {
      EXPECT_TRUE(failed) << got.status();
      EXPECT_EQ(got.status().code(), absl::StatusCode::kResourceExhausted)
          << k << ": " << got.status();
    }
    const absl::StatusOr<std::string> next = Answer(*model);
    ASSERT_TRUE(next.ok()) << k << ": " << next.status();
    EXPECT_EQ(*next, *want) << k;
    // Pinned memory for results is kept for later ones.
    EXPECT_LE(device.runtime->live_objects(), live + 4) << k;
  }
  EXPECT_GT(k, 100);
  model->reset();
  device.backend.reset();
  EXPECT_EQ(device.runtime->live_objects(), 0);
}

TEST(CudaFaultsTest, HeadsThatAreTooLongAreRefused) {
  EmulatedDevice device;
  AttentionConfig config;
  config.num_heads = config.num_kv_heads = 1;
  config.head_dim = 512;
  const int64_t half = 512 * kPageSize * 4;
  const DeviceBuffer page = device.backend->Allocate(2 * half).value();
  const DeviceBuffer q = device.backend->Allocate(512 * 4).value();
  void* const pages[] = {page.as<void>()};
  const auto rows = device.backend->MakeRowTable({{0, 1, 0, pages}});
  ASSERT_TRUE(rows.ok()) << rows.status();
  const KvView kv = {rows->get(), {0, half, 1}, {}, ComputeType::kF32};
  device.backend->Attention(q.as<float>(), config, kv, {0, 1}, q.as<float>());
  EXPECT_EQ(device.backend->Synchronize(),
            absl::UnimplementedError("attention on a GPU takes heads of at "
                                     "most 256 dims, got 512"));
  EXPECT_TRUE(device.backend->Synchronize().ok());
}

TEST(CudaFaultsTest, ALostDeviceIsToldOnceAndForGood) {
  int64_t k = 0;
  for (bool failed = true; failed; k += 17) {
    EmulatedDevice device;
    int lost = 0;
    device.backend->SetOnLost([&](const absl::Status& status) {
      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
      ++lost;
    });
    const auto model = LoadTiny(device.backend.get());
    ASSERT_TRUE(model.ok()) << model.status();
    device.runtime->FailCall(k, kCudaIllegalAddress);
    const absl::Status status = Answer(*model).status();
    failed = device.runtime->failed();
    if (!failed) break;
    // The answer may have been complete.
    EXPECT_TRUE(status.ok() || absl::IsUnavailable(status)) << k << status;
    EXPECT_EQ(Answer(*model).status().code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(lost, 1) << k;
    EXPECT_EQ(device.backend->Synchronize().code(),
              absl::StatusCode::kUnavailable);
  }
  EXPECT_GT(k, 100);
}

}  // namespace
}  // namespace qk::testing
