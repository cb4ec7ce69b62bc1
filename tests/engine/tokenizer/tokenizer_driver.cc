// Encodes strings, or decodes ids, for tests/goldens/tokenizer/compare.py:
//
//   tokenizer_driver FILE PARSE_SPECIAL ADD_SPECIAL < strings > answers
//   tokenizer_driver FILE decode KEEP_SPECIAL < ids > texts
//
// FILE: a tokenizer.json, a SentencePiece .model (with FILE.config.json beside
// it, if there is one) or a .gguf; the others are 0 or 1. Each string: its size
// as uint32, its bytes. Each answer: the number of tokens as uint32, for each
// its id, begin and end, and the string they decode to without special tokens;
// or 0xffffffff and the error message as a string. Ids: their number and each
// as uint32. All little-endian.
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "engine/base/check.h"
#include "engine/formats/gguf.h"
#include "engine/tokenizer/tokenizer.h"

namespace qk {
namespace {

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string((std::istreambuf_iterator<char>(in)), {});
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& path) {
  if (absl::EndsWith(path, ".gguf")) {
    QK_ASSIGN_OR_RETURN(const auto file, GgufFile::Open(path));
    return TokenizerFromGguf(*file);
  }
  const std::string config = ReadFile(path + ".config.json");
  if (absl::EndsWith(path, ".model")) {
    return TokenizerFromSentencePiece(ReadFile(path), {.config = config});
  }
  return TokenizerFromJson(ReadFile(path), {.config = config});
}

void Put(uint32_t value) {
  std::cout.write(reinterpret_cast<const char*>(&value), sizeof value);
}

void PutString(absl::string_view text) {
  Put(static_cast<uint32_t>(text.size()));
  std::cout << text;
}

bool Get(uint32_t* value) {
  return static_cast<bool>(
      std::cin.read(reinterpret_cast<char*>(value), sizeof *value));
}

void Answer(const Tokenizer& tokenizer, const std::string& text,
            const EncodeOptions& options) {
  const auto tokens = tokenizer.Encode(text, options);
  if (!tokens.ok()) {
    Put(0xffffffff);
    return PutString(tokens.status().message());
  }
  Put(static_cast<uint32_t>(tokens->size()));
  std::vector<int32_t> ids;
  for (const TokenSpan& token : *tokens) {
    Put(static_cast<uint32_t>(token.id));
    Put(token.begin);
    Put(token.end);
    ids.push_back(token.id);
  }
  PutString(tokenizer.Decode(ids, false).value());
}

void EncodeAll(const Tokenizer& tokenizer, const EncodeOptions& options) {
  uint32_t size;
  std::string text;
  while (Get(&size)) {
    text.resize(size);
    std::cin.read(text.data(), size);
    Answer(tokenizer, text, options);
  }
}

void DecodeAll(const Tokenizer& tokenizer, bool keep_special) {
  uint32_t size;
  std::vector<int32_t> ids;
  while (Get(&size)) {
    ids.resize(size);
    std::cin.read(reinterpret_cast<char*>(ids.data()), size * sizeof(int32_t));
    PutString(tokenizer.Decode(ids, keep_special).value());
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
  const bool last = argv[3][0] == '1';
  if (std::string(argv[2]) == "decode") {
    DecodeAll(**tokenizer, last);
    return 0;
  }
  EncodeOptions options;
  options.parse_special = argv[2][0] == '1';
  options.add_special_tokens = last;
  EncodeAll(**tokenizer, options);
  return 0;
}

}  // namespace
}  // namespace qk

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  return qk::Run(argc, argv);
}
