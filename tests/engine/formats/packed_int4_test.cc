// Compares PackedInt4 with checkpoints that quantize.py made and with layers
// packed here, and tests files that are wrong.
#include "engine/formats/packed_int4.h"

#include <array>
#include <cmath>

#include "engine/base/crc32c.h"
#include "engine/formats/dequantize.h"
#include "engine/formats/json.h"
#include "tests/engine/model/packed_testing.h"

namespace qk::testing {
namespace {

using Method = Int4Format::Method;

std::string Folder(const std::string& name) {
  return absl::StrCat(QK_SOURCE_DIR, "/tests/goldens/", name);
}

std::vector<float> ReadRows(const PackedInt4& packed, int64_t begin,
                            int64_t end) {
  std::vector<float> rows((end - begin) * packed.in_features(), -1.0f);
  packed.Read(begin, end, rows.data());
  return rows;
}

absl::string_view Bytes(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()),
          values.size() * sizeof(float)};
}

class GoldenLayersTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    config_ = ReadFile(Folder(GetParam()) + "/config.json");
    const auto document = JsonDocument::Parse("config", config_, {}).value();
    const JsonValue q =
        document.root().GetObject("quantization_config").value();
    format_.group_size = q.GetInt64("group_size").value();
    if (q.GetString("quant_method").value() == "gptq") {
      format_.method = Method::kGptq;
      format_.zeros_minus_one = true;
      format_.desc_act = q.GetBoolOr("desc_act", false).value();
    }
    source_ = OpenSafetensors(Folder(GetParam())).value();
  }

  absl::StatusOr<PackedInt4> OpenModule(const std::string& module) {
    const TensorInfo* words = source_->Find(module + ".qweight");
    if (words == nullptr) return absl::NotFoundError(module);
    const bool gptq = format_.method == Method::kGptq;
    out_ = words->shape[1] * (gptq ? 1 : 8);
    in_ = words->shape[0] * (gptq ? 8 : 1);
    return PackedInt4::Open(*source_, module, out_, in_, format_);
  }

  std::string config_;
  Int4Format format_;
  std::unique_ptr<TensorSource> source_;
  int64_t out_ = 0, in_ = 0;
};

TEST_P(GoldenLayersTest, EveryLayerBitForBit) {
  const std::string text = ReadFile(Folder(GetParam()) + "/golden.json");
  JsonLimits limits;
  limits.max_bytes = 16 << 20;
  const auto golden = JsonDocument::Parse("golden", text, limits).value();
  const JsonValue checksums = golden.root()
                                  .GetObject("notes")
                                  .value()
                                  .GetObject("dequantized_crc32c")
                                  .value();
  const auto dequantized =
      OpenSafetensors(Folder(GetParam()) + "/dequantized.safetensors").value();
  EXPECT_GE(checksums.size(), 7);
  const absl::Status status = checksums.ForEachMember(
      [&](absl::string_view module, JsonValue checksum) -> absl::Status {
        const auto packed = OpenModule(std::string(module));
        if (!packed.ok()) return packed.status();
        const std::vector<float> weight = ReadRows(*packed, 0, out_);
        EXPECT_EQ(Crc32c(weight.data(), weight.size() * sizeof(float)),
                  checksum.AsUint64().value())
            << module;
        const TensorInfo* want =
            dequantized->Find(absl::StrCat(module, ".weight"));
        if (want == nullptr) return absl::OkStatus();
        EXPECT_EQ(want->shape, (std::vector<int64_t>{out_, in_}));
        std::vector<float> values(out_ * in_);
        Dequantize(want->dtype, want->data.data(), out_ * in_, values.data());
        EXPECT_EQ(Bytes(weight), Bytes(values)) << module;
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
}

INSTANTIATE_TEST_SUITE_P(
    Goldens, GoldenLayersTest,
    ::testing::Values("tiny_awq_channel", "tiny_awq_g32", "tiny_awq_g64",
                      "tiny_awq_g128", "tiny_awq_qwen2",
                      "tiny_gptq_channel_asym_desc", "tiny_gptq_channel_sym",
                      "tiny_gptq_g128_asym_desc", "tiny_gptq_g32_asym",
                      "tiny_gptq_g32_sym", "tiny_gptq_g32_sym_desc",
                      "tiny_gptq_g64_sym"),
    [](const auto& info) { return std::string(info.param); });

// AWQ, GPTQ v1, v1 with act-order, v2.
std::vector<Int4Format> Formats(int64_t group_size) {
  return {{Method::kAwq, group_size, false, false},
          {Method::kGptq, group_size, false, true},
          {Method::kGptq, group_size, true, true},
          {Method::kGptq, group_size, false, false}};
}

// The shapes are wider than a tile of the reader, have groups that do not
// divide a tile, and leave a partial tile.
TEST(PackedInt4Test, AnyRowsOfAnyShape) {
  uint32_t seed = 0;
  for (const auto& [out, in, size] :
       std::vector<std::array<int64_t, 3>>{{8, 8, 8},
                                           {40, 1096, -1},
                                           {24, 1152, 384},
                                           {40, 1120, 32},
                                           {48, 512, 64}}) {
    for (const Int4Format& format : Formats(size)) {
      const RandomLayer layer(out, in, format, ++seed);
      FileTensors file;
      layer.Put("m", &file);
      const MemorySource source(file);
      const auto packed = PackedInt4::Open(source, "m", out, in, format);
      ASSERT_TRUE(packed.ok()) << packed.status();
      const std::vector<float> want = layer.Weight();
      for (const auto& [begin, end] : std::vector<std::pair<int64_t, int64_t>>{
               {0, out}, {3, 5}, {7, 8}, {5, out}, {out, out}, {1, 2}}) {
        if (end > out) continue;
        const std::vector<float> rows = ReadRows(*packed, begin, end);
        EXPECT_EQ(Bytes(rows),
                  Bytes({want.begin() + begin * in, want.begin() + end * in}))
            << out << " " << in << " " << size << " [" << begin << ", " << end;
      }
    }
  }
}

absl::StatusOr<PackedInt4> Open(const TensorSource& source,
                                const Int4Format& format) {
  return PackedInt4::Open(source, "m", kOut, kIn, format);
}

TEST(PackedInt4Test, ScalesOfOtherTypes) {
  FileTensors file = Good(kAwq);
  const std::vector<float> scales(2 * kOut, 0.3f);
  file["m.scales"] = MakeTensor("F32", {2, kOut}, scales);
  const MemorySource f32_source(file);
  const auto f32 = Open(f32_source, kAwq);
  ASSERT_TRUE(f32.ok()) << f32.status();
  const std::vector<float> wide = ReadRows(*f32, 0, kOut);
  for (float w : wide) EXPECT_EQ(w, std::round(w / 0.3f) * 0.3f);
  file["m.scales"] = MakeTensor(
      "BF16", {2, kOut}, std::vector<uint16_t>(2 * kOut, RoundToBF16(0.5f)));
  const MemorySource bf16_source(file);
  const auto bf16 = Open(bf16_source, kAwq);
  ASSERT_TRUE(bf16.ok()) << bf16.status();
  const std::vector<float> half = ReadRows(*bf16, 0, kOut);
  for (size_t i = 0; i < half.size(); ++i) {
    EXPECT_EQ(half[i], std::round(wide[i] / 0.3f) * 0.5f);
  }
}

TEST(PackedInt4Test, NanScaleGivesNanOfItsGroupAlone) {
  FileTensors file = Good(kGptq);
  const uint16_t nan = 0x7E00;
  std::memcpy(file["m.scales"].data.data() + 2 * (kOut + 3), &nan, 2);
  const MemorySource source(file);
  const auto packed = Open(source, kGptq);
  ASSERT_TRUE(packed.ok()) << packed.status();
  const std::vector<float> weight = ReadRows(*packed, 0, kOut);
  for (int64_t o = 0; o < kOut; ++o) {
    for (int64_t i = 0; i < kIn; ++i) {
      EXPECT_EQ(std::isnan(weight[o * kIn + i]), o == 3 && i >= 32);
    }
  }
}

TEST(PackedInt4Test, GroupIndexMayBeLeftOutWithoutActOrder) {
  FileTensors file = Good(kGptq);
  const MemorySource with_source(file);
  const auto with = Open(with_source, kGptq);
  file.erase("m.g_idx");
  const MemorySource without_source(file);
  const auto without = Open(without_source, kGptq);
  ASSERT_TRUE(with.ok() && without.ok()) << without.status();
  EXPECT_EQ(Bytes(ReadRows(*with, 0, kOut)),
            Bytes(ReadRows(*without, 0, kOut)));
  EXPECT_EQ(with->tensor_names().size(), 4u);
  EXPECT_EQ(without->tensor_names().size(), 3u);
}

// g_idx decides about act-order, not the configuration.
TEST(PackedInt4Test, GroupIndexIsFollowedInAnyCase) {
  const MemorySource source(Good(kActOrder));
  const auto packed = Open(source, kGptq);
  ASSERT_TRUE(packed.ok()) << packed.status();
  EXPECT_EQ(Bytes(ReadRows(*packed, 0, kOut)),
            Bytes(RandomLayer(kOut, kIn, kActOrder, 1).Weight()));
}

TEST(PackedInt4Test, NamesOfPackedTensors) {
  EXPECT_TRUE(IsPackedInt4Name("a.qweight"));
  EXPECT_TRUE(IsPackedInt4Name("a.qzeros"));
  EXPECT_TRUE(IsPackedInt4Name("a.g_idx"));
  EXPECT_FALSE(IsPackedInt4Name("a.position_ids"));
  FileTensors file = Good(kAwq);
  EXPECT_TRUE(HasPackedInt4(MemorySource(file), "m"));
  EXPECT_FALSE(HasPackedInt4(MemorySource(file), "n"));
  file.erase("m.qweight");
  EXPECT_TRUE(HasPackedInt4(MemorySource(file), "m"));
}

}  // namespace
}  // namespace qk::testing
