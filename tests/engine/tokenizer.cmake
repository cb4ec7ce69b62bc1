foreach(piece bad_json bad_spm chat chat_golden gguf gguf_spm golden
              long_text sentencepiece unigram)
  qk_test(tokenizer_${piece}_test SOURCES tokenizer/tokenizer_${piece}_test.cc
          LIBS qk_tokenizer)
endforeach()
# It measures times, which a sanitizer would only lengthen.
set(QK_TEST_LABELS engine)
qk_test(tokenizer_hostile_test SOURCES tokenizer/tokenizer_hostile_test.cc
        LIBS qk_tokenizer)
set(QK_TEST_LABELS engine memory)
qk_test(word_pattern_test SOURCES tokenizer/word_pattern_test.cc
        LIBS qk_tokenizer)
qk_test(added_token_files_test SOURCES tokenizer/added_token_files_test.cc
        LIBS qk_tokenizer)
qk_test(tokenizer_test SOURCES tokenizer/tokenizer_test.cc LIBS qk_tokenizer)

add_executable(tokenizer_driver tokenizer/tokenizer_driver.cc)
target_link_libraries(tokenizer_driver PRIVATE qk_flags qk_tokenizer)
