// Weights that a backend may take as files store them are on the device what
// the host makes of them, bit for bit.
#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/formats/dequantize.h"
#include "engine/model/weight_reader.h"
#include "tests/engine/backend/compare.h"
#include "tests/engine/backend/conformance.h"
#include "tests/engine/formats/weight_types.h"
#include "tests/engine/model/packing_of.h"

namespace qk::testing {
namespace {

constexpr int kRows = 72, kWidth = 512;

// Blocks of finite values.
std::vector<uint8_t> FiniteBlocks(DType type, Random& random) {
  const int64_t elements = BlockElements(type), bytes = BlockBytes(type);
  std::vector<uint8_t> blocks(kRows * kWidth / elements * bytes);
  std::vector<float> values(elements);
  for (size_t at = 0; at < blocks.size(); at += bytes) {
    do {
      for (int64_t i = 0; i < bytes; ++i) {
        blocks[at + i] = static_cast<uint8_t>(random.Below(256));
      }
      Dequantize(type, &blocks[at], elements, values.data());
    } while (!std::all_of(values.begin(), values.end(),
                          [](float x) { return std::isfinite(x); }));
  }
  return blocks;
}

WeightRef Ref() {
  WeightRef ref;
  ref.name = "m.weight";
  ref.shape = {kRows, kWidth};
  return ref;
}

class StoredWeightsTest : public ::testing::Test {
 protected:
  void Check(const WeightReader& reader, const std::string& what) {
    std::vector<float> want(kRows * kWidth);
    reader.Read(0, kRows, want.data());
    for (const ComputeType type : {ComputeType::kF32, ComputeType::kBF16}) {
      const auto table =
          backend_->PackTable(kRows, kWidth, type, reader.Rows());
      ASSERT_TRUE(table.ok()) << table.status();
      std::vector<int32_t> tokens;
      for (int i = 0; i < kRows; ++i) tokens.push_back(i);
      DeviceVector<float> out(*backend_, want.size());
      backend_->Embed(table->as<void>(), type, tokens, kWidth, out.data());
      ExpectSame(out.Read(), Rounded(want, type), what);
    }
    ExpectSame(Product(reader.Rows()), Product({reader.Rows().floats}),
               what + " in a product");
  }

  std::vector<float> Product(const WeightRows& rows) {
    const auto matrix =
        backend_->PackMatrix(kRows, kWidth, ComputeType::kF32, rows, nullptr);
    EXPECT_TRUE(matrix.ok()) << matrix.status();
    const DeviceVector<float> x(*backend_, Random(5).Normal(3 * kWidth));
    DeviceVector<float> out(*backend_, 3 * kRows);
    backend_->MatMul(x.data(), {{**matrix, out.data()}}, 3);
    return out.Read();
  }

  const std::unique_ptr<Backend> backend_ = MakeTestBackend();
};

TEST_F(StoredWeightsTest, Blocks) {
  Random random(1);
  for (const DType type : kWeightTypes) {
    const std::vector<uint8_t> blocks = FiniteBlocks(type, random);
    const ListedSource source({{"m.weight", type, {kRows, kWidth}, blocks}});
    const auto reader = WeightReader::Open(Ref(), {}, source);
    ASSERT_TRUE(reader.ok()) << reader.status();
    ASSERT_TRUE(reader->Rows().blocks.has_value());
    Check(*reader, std::string(DTypeName(type)));
  }
}

TEST_F(StoredWeightsTest, Int4) {
  for (const Int4Format& format : {kAwq, kGptq, kActOrder}) {
    FileTensors file;
    RandomLayer(kRows, kWidth, format, 2).Put("m", &file);
    const MemorySource source(file);
    const auto reader = WeightReader::Open(Ref(), PackingOf(format), source);
    ASSERT_TRUE(reader.ok()) << reader.status();
    ASSERT_TRUE(reader->Rows().int4.has_value());
    Check(*reader, absl::StrCat("4 bits, act-order ", format.desc_act));
  }
}

}  // namespace
}  // namespace qk::testing
