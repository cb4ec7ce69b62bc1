foreach(target tokenizer_gguf tokenizer_json tokenizer_sentencepiece
               tokenizer_text tokenizer_vocab_merges)
  qk_fuzz(${target} qk_tokenizer)
endforeach()
foreach(target fuzz_tokenizer_text fuzz_tokenizer_text_replay)
  if(TARGET ${target})
    target_compile_definitions(${target} PRIVATE
      QK_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  endif()
endforeach()
