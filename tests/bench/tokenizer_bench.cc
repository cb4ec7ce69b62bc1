// Encodes a text once per line of standard input, and answers each line with
// the seconds that it took and the number of tokens.
//
//   tokenizer_bench TOKENIZER_JSON TEXT
//
// tests/bench/tokenizer_rate.py takes turns with it.
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "engine/tokenizer/tokenizer.h"

namespace {

std::string ReadFile(const char* path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: tokenizer_bench TOKENIZER_JSON TEXT\n");
    return 2;
  }
  const auto tokenizer = qk::TokenizerFromJson(ReadFile(argv[1]), {});
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", tokenizer.status().ToString().c_str());
    return 1;
  }
  const std::string text = ReadFile(argv[2]);
  for (std::string line; std::getline(std::cin, line);) {
    const auto start = std::chrono::steady_clock::now();
    const auto tokens = (*tokenizer)->Encode(text, {});
    const std::chrono::duration<double> seconds =
        std::chrono::steady_clock::now() - start;
    if (!tokens.ok()) {
      std::fprintf(stderr, "%s\n", tokens.status().ToString().c_str());
      return 1;
    }
    std::printf("%.6f %zu\n", seconds.count(), tokens->size());
    std::fflush(stdout);
  }
  return 0;
}
