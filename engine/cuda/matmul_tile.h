// What the kernels of both compute types share: which part of a product a block
// has, and where its results go.
#ifndef QKSCOPE_ENGINE_CUDA_MATMUL_TILE_H_
#define QKSCOPE_ENGINE_CUDA_MATMUL_TILE_H_

#include "engine/cuda/device.h"
#include "engine/cuda/matmul.h"

namespace qk::cuda {

struct MatMulArguments {
  const void* x;
  MatMulShape shape;
  float* partial;  // (slices, rows, all columns); null: a block does all slices
};

struct RowRange {
  int64_t first;  // in x and out
  int rows;
};
__device__ inline RowRange RowsOf(const MatMulShape& shape) {
  if (shape.range == nullptr) return {0, shape.rows};
  return {shape.range[0], shape.range[1] - shape.range[0]};
}

// Columns of one product.
struct ColumnTile {
  Product product;
  int column;  // the first, in the product
  int offset;  // of the product's column 0 among all
};

// The block's columns: tiles of kColumns, product after product.
template <int kColumns>
__device__ ColumnTile FindColumns(const MatMulShape& shape, int tile) {
  int offset = 0, p = 0;
  for (; p + 1 < shape.products; ++p) {
    const int tiles = Blocks(shape.list[p].out_features, kColumns);
    if (tile < tiles) break;
    tile -= tiles;
    offset += shape.list[p].out_features;
  }
  return {shape.list[p], tile * kColumns, offset};
}

template <int kColumns>
int ColumnTiles(const MatMulShape& shape) {
  int tiles = 0;
  for (int p = 0; p < shape.products; ++p) {
    tiles += Blocks(shape.list[p].out_features, kColumns);
  }
  return tiles;
}

// Writes the sum over all slices.
__device__ inline void WriteProduct(const Product& product, int64_t row,
                                    int column, float total) {
  if (product.bias != nullptr) total += product.bias[column];
  float& out = product.out[row * product.out_features + column];
  out = product.add ? out + total : total;
}

// Writes what a block has of one element: the sum over all slices, or over its
// own.
__device__ inline void WriteElement(const MatMulArguments& a,
                                    const ColumnTile& columns, int all_columns,
                                    const RowRange& range, int row, int column,
                                    float total) {
  if (row >= range.rows || column >= columns.product.out_features) return;
  if (a.partial == nullptr) {
    WriteProduct(columns.product, range.first + row, column, total);
    return;
  }
  const int64_t at = int64_t{blockIdx.z} * a.shape.rows + row;
  a.partial[at * all_columns + columns.offset + column] = total;
}

// Launches the second kernel of a spread product.
void AddSlices(const MatMulArguments& arguments, Stream stream);

// matmul_f32.cu
void MatMulF32(const MatMulArguments& arguments, MatMulTile tile,
               Stream stream);

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_MATMUL_TILE_H_
