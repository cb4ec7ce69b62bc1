// The limit that prefill is measured against: oneDNN alone for the weight GEMMs
// of SmolLM2-135M (30 layers, own weights each), and causal QK^T and PV
// (34,560 x T FLOP a token) at the same rate. Prints one JSON line per T:
//
//   onednn_limit f32|bf16 T...          (threads: OMP_NUM_THREADS)
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <dnnl.hpp>
#include <string>
#include <vector>

namespace {

using dnnl::matmul;
using dnnl::memory;

struct Gemm {
  matmul run;
  memory x, w, y;
};

Gemm MakeGemm(dnnl::engine& engine, dnnl::stream& stream,
              memory::data_type type, int rows, int n, int k) {
  const memory::desc x({rows, k}, type, memory::format_tag::ab);
  const memory::desc w({k, n}, type, memory::format_tag::any);
  const memory::desc y({rows, n}, memory::data_type::f32,
                       memory::format_tag::ab);
  const matmul::primitive_desc desc(matmul::desc(x, w, y), engine);
  Gemm gemm = {matmul(desc), memory(desc.src_desc(), engine),
               memory(desc.weights_desc(), engine),
               memory(desc.dst_desc(), engine)};
  memory plain({{k, n}, memory::data_type::f32, memory::format_tag::ba},
               engine);
  float* data = static_cast<float*>(plain.get_data_handle());
  for (int i = 0; i < n * k; ++i) data[i] = static_cast<float>(i % 17) - 8;
  dnnl::reorder(plain, gemm.w).execute(stream, plain, gemm.w);
  memory input({{rows, k}, memory::data_type::f32, memory::format_tag::ab},
               engine);
  data = static_cast<float*>(input.get_data_handle());
  for (int i = 0; i < rows * k; ++i) data[i] = static_cast<float>(i % 13) - 6;
  dnnl::reorder(input, gemm.x).execute(stream, input, gemm.x);
  stream.wait();
  return gemm;
}

void Measure(const std::string& name, memory::data_type type, int tokens) {
  dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  constexpr int kShapes[][2] = {{576, 576}, {192, 576},  {192, 576},
                                {576, 576}, {1536, 576}, {1536, 576},
                                {576, 1536}};
  std::vector<Gemm> gemms;
  double flop = 0;
  for (int layer = 0; layer < 30; ++layer) {
    for (const auto& shape : kShapes) {
      gemms.push_back(
          MakeGemm(engine, stream, type, tokens, shape[0], shape[1]));
      flop += 2.0 * tokens * shape[0] * shape[1];
    }
  }
  double best = 1e9;
  for (int i = 0; i < 5; ++i) {
    const auto start = std::chrono::steady_clock::now();
    for (Gemm& g : gemms) {
      g.run.execute(
          stream,
          {{DNNL_ARG_SRC, g.x}, {DNNL_ARG_WEIGHTS, g.w}, {DNNL_ARG_DST, g.y}});
    }
    stream.wait();
    best = std::min(best, std::chrono::duration<double>(
                              std::chrono::steady_clock::now() - start)
                              .count());
  }
  const double attention = 34560.0 * tokens * tokens / (flop / best);
  std::printf(
      "{\"what\":\"onednn_limit\",\"type\":\"%s\",\"tokens\":%d,"
      "\"gemm_s\":%.5f,\"gflop_per_s\":%.1f,\"limit_s\":%.5f}\n",
      name.c_str(), tokens, best, flop / best / 1e9, best + attention);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: onednn_limit f32|bf16 T...\n");
    return 2;
  }
  const std::string name = argv[1];
  const auto type =
      name == "bf16" ? memory::data_type::bf16 : memory::data_type::f32;
  try {
    for (int i = 2; i < argc; ++i) Measure(name, type, std::atoi(argv[i]));
  } catch (const dnnl::error& error) {
    std::printf(
        "{\"what\":\"onednn_limit\",\"type\":\"%s\",\"error\":"
        "\"this processor has no oneDNN kernel of this type\"}\n",
        name.c_str());
  }
  return 0;
}
