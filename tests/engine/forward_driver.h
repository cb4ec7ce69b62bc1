// Runs one sequence with forced decode tokens, as the goldens do.
#ifndef QKSCOPE_TESTS_ENGINE_FORWARD_DRIVER_H_
#define QKSCOPE_TESTS_ENGINE_FORWARD_DRIVER_H_

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/check.h"
#include "engine/formats/json.h"
#include "engine/formats/mapped_file.h"
#include "tests/engine/test_util.h"

namespace qk::testing {

struct GoldenPrompt {
  std::vector<int32_t> ids;
  std::vector<int32_t> decode_ids;
};

inline std::vector<int32_t> Ids(const JsonValue& array) {
  std::vector<int32_t> ids;
  const absl::Status status =
      array.ForEachElement([&](JsonValue element) -> absl::Status {
        QK_ASSIGN_OR_RETURN(const int64_t id, element.AsInt64());
        ids.push_back(static_cast<int32_t>(id));
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
  return ids;
}

inline GoldenPrompt ReadPrompt(const JsonValue& prompt) {
  return {Ids(prompt.Get("ids").value()),
          Ids(prompt.Get("decode_ids").value())};
}

inline JsonDocument ReadJson(const std::string& path) {
  auto file = MappedFile::Open(path);
  EXPECT_TRUE(file.ok()) << file.status();
  return JsonDocument::Parse("golden", (*file)->text(), {}).value();
}

// A sequence that is driven step by step. It is not a Run: tokens are forced.
class Driven {
 public:
  Driven(std::shared_ptr<const Model> model, GoldenPrompt prompt,
         std::vector<DisruptionRule> rules, CaptureSpec capture,
         std::vector<Image> images = {})
      : prompt_(std::move(prompt)) {
    spec_.tokens = prompt_.ids;
    spec_.images = std::move(images);
    spec_.arms.push_back({"arm", std::move(model), std::move(rules)});
    spec_.capture = std::move(capture);
    spec_.generate.emplace();
    spec_.generate->max_new_tokens =
        static_cast<int>(prompt_.decode_ids.size());
    sequence_ = std::make_unique<Sequence>(spec_, 0, cancelled_, &recorder);
    const absl::Status status = sequence_->Reserve();
    EXPECT_TRUE(status.ok()) << status;
  }

  // Asks for the logits of these absolute positions in the next pass.
  void Request(const std::vector<int>& positions) {
    sequence_->logits_requests.clear();
    for (int position : positions) {
      LogitsRequest& request = sequence_->logits_requests.emplace_back();
      request.position = position;
      request.want_logits = true;
    }
  }

  Sequence* sequence() { return sequence_.get(); }
  const GoldenPrompt& prompt() const { return prompt_; }

  // Returns the logits of all requests, one row after another.
  std::vector<float> Logits() const {
    std::vector<float> all;
    for (const LogitsResult& result : sequence_->logits_results) {
      all.insert(all.end(), result.logits.begin(), result.logits.end());
    }
    return all;
  }

  Recorder recorder;

 private:
  GoldenPrompt prompt_;
  RunSpec spec_;
  std::atomic<bool> cancelled_{false};
  std::unique_ptr<Sequence> sequence_;
};

inline void RunPass(const std::vector<Driven*>& batch) {
  std::vector<Sequence*> sequences;
  sequences.reserve(batch.size());
  for (Driven* driven : batch) sequences.push_back(driven->sequence());
  Pass pass(sequences[0]->model(), sequences);
  while (!pass.done()) pass.RunStep();
  const absl::Status status = pass.Finish();
  ASSERT_TRUE(status.ok()) << status;
}

inline std::shared_ptr<const Model> LoadGolden(const std::string& name,
                                               ComputeType compute,
                                               Backend* backend) {
  ModelOptions options;
  options.compute = compute;
  options.kv_cache_bytes = 64 << 20;
  options.max_rows_per_pass = 4096;
  options.check_weights_below = 0;  // as large files are loaded
  auto model = Model::Load(GoldenPath(name), options, backend);
  EXPECT_TRUE(model.ok()) << model.status();
  return model.ok() ? *model : nullptr;
}

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_FORWARD_DRIVER_H_
