// A queue of a GPU's work. Whatever is in one stream runs in its order.
#ifndef QKSCOPE_ENGINE_CUDA_STREAM_H_
#define QKSCOPE_ENGINE_CUDA_STREAM_H_

struct CUstream_st;

namespace qk::cuda {

using Stream = CUstream_st*;  // CUDA's cudaStream_t

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_STREAM_H_
