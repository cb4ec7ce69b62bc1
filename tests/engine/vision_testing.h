// Reads the goldens' images (tests/goldens/hf_vision.py), runs towers alone.
#ifndef QKSCOPE_TESTS_ENGINE_VISION_TESTING_H_
#define QKSCOPE_TESTS_ENGINE_VISION_TESTING_H_

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/vision.h"
#include "tests/engine/forward_driver.h"

namespace qk::testing {

inline const char* const kVisionModel = "tiny_qwen2_vl_image";
inline const char* const kPointNames[] = {"hook_q",     "hook_k",     "hook_v",
                                          "hook_rot_q", "hook_rot_k", "hook_z"};

// Reads an I64 tensor of a .safetensors file; no model weight has this type.
inline std::vector<int> ReadIntegers(const std::string& path,
                                     const std::string& name) {
  const auto file = MappedFile::Open(path).value();
  const uint8_t* data = file->bytes().data();
  uint64_t size = 0;
  std::memcpy(&size, data, sizeof(size));
  const std::string text(reinterpret_cast<const char*>(data) + 8, size);
  const JsonDocument header = JsonDocument::Parse("header", text, {}).value();
  const std::vector<int32_t> range =
      Ids(header.root().Get(name)->Get("data_offsets").value());
  std::vector<int64_t> values((range[1] - range[0]) / 8);
  std::memcpy(values.data(), data + 8 + size + range[0], range[1] - range[0]);
  return {values.begin(), values.end()};
}

// Returns the images of "p0" or "p1"; none if the golden has none.
inline std::vector<Image> GoldenImages(const std::string& model,
                                       const std::string& prompt) {
  const std::string path =
      GoldenPath(absl::StrCat(model, "/golden.safetensors"));
  const auto golden = OpenSafetensors(path).value();
  const std::string pixels = absl::StrCat(prompt, "/pixel_values");
  if (golden->Find(pixels) == nullptr) return {};
  const std::vector<int> grids =
      ReadIntegers(path, absl::StrCat(prompt, "/image_grid_thw"));
  const std::vector<float> values = ReadTensor(*golden, pixels);
  int64_t patches = 0;
  for (size_t i = 0; i < grids.size(); i += 3) {
    patches += int64_t{grids[i]} * grids[i + 1] * grids[i + 2];
  }
  const int64_t width = static_cast<int64_t>(values.size()) / patches;
  std::vector<Image> images;
  auto at = values.begin();
  for (size_t i = 0; i < grids.size(); i += 3) {
    Image& image = images.emplace_back();
    image.frames = grids[i];
    image.rows = grids[i + 1];
    image.columns = grids[i + 2];
    const auto end = at + image.patches() * width;
    image.values.assign(at, end);
    at = end;
  }
  return images;
}

// What a tower makes of images: hooks by (layer, point), with the rows of all
// images one after another, and the embeddings.
struct TowerOutput {
  std::map<std::pair<int, int>, std::vector<float>> hooks;
  std::vector<float> embeddings;
};

inline TowerOutput RunTower(const Model& model,
                            const std::vector<Image>& images) {
  TowerOutput out;
  Backend& backend = *model.backend();
  const auto append = [&](std::vector<float>* to, const float* device,
                          int64_t n) {
    const Arrival arrival = backend.Fetch(device, 4 * n);
    EXPECT_TRUE(backend.Synchronize().ok());
    const absl::Span<const float> values = arrival.as<float>();
    to->insert(to->end(), values.begin(), values.end());
  };
  Vision vision(model, images);
  RunSpec no_capture;
  no_capture.capture.off = true;
  Capture capture(model.config(), no_capture, 0);
  int layer = 0;
  vision.AddHook([&](int, HookPoint point, const HeadRows& x) {
    std::vector<float>& all = out.hooks[{layer, static_cast<int>(point)}];
    append(&all, x.data, int64_t{1} * x.rows * x.heads * x.head_dim);
    return HookedTensor{
        .point = point, .span = {}, .x = x, .capture = &capture};
  });
  const absl::Status status = vision.Reserve();
  EXPECT_TRUE(status.ok()) << status;
  HookOps ops(&backend, model.workspace().staging());
  for (; !vision.done(); ++layer) vision.RunLayer(ops);
  int64_t patches = 0;
  for (const Image& image : images) patches += image.patches();
  const int merge = model.config().vision.merge_size;
  append(&out.embeddings, vision.embeddings(),
         patches / (merge * merge) * model.config().hidden_size);
  return out;
}

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_VISION_TESTING_H_
