foreach(target tokenizer_gguf tokenizer_json tokenizer_sentencepiece
               tokenizer_text tokenizer_vocab_merges)
  qk_fuzz(${target} qk_tokenizer)
endforeach()
