// The limit against which prefill is measured: oneDNN alone for a model's
// weight GEMMs (own weights in each layer), and causal QK^T and PV at the same
// rate. Prints one JSON line per T:
//
//   onednn_limit f32|bf16 T... [layers=30 attention=34560 shapes=NxK,NxK...]
//
// shapes: outputs x inputs of a layer's GEMMs; attention: FLOP per token and T.
// The defaults are SmolLM2-135M's. OMP_NUM_THREADS sets the threads.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <dnnl.hpp>
#include <string>
#include <utility>
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

struct Shapes {
  int layers = 30;
  double attention = 34560;
  std::vector<std::pair<int, int>> gemms = {
      {576, 576},  {192, 576},  {192, 576}, {576, 576},
      {1536, 576}, {1536, 576}, {576, 1536}};
};

void Measure(const std::string& name, memory::data_type type,
             const Shapes& shapes, int tokens) {
  dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  std::vector<Gemm> gemms;
  double flop = 0;
  for (int layer = 0; layer < shapes.layers; ++layer) {
    for (const auto& [n, k] : shapes.gemms) {
      gemms.push_back(MakeGemm(engine, stream, type, tokens, n, k));
      flop += 2.0 * tokens * n * k;
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
  const double attention = shapes.attention * tokens * tokens / (flop / best);
  std::printf(
      "{\"what\":\"onednn_limit\",\"type\":\"%s\",\"tokens\":%d,"
      "\"gemm_s\":%.5f,\"gflop_per_s\":%.1f,\"limit_s\":%.5f}\n",
      name.c_str(), tokens, best, flop / best / 1e9, best + attention);
  std::fflush(stdout);
}

// Parses "NxK,NxK..."; empty if the text is something else.
std::vector<std::pair<int, int>> ParseShapes(const char* text) {
  std::vector<std::pair<int, int>> shapes;
  while (*text != 0) {
    int n = 0, k = 0, length = 0;
    if (std::sscanf(text, "%dx%d%n", &n, &k, &length) != 2) return {};
    shapes.emplace_back(n, k);
    text += length;
    if (*text == ',') ++text;
  }
  return shapes;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr,
                 "usage: onednn_limit f32|bf16 T... "
                 "[layers=L attention=F shapes=NxK,NxK...]\n");
    return 2;
  }
  Shapes shapes;
  std::vector<int> tokens;
  for (int i = 2; i < argc; ++i) {
    const std::string argument = argv[i];
    const char* value = argv[i] + argument.find('=') + 1;
    if (argument.rfind("layers=", 0) == 0) {
      shapes.layers = std::atoi(value);
    } else if (argument.rfind("attention=", 0) == 0) {
      shapes.attention = std::atof(value);
    } else if (argument.rfind("shapes=", 0) == 0) {
      shapes.gemms = ParseShapes(value);
    } else {
      tokens.push_back(std::atoi(argv[i]));
    }
  }
  const std::string name = argv[1];
  const auto type =
      name == "bf16" ? memory::data_type::bf16 : memory::data_type::f32;
  try {
    for (int t : tokens) Measure(name, type, shapes, t);
  } catch (const dnnl::error& error) {
    std::printf(
        "{\"what\":\"onednn_limit\",\"type\":\"%s\",\"error\":"
        "\"this processor has no oneDNN kernel of this type\"}\n",
        name.c_str());
  }
  return 0;
}
