// Weights go to the device as files have them, and are there what the host
// would have made of them.
#include <unistd.h>

#include <initializer_list>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/cuda/matrix.h"
#include "engine/formats/dequantize.h"
#include "engine/model/open_model.h"
#include "engine/model/weight_reader.h"
#include "tests/engine/cuda/backend_testing.h"
#include "tests/engine/cuda/kernel_testing.h"
#include "tests/engine/model/packed_twins.h"
#include "tests/engine/model/packing_of.h"

namespace qk::testing {
namespace {

using Method = Int4Format::Method;

constexpr int64_t kPart = 4096;  // bytes, so that small weights have several

// A weight in a file's form, and its values.
struct Stored {
  int64_t out = 0, in = 0;
  WeightRows rows;
  int64_t bytes = 0;  // that go up
  std::vector<float> values;
};

// Only the file's form may be read.
void ForbidFloats(WeightRows* rows) {
  rows->floats = [](int64_t, int64_t, float*) {
    ADD_FAILURE() << "the host converts";
  };
}

class LoaderTest : public ::testing::Test {
 protected:
  // The weight on the device, as float32.
  std::vector<float> Load(const Stored& weight, ComputeType type) {
    const int64_t n = weight.out * weight.in;
    void* const w = runtime_->Allocate(n * BytesOf(type), nullptr).value();
    runtime_->Clear();
    const absl::Status status =
        loader_->Load(weight.rows, weight.out, weight.in, type, w);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(runtime_->counts().bytes_to_device, weight.bytes);
    std::vector<float> values(n);
    for (int64_t i = 0; i < n; ++i) {
      values[i] = type == ComputeType::kF32
                      ? static_cast<const float*>(w)[i]
                      : FromBF16(static_cast<const uint16_t*>(w)[i]);
    }
    EXPECT_TRUE(runtime_->Free(w, nullptr).ok());
    return values;
  }

  void ExpectLoads(const Stored& weight, const std::string& what) {
    for (const ComputeType type : {ComputeType::kF32, ComputeType::kBF16}) {
      ExpectSame(Load(weight, type), Rounded(weight.values, type), what);
    }
  }

  const std::shared_ptr<cuda_on_cpu::FakeRuntime> runtime_ =
      std::make_shared<cuda_on_cpu::FakeRuntime>();
  std::unique_ptr<cuda::WeightLoader> loader_ =
      std::make_unique<cuda::WeightLoader>(runtime_, 3, kPart);
};

// Rows of blocks of random bytes, but for scales: those are ordinary numbers.
Stored Q8Rows(int64_t out, int64_t in, std::vector<uint8_t>* file) {
  Stored weight{out, in, {}, 0, {}};
  const int64_t row_bytes = in / 32 * 34;
  Random random(static_cast<uint32_t>(out));
  for (int64_t i = 0; i < out * row_bytes; ++i) {
    const int64_t at = i % 34;
    file->push_back(static_cast<uint8_t>(at == 1 ? 0x30 : random.Below(256)));
  }
  weight.bytes = out * row_bytes;
  weight.values.resize(out * in);
  Dequantize(DType::kQ8_0, file->data(), out * in, weight.values.data());
  ForbidFloats(&weight.rows);
  weight.rows.blocks =
      BlockRows{DType::kQ8_0, row_bytes,
                [file, row_bytes](int64_t begin, int64_t end, uint8_t* to) {
                  std::copy(file->begin() + begin * row_bytes,
                            file->begin() + end * row_bytes, to);
                }};
  return weight;
}

TEST_F(LoaderTest, RowsOfBlocks) {
  // One part, several, a last one of one row; rows of more than a part.
  for (const auto& [out, in] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 32}, {15, 256}, {31, 256}, {46, 256}, {3, 4096}, {200, 96}}) {
    std::vector<uint8_t> file;
    ExpectLoads(Q8Rows(out, in, &file), absl::StrCat(out, " x ", in));
  }
}

TEST_F(LoaderTest, WhatIsInTheComputeTypeGoesWhereItBelongs) {
  Random random(3);
  Stored weight{70, 40, {}, 70 * 40 * 4, random.Normal(70 * 40)};
  ForbidFloats(&weight.rows);
  weight.rows.blocks = BlockRows{
      DType::kF32, 40 * 4, [&](int64_t begin, int64_t end, uint8_t* to) {
        std::memcpy(to, &weight.values[begin * 40], (end - begin) * 40 * 4);
      }};
  ExpectLoads(weight, "F32");
  const std::vector<uint16_t> narrow = ToBf16(weight.values);
  weight.values = FromBf16(narrow);
  weight.bytes /= 2;
  weight.rows.blocks = BlockRows{
      DType::kBF16, 40 * 2, [&](int64_t begin, int64_t end, uint8_t* to) {
        std::memcpy(to, &narrow[begin * 40], (end - begin) * 40 * 2);
      }};
  ExpectLoads(weight, "BF16");
  EXPECT_EQ(runtime_->counts().launches, 0);  // of the last load, in bf16
}

// A layer in a file, and the engine's rows of it.
struct Layer {
  Layer(const Int4Format& format, int64_t rows, int64_t in, WeightRef ref)
      : source(File(format, rows, in)),
        reader(WeightReader::Open(ref, PackingOf(format), source).value()) {
    weight.out = ref.shape[0];
    weight.in = in;
    weight.rows = reader.Rows();
    weight.values.resize(weight.out * in);
    reader.Read(0, weight.out, weight.values.data());
    if (weight.rows.int4) ForbidFloats(&weight.rows);
  }

  static MemorySource File(const Int4Format& format, int64_t out, int64_t in) {
    FileTensors file;
    RandomLayer(out, in, format, 7).Put("m", &file);
    return MemorySource(file);
  }

  const MemorySource source;
  const WeightReader reader;
  Stored weight;
};

const Int4Format kFormats[] = {{Method::kAwq, 32, false, false},
                               {Method::kGptq, 32, false, true},
                               {Method::kGptq, 32, true, true},
                               {Method::kGptq, -1, false, false}};

// Words, and a zero and a scale for each output of each group; each part has
// the list of groups again.
int64_t Int4Bytes(const Int4Format& format, int64_t out, int64_t in) {
  const int64_t groups = format.group_size == -1 ? 1 : in / format.group_size;
  const int64_t index = format.desc_act ? in * 4 : 0;
  const int64_t eight = 8 * (in / 2 + 5 * groups);
  const int64_t step = (kPart - index) / eight * 8;
  return out / 8 * eight + (out + step - 1) / step * index;
}

TEST_F(LoaderTest, Int4) {
  for (const Int4Format& format : kFormats) {
    for (const int64_t rows : {8, 24, 136}) {
      WeightRef ref;
      ref.name = "m.weight";
      ref.shape = {rows, 96};
      Layer layer(format, rows, 96, ref);
      ASSERT_TRUE(layer.weight.rows.int4.has_value());
      layer.weight.bytes = Int4Bytes(format, rows, 96);
      ExpectLoads(layer.weight, absl::StrCat(rows, " rows"));
    }
  }
}

// What is not a file's rows one after another: parts of a fused layer, in one
// piece or in blocks, and heads whose rows are interleaved.
TEST_F(LoaderTest, RowsOfAFusedInt4Layer) {
  for (const Int4Format& format : kFormats) {
    WeightRef ref;
    ref.name = "m.weight";
    ref.fused_rows = 96;
    for (const bool blocks : {false, true}) {
      ref.shape = {32, 64};
      ref.first_row = 24;
      ref.block_rows = blocks ? 16 : 0;
      ref.block_stride = blocks ? 48 : 0;
      Layer layer(format, 96, 64, ref);
      ASSERT_TRUE(layer.weight.rows.int4.has_value());
      layer.weight.bytes = Int4Bytes(format, 32, 64);
      ExpectLoads(layer.weight, "fused");
    }
    // Rows that a word does not have together are converted by the host.
    ref.block_rows = ref.block_stride = 0;
    ref.first_row = 4;
    EXPECT_FALSE(Layer(format, 96, 64, ref).weight.rows.int4.has_value());
    ref.first_row = 0;
    ref.interleaved_heads = 2;
    EXPECT_FALSE(Layer(format, 96, 64, ref).weight.rows.int4.has_value());
  }
}

// The same of blocks, which need no whole words.
TEST_F(LoaderTest, RowsOfAFusedTensorOfBlocks) {
  std::vector<uint8_t> file;
  Q8Rows(96, 64, &file);
  const ListedSource source({{"m.weight", DType::kQ8_0, {96, 64}, file}});
  WeightRef fused, blocks, heads;
  fused.name = blocks.name = heads.name = "m.weight";
  fused.shape = {31, 64};
  blocks.shape = {32, 64};
  heads.shape = {96, 64};
  fused.fused_rows = blocks.fused_rows = 96;
  fused.first_row = 5;
  blocks.first_row = 16;
  blocks.block_rows = 16;
  blocks.block_stride = 48;
  heads.interleaved_heads = 8;
  for (const WeightRef& ref : {fused, blocks, heads}) {
    const auto reader = WeightReader::Open(ref, {}, source);
    ASSERT_TRUE(reader.ok()) << reader.status();
    Stored weight{ref.shape[0], 64, reader->Rows(), ref.shape[0] * 68, {}};
    ForbidFloats(&weight.rows);
    weight.values.resize(weight.out * 64);
    reader->Read(0, weight.out, weight.values.data());
    ExpectLoads(weight, absl::StrCat("rows from ", ref.first_row));
  }
}

TEST_F(LoaderTest, WhatTheHostMustConvert) {
  const std::vector<uint8_t> file(96 * 64 * 4);
  const ListedSource source({{"m.weight", DType::kF32, {96, 64}, file},
                             {"m.bias", DType::kF32, {96}, file}});
  WeightRef plain, transposed, offset, vector;
  plain.name = transposed.name = offset.name = "m.weight";
  vector.name = "m.bias";
  plain.shape = offset.shape = {96, 64};
  transposed.shape = {64, 96};
  transposed.transposed = true;
  offset.plus = 1.0f;
  vector.shape = {96};
  const auto has_blocks = [&](const WeightRef& ref) {
    return WeightReader::Open(ref, {}, source)->Rows().blocks.has_value();
  };
  EXPECT_TRUE(has_blocks(plain));
  EXPECT_FALSE(has_blocks(transposed));
  EXPECT_FALSE(has_blocks(offset));
  EXPECT_FALSE(has_blocks(vector));
}

TEST_F(LoaderTest, EveryCallFailsOnce) {
  std::vector<uint8_t> file;
  const Stored q8 = Q8Rows(46, 256, &file);
  WeightRef ref;
  ref.name = "m.weight";
  ref.shape = {136, 96};
  Layer int4(kFormats[2], 136, 96, ref);
  int4.weight.bytes = Int4Bytes(kFormats[2], 136, 96);
  for (const Stored* weight :
       std::initializer_list<const Stored*>{&q8, &int4.weight}) {
    int failures = 0;
    for (bool failed = true; failed; ++failures) {
      loader_ = std::make_unique<cuda::WeightLoader>(runtime_, 2, kPart);
      void* const w =
          runtime_->Allocate(weight->out * weight->in * 2, nullptr).value();
      runtime_->FailCall(failures, kCudaOutOfMemory);
      const absl::Status status = loader_->Load(
          weight->rows, weight->out, weight->in, ComputeType::kBF16, w);
      failed = runtime_->failed();
      runtime_->FailCall(-1, 0);
      EXPECT_EQ(status.code(), failed ? absl::StatusCode::kResourceExhausted
                                      : absl::StatusCode::kOk)
          << failures << ": " << status;
      EXPECT_TRUE(runtime_->Free(w, nullptr).ok());
      ExpectSame(Load(*weight, ComputeType::kBF16),
                 Rounded(weight->values, ComputeType::kBF16), "the next load");
      loader_.reset();
      EXPECT_EQ(runtime_->live_objects(), 0) << failures;
    }
    EXPECT_GT(failures, 15);
  }
}

// --- whole models

absl::StatusOr<std::shared_ptr<const Model>> LoadModel(OpenModel open,
                                                       bool scan,
                                                       Backend* backend) {
  ModelOptions options;
  options.compute = ComputeType::kBF16;
  options.kv_cache_bytes = 1 << 20;
  options.max_rows_per_pass = 64;
  options.check_weights_below = scan ? int64_t{1} << 40 : 0;
  return Model::Load(std::move(open), "model", options, backend);
}

// The bytes that go up in a load of the model.
int64_t LoadedBytes(const std::string& path, bool scan) {
  EmulatedDevice device;
  const auto model =
      LoadModel(OpenModelFiles(path, {}).value(), scan, device.backend.get());
  EXPECT_TRUE(model.ok()) << model.status();
  return device.runtime->counts().bytes_to_device;
}

// What the file has: vectors as float32, all else as it is.
int64_t StoredBytes(const TensorSource& source) {
  int64_t bytes = 0;
  for (const TensorInfo& tensor : source.tensors()) {
    bytes += tensor.shape.size() == 1
                 ? 4 * tensor.shape[0]
                 : static_cast<int64_t>(tensor.data.size());
  }
  return bytes;
}

// A tied head goes up twice.
int64_t TiedBytes(const OpenModel& open) {
  const std::string& head = open.architecture.lm_head.name;
  if (head != open.architecture.embedding.name) return 0;
  return static_cast<int64_t>(open.source->Find(head)->data.size());
}

TEST(WeightLoadingTest, AGgufFileGoesUpAsItIs) {
  for (const char* name : {"llama_q8_0", "qwen2_f16", "tiny_llama_gqa"}) {
    const std::string path =
        GoldenPath(absl::StrCat("gguf/", name, "/model.gguf"));
    const OpenModel open = OpenModelFiles(path, {}).value();
    const int64_t want = StoredBytes(*open.source) + TiedBytes(open);
    EXPECT_EQ(LoadedBytes(path, false), want) << name;
    // A load that looks at the values has them from the host.
    const int64_t scanned = LoadedBytes(path, true);
    if (std::string(name) == "llama_q8_0") {
      EXPECT_GT(scanned, 3 * want);
    } else {
      EXPECT_GE(scanned, want);
    }
  }
}

// The bytes that a tensor of a packed checkpoint becomes.
int64_t PackedBytes(const TensorInfo& tensor, absl::string_view model) {
  const auto bytes = static_cast<int64_t>(tensor.data.size());
  const auto is = [&](const char* part) {
    return absl::EndsWith(tensor.name, part);
  };
  // A zero has a byte, a scale four.
  if (is(".qzeros") || is(".scales")) return 2 * bytes;
  if (is(".g_idx")) return absl::StrContains(model, "_g32_sym_desc") * bytes;
  // GPTQ's writers add biases that no model has.
  if (is(".bias") && absl::StrContains(model, "gptq")) return 0;
  return tensor.shape.size() == 1 ? 4 * tensor.shape[0] : bytes;
}

TEST(WeightLoadingTest, PackedLayersGoUpAsTheyAre) {
  for (const char* name :
       {"tiny_awq_g32", "tiny_awq_qwen2", "tiny_gptq_g32_sym",
        "tiny_gptq_g32_sym_desc", "tiny_gptq_channel_asym_desc"}) {
    const std::string path = GoldenPath(name);
    const OpenModel open = OpenModelFiles(path, {}).value();
    int64_t want = 0, words = 0;
    for (const TensorInfo& tensor : open.source->tensors()) {
      want += PackedBytes(tensor, name);
      if (absl::EndsWith(tensor.name, ".qweight")) {
        words += static_cast<int64_t>(tensor.data.size());
      }
    }
    want += TiedBytes(open);
    EXPECT_EQ(LoadedBytes(path, false), want) << name;
    // As float32, they are eight times as much.
    EXPECT_GT(LoadedBytes(path, true), 7 * words) << name;
    EXPECT_LT(want, 7 * words) << name;
  }
}

TEST(WeightLoadingTest, AFileThatIsCutIsNoticed) {
  const TempFolder folder;
  const std::string file = ReadFile(GoldenPath("gguf/llama_q8_0/model.gguf"));
  const std::string path = folder.Write("model.gguf", file);
  EmulatedDevice device;
  OpenModel open = OpenModelFiles(path, {}).value();
  ASSERT_EQ(truncate(path.c_str(), 4096), 0);
  const auto model = LoadModel(std::move(open), false, device.backend.get());
  EXPECT_EQ(model.status().code(), absl::StatusCode::kUnavailable)
      << model.status();
  EXPECT_TRUE(
      LoadModel(
          OpenModelFiles(GoldenPath("gguf/llama_q8_0/model.gguf"), {}).value(),
          false, device.backend.get())
          .ok());
}

}  // namespace
}  // namespace qk::testing
