// Panels of weights: packing them, and multiplying by them in float32. A panel
// holds some columns of the weight, so that those of one k lie side by side.
#ifndef QKSCOPE_ENGINE_CPU_PANELS_H_
#define QKSCOPE_ENGINE_CPU_PANELS_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace qk::cpu {

// What a product does with c, where its sums go.
enum class Into {
  kSet,       // c = the sum
  kContinue,  // the chain of each sum goes on from c
  kAdd,       // c += the sum
};

// The part of a matrix that a block of rows is multiplied by: panels
// [first, last), and [k, k + depth) of each panel's k_total.
struct PanelRange {
  size_t first, last;
  size_t k, depth, k_total;
};

// The columns of a panel in float32.
size_t F32PanelWidth();
// The name of the instruction set of these kernels, e.g. "AVX2".
std::string HighwayTarget();

// c (rows, columns of the range) = a (rows, depth) x the range of weights
// (panels, k_total, width) [+ bias (columns of the range)].
void MultiplyBlock(const float* a, size_t a_stride, size_t rows,
                   const float* weights, const PanelRange& range, Into into,
                   const float* bias, float* c, size_t c_stride);

// Transposes rows (width, k) into a panel (k, width).
void PackPanel(const float* rows, size_t k, float* panel);
// The same in bf16, in pairs: (pairs, width, 2), with zeros after k.
void PackPairPanel(const float* rows, size_t k, size_t width, size_t pairs,
                   uint16_t* panel);

}  // namespace qk::cpu

#endif  // QKSCOPE_ENGINE_CPU_PANELS_H_
