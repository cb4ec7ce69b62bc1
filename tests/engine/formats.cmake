qk_test(formats_dequantize_test SOURCES formats_dequantize_test.cc
        LIBS qk_formats)

add_executable(qk_formats_sha formats_sha.cc)
target_link_libraries(qk_formats_sha PRIVATE qk_formats)
