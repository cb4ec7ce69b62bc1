// Encodes strings for tests/goldens/tokenizer/compare.py:
//
//   tokenizer_driver FILE PARSE_SPECIAL ADD_SPECIAL < strings > tokens
//
// FILE: a tokenizer.json or a .gguf; the others are 0 or 1. Each string: its
// size as uint32, its bytes. Each answer: the number of tokens as uint32 and
// for each its id, begin and end; or 0xffffffff, the size of the error message
// and the message. All little-endian.
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>

#include "absl/strings/match.h"
#include "engine/check.h"
#include "engine/formats/gguf.h"
#include "engine/tokenizer/tokenizer.h"

namespace qk {
namespace {

absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& path) {
  if (absl::EndsWith(path, ".gguf")) {
    QK_ASSIGN_OR_RETURN(const auto file, GgufFile::Open(path));
    return TokenizerFromGguf(*file);
  }
  std::ifstream in(path, std::ios::binary);
  const std::string json((std::istreambuf_iterator<char>(in)), {});
  return TokenizerFromJson(json, "");
}

void Put(uint32_t value) {
  std::cout.write(reinterpret_cast<const char*>(&value), sizeof value);
}

void Answer(const Tokenizer& tokenizer, const std::string& text,
            const EncodeOptions& options) {
  const auto tokens = tokenizer.Encode(text, options);
  if (!tokens.ok()) {
    const std::string message(tokens.status().message());
    Put(0xffffffff);
    Put(static_cast<uint32_t>(message.size()));
    std::cout << message;
    return;
  }
  Put(static_cast<uint32_t>(tokens->size()));
  for (const TokenSpan& token : *tokens) {
    Put(static_cast<uint32_t>(token.id));
    Put(token.begin);
    Put(token.end);
  }
}

int Run(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: tokenizer_driver FILE PARSE_SPECIAL ADD_SPECIAL\n";
    return 2;
  }
  const auto tokenizer = Load(argv[1]);
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status() << "\n";
    return 1;
  }
  EncodeOptions options;
  options.parse_special = argv[2][0] == '1';
  options.add_special_tokens = argv[3][0] == '1';
  uint32_t size;
  std::string text;
  while (std::cin.read(reinterpret_cast<char*>(&size), sizeof size)) {
    text.resize(size);
    std::cin.read(text.data(), size);
    Answer(**tokenizer, text, options);
  }
  return 0;
}

}  // namespace
}  // namespace qk

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  return qk::Run(argc, argv);
}
