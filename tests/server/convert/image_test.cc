// Compares decoded and resized PNG and JPEG files with PIL's, and patches with
// those of transformers (tests/goldens/make_image_goldens.py).
#include <fstream>
#include <iterator>
#include <string>

#include "absl/strings/match.h"
#include "engine/base/sha256.h"
#include "server/convert/image_decode.h"
#include "server/convert/image_patches.h"
#include "tests/engine/forward_driver.h"

namespace qk::testing {
namespace {

std::string ReadImage(const std::string& name) {
  std::ifstream file(GoldenPath("images/" + name), std::ios::binary);
  EXPECT_TRUE(file.good()) << name;
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string Digest(const Pixels& pixels) {
  Sha256 sha;
  sha.Update(pixels.rgb.data(), pixels.rgb.size());
  return sha.FinishHex();
}

ImageSize Size(const JsonValue& object, const char* key) {
  const std::vector<int32_t> size = Ids(object.Get(key).value());
  return {size[0], size[1]};
}

class ImageTest : public ::testing::Test {
 protected:
  ImageTest() : json_(ReadJson(GoldenPath("images/golden.json"))) {}
  const JsonDocument json_;
};

TEST_F(ImageTest, PixelsEqualPils) {
  int files = 0;
  const absl::Status status = json_.root().Get("files")->ForEachMember(
      [&](absl::string_view name, JsonValue want) {
        const auto pixels = DecodeImage(ReadImage(std::string(name)));
        EXPECT_TRUE(pixels.ok()) << name << ": " << pixels.status();
        if (!pixels.ok()) return absl::OkStatus();
        EXPECT_EQ((ImageSize{pixels->width, pixels->height}),
                  Size(want, "size"));
        EXPECT_EQ(Digest(*pixels), want.GetString("rgb").value()) << name;
        ++files;
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(files, 9);
}

TEST_F(ImageTest, ResizesEqualPils) {
  const Pixels image = DecodeImage(ReadImage("rgb.png")).value();
  int sizes = 0;
  const absl::Status status =
      json_.root().Get("resizes")->ForEachElement([&](JsonValue want) {
        const ImageSize size = Size(want, "size");
        EXPECT_EQ(Digest(ResizeBicubic(image, size)),
                  want.GetString("rgb").value())
            << size.width << " x " << size.height;
        ++sizes;
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(sizes, 4);
}

TEST_F(ImageTest, SmartResizeIsTransformers) {
  const absl::Status status =
      json_.root().Get("smart_resize")->ForEachElement([&](JsonValue want) {
        EXPECT_EQ(
            SmartResize(Size(want, "size"), 28, 56 * 56, 14 * 14 * 4 * 1280)
                .value(),
            Size(want, "resized"));
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_FALSE(SmartResize({2010, 10}, 28, 56 * 56, 1 << 20).ok());
}

TEST_F(ImageTest, PatchesEqualTransformers) {
  VisionConfig config;
  config.channels = 3;
  config.temporal_patch_size = 2;
  config.patch_size = 14;
  config.merge_size = 2;
  const Pixels pixels = DecodeImage(ReadImage("rgb.png")).value();
  const ImageSize size =
      SmartResize({pixels.width, pixels.height}, 28, 56 * 56, 28 * 28 * 1280)
          .value();
  const Image image = MakePatches(ResizeBicubic(pixels, size), config);
  const std::vector<int32_t> grid = Ids(json_.root().Get("grid").value());
  EXPECT_EQ((std::vector<int32_t>{image.frames, image.rows, image.columns}),
            grid);
  const auto golden =
      OpenSafetensors(GoldenPath("images/patches.safetensors")).value();
  const std::vector<float> want = ReadTensor(*golden, "patches");
  ASSERT_EQ(image.values.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_NEAR(image.values[i], want[i], 1e-6) << i;
  }
}

TEST_F(ImageTest, PatchesAreNormalisedAsTheModelSays) {
  VisionConfig config;
  config.channels = 3;
  config.temporal_patch_size = config.patch_size = config.merge_size = 1;
  config.processing.mean = {0.5, 0, 0.25};
  config.processing.deviation = {0.5, 1, 2};
  const Pixels pixels = {2, 1, {0, 51, 255, 255, 102, 51}};
  const std::vector<float> want = {-1, 0.2f, 0.375f, 1, 0.4f, -0.025f};
  const Image image = MakePatches(pixels, config);
  ASSERT_EQ(image.values.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_NEAR(image.values[i], want[i], 1e-6) << i;
  }
}

TEST_F(ImageTest, DamagedFilesAreRefused) {
  for (const char* name :
       {"rgb.png", "palette.png", "yuv420.jpg", "progressive.jpg"}) {
    const std::string file = ReadImage(name);
    for (size_t size = 0; size + 2 < file.size(); ++size) {
      EXPECT_FALSE(DecodeImage(file.substr(0, size)).ok()) << name << size;
    }
    // Changes byte after byte: this gives an error or a picture, never a crash.
    for (size_t i = 0; i < file.size(); ++i) {
      std::string flipped = file;
      flipped[i] = static_cast<char>(flipped[i] ^ 0x41);
      DecodeImage(flipped).IgnoreError();
    }
  }
  EXPECT_EQ(DecodeImage("GIF89a").status().message(), "not a PNG or JPEG file");
}

TEST_F(ImageTest, LargeFilesAreRefusedBeforeTheyAreDecoded) {
  // SOF's height and width come after FF C0, the length and the precision.
  std::string jpeg = ReadImage("yuv420.jpg");
  const size_t sof = jpeg.find("\xff\xc0");
  ASSERT_NE(sof, std::string::npos);
  jpeg.replace(sof + 5, 4, std::string("\x40\x00\x40\x00", 4));
  EXPECT_EQ(DecodeImage(jpeg).status().message(),
            "got 16384 x 16384 pixels, limit 16777216 and sides of 16384");
}

}  // namespace
}  // namespace qk::testing
