#include "engine/formats/dequantize.h"

#include <cstdlib>

#include "engine/base/check.h"
#include "engine/formats/quant_blocks.h"

namespace qk {
namespace {

using namespace quant;  // NOLINT: one name per DType

// Calls visit(Block()) with the block type of `dtype`.
template <typename Visitor>
QK_INLINE auto WithBlock(DType dtype, Visitor visit) {
  switch (dtype) {
    case DType::kF32:
      return visit(F32());
    case DType::kF16:
      return visit(F16());
    case DType::kBF16:
      return visit(BF16());
    case DType::kI32:
      return visit(I32());
    case DType::kQ4_0:
      return visit(Q4_0());
    case DType::kQ4_1:
      return visit(Q4_1());
    case DType::kQ5_0:
      return visit(Q5_0());
    case DType::kQ5_1:
      return visit(Q5_1());
    case DType::kQ8_0:
      return visit(Q8_0());
    case DType::kQ2_K:
      return visit(Q2_K());
    case DType::kQ3_K:
      return visit(Q3_K());
    case DType::kQ4_K:
      return visit(Q4_K());
    case DType::kQ5_K:
      return visit(Q5_K());
    case DType::kQ6_K:
      return visit(Q6_K());
    case DType::kIQ4_NL:
      return visit(IQ4_NL());
    case DType::kIQ4_XS:
      return visit(IQ4_XS());
    case DType::kMXFP4:
      return visit(MXFP4());
  }
  std::abort();
}

QK_CLONES void DequantizeBlocks(DType dtype, const uint8_t* __restrict src,
                                int64_t blocks, float* __restrict dst) {
  WithBlock(
      dtype, [&](auto block) __attribute__((always_inline)) {
        using Block = decltype(block);
        for (int64_t i = 0; i < blocks; ++i) {
          Block::Run(src + i * Block::kBytes, dst + i * Block::kElements);
        }
      });
}

}  // namespace

int64_t BlockElements(DType dtype) {
  return WithBlock(
      dtype, [](auto block) -> int64_t { return decltype(block)::kElements; });
}

int64_t BlockBytes(DType dtype) {
  return WithBlock(
      dtype, [](auto block) -> int64_t { return decltype(block)::kBytes; });
}

absl::string_view DTypeName(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "F32";
    case DType::kF16:
      return "F16";
    case DType::kBF16:
      return "BF16";
    case DType::kI32:
      return "I32";
    case DType::kQ4_0:
      return "Q4_0";
    case DType::kQ4_1:
      return "Q4_1";
    case DType::kQ5_0:
      return "Q5_0";
    case DType::kQ5_1:
      return "Q5_1";
    case DType::kQ8_0:
      return "Q8_0";
    case DType::kQ2_K:
      return "Q2_K";
    case DType::kQ3_K:
      return "Q3_K";
    case DType::kQ4_K:
      return "Q4_K";
    case DType::kQ5_K:
      return "Q5_K";
    case DType::kQ6_K:
      return "Q6_K";
    case DType::kIQ4_NL:
      return "IQ4_NL";
    case DType::kIQ4_XS:
      return "IQ4_XS";
    case DType::kMXFP4:
      return "MXFP4";
  }
  std::abort();
}

void Dequantize(DType dtype, const uint8_t* src, int64_t elements, float* dst) {
  QK_CHECK(dtype != DType::kI32);
  const int64_t per_block = BlockElements(dtype);
  QK_CHECK(elements >= 0 && elements % per_block == 0);
  DequantizeBlocks(dtype, src, elements / per_block, dst);
}

}  // namespace qk
