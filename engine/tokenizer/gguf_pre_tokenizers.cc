// The names of `tokenizer.ggml.pre`, as llama.cpp knows them (llama-vocab.cpp),
// with the patterns of the models' own tokenizer.json: llama.cpp's rewritten
// ones differ from them in rare characters.
#include <utility>

#include "engine/tokenizer/pre_tokenizer.h"

namespace qk {
namespace {

constexpr absl::string_view kDigit = R"(\p{N})";
constexpr absl::string_view kThreeDigits = R"(\p{N}{1,3})";
constexpr absl::string_view kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+)"
    R"(|\s+(?!\S)|\s+)";
constexpr absl::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr absl::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Marks belong to words.
constexpr absl::string_view kQwen35 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N})"
    R"(| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr absl::string_view kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*)"
    R"([\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?)"
    R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// OpenAI's o200k.
constexpr absl::string_view kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*)"
    R"([\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+)"
    R"([\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr absl::string_view kNewline = R"([\r\n])";
constexpr absl::string_view kDeepSeekCjk = "[一-龥ࠀ-一가-퟿]+";
// The formatter breaks these letters anew each time it runs.
// clang-format off
constexpr absl::string_view kDeepSeekLlmWord =
    "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆ"
    "Έ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷ"
    "ᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐ"
    "ῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄ"
    "Ⰰ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-"
    "ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";
// clang-format on
constexpr absl::string_view kDeepSeekLlmSymbols =
    "\\s?[!-/:-~！-／：-～‘-‟　-。]+";
constexpr absl::string_view kDeepSeek3Cjk = "[一-龥぀-ゟ゠-ヿ]+";
constexpr absl::string_view kDeepSeek3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+)"
    R"(|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
// llama.cpp's own, for files that do not name one.
constexpr absl::string_view kDefaultSymbols = R"([\p{P}\$\+<=>\^~\|]+)";
constexpr absl::string_view kThreeAsciiDigits = "[0-9][0-9][0-9]";

struct Named {
  std::vector<absl::string_view> names;
  GgufPreTokenizer pre_tokenizer;
};

}  // namespace

const GgufPreTokenizer* FindGgufPreTokenizer(absl::string_view name) {
  static const auto* const table = new std::vector<Named>{
      {{"gpt-2", "phi-2", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de",
        "gigachat", "a.x-4.0", "mellum", "modern-bert", "exaone4", "jais",
        "trillion", "granite-docling"},
       {.patterns = {kGpt2}}},
      // mpt: GPT-NeoX's vocabularies.
      {{"mpt", "olmo"}, {.patterns = {kGpt2}, .nfc = true}},
      {{"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone",
        "minerva-7b", "mellum2"},
       {.patterns = {kDigit, kGpt2}}},
      {{"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral",
        "midm-2.0", "lfm2", "jina-v5-nano"},
       {.patterns = {kLlama3}, .ignore_merges = true, .adds_bos = true}},
      {{"dbrx", "smaug-bpe", "glm4", "chatglm-bpe"}, {.patterns = {kLlama3}}},
      {{"qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2",
        "hunyuan", "solar-open", "grok-2"},
       {.patterns = {kQwen2}, .nfc = true}},
      {{"qwen35"}, {.patterns = {kQwen35}, .nfc = true}},
      {{"tekken"},
       {.patterns = {kTekken}, .ignore_merges = true, .adds_bos = true}},
      {{"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"},
       {.patterns = {kGpt4o}}},
      {{"deepseek-llm"},
       {.patterns = {kNewline, kDeepSeekLlmWord, kDeepSeekLlmSymbols, R"(\s+$)",
                     kDeepSeekCjk, R"(\p{N}+)"}}},
      {{"deepseek-coder"},
       {.patterns = {kNewline, R"(\s?\p{L}+)", R"(\s?\p{P}+)", kDeepSeekCjk,
                     kDigit}}},
      {{"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"},
       {.patterns = {kThreeDigits, kDeepSeek3Cjk, kDeepSeek3}}},
      {{"default"},
       {.patterns = {kDefaultSymbols, kGpt2, R"(\p{N}+)", kThreeAsciiDigits}}},
  };
  for (const Named& known : *table) {
    for (const absl::string_view candidate : known.names) {
      if (candidate == name) return &known.pre_tokenizer;
    }
  }
  return nullptr;
}

}  // namespace qk
