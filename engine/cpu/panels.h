// Panels of weights: packing them, and multiplying by them in float32. A panel
// holds some columns of the weight, so that those of one k lie side by side.
#ifndef QKSCOPE_ENGINE_CPU_PANELS_H_
#define QKSCOPE_ENGINE_CPU_PANELS_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace qk::cpu {

// The part of a matrix that a block of rows is multiplied by: panels
// [first, last) of a matrix with n columns, and [k, k + depth) of each panel's
// k_total.
struct PanelRange {
  size_t first, last;
  size_t n;
  size_t k, depth, k_total;
};

// The columns of a panel in float32.
size_t F32PanelWidth();
// The name of the instruction set of these kernels, e.g. "AVX2".
std::string HighwayTarget();

// out (rows, n) = a (rows, depth) x the range of weights (panels, k_total,
// width), in its columns. Sums go on from those in out if range.k > 0.
void MultiplyBlock(const float* a, size_t a_stride, size_t rows,
                   const float* weights, const PanelRange& range, float* out);

// Transposes rows (width, k) into a panel (k, width).
void PackPanel(const float* rows, size_t k, float* panel);
// The same in bf16, in pairs: (pairs, width, 2), with zeros after k.
void PackPairPanel(const float* rows, size_t k, size_t width, size_t pairs,
                   uint16_t* panel);

}  // namespace qk::cpu

#endif  // QKSCOPE_ENGINE_CPU_PANELS_H_
