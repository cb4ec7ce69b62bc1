foreach(piece dequantize gguf gguf_bad json mapped_file packed_int4
              packed_int4_bad safetensors shard_index)
  qk_test(formats_${piece}_test SOURCES formats/${piece}_test.cc
          LIBS qk_formats)
endforeach()

add_executable(qk_formats_sha formats/gguf_sha.cc)
target_link_libraries(qk_formats_sha PRIVATE qk_formats)
