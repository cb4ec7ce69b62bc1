qk_test(base_test SOURCES base/crc32c_test.cc base/flag_parser_test.cc
        base/json_string_test.cc base/request_id_test.cc base/small_file_test.cc LIBS qk_base)
qk_test(golden_test SOURCES golden_test.cc LIBS qk_test_core)
qk_test(disruption_test SOURCES hooks/disruption_test.cc LIBS qk_test_core)
qk_test(hook_ops_test SOURCES hooks/hook_ops_test.cc LIBS qk_test_core)
qk_test(rule_product_test OPTIMIZED SOURCES hooks/rule_product_test.cc
        hooks/rule_reference.cc TIMEOUT 900 LIBS qk_test_core)
qk_test(query_head_capture_test SOURCES hooks/query_head_capture_test.cc
        hooks/rule_reference.cc LIBS qk_test_core)
qk_test(generation_test SOURCES run/generation_test.cc run/continuation_test.cc
        LIBS qk_test_core)
qk_test(estimate_test SOURCES run/estimate_test.cc LIBS qk_test_core qk_random_model)
qk_test(test_backend_test SOURCES test_backend_test.cc LIBS qk_test_core)
qk_test(create_backend_test SOURCES create_backend_test.cc LIBS qk_backends)
if(TARGET qk_cuda)
  target_compile_definitions(create_backend_test PRIVATE QK_HAS_CUDA)
endif()
qk_test(pair_product_test OPTIMIZED SOURCES cpu/pair_product_test.cc LIBS qk_test_core)
if(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64" AND
   CMAKE_BUILD_TYPE STREQUAL "Release")
  # Other builds do not allot registers as carefully.
  add_test(NAME cpu_tile_loops COMMAND python3 -B
    ${CMAKE_CURRENT_SOURCE_DIR}/cpu/tile_loops.py
    "$<FILTER:$<TARGET_OBJECTS:qk_cpu>,INCLUDE,panels|pair_product|attention_task>"
    COMMAND_EXPAND_LISTS)
  set_tests_properties(cpu_tile_loops PROPERTIES TIMEOUT 600)
  qk_label_test(cpu_tile_loops engine)
endif()
qk_test(step_clock_test SOURCES step_clock_test.cc LIBS qk_test_core)
add_library(qk_random_model STATIC random_model.cc)
target_link_libraries(qk_random_model PUBLIC qk_core PRIVATE qk_flags)
qk_test(shapes_identity_test OPTIMIZED SOURCES shapes_identity_test.cc
        LIBS qk_test_core qk_random_model)
qk_test(op_counts_test SOURCES op_counts_test.cc LIBS qk_test_core)
qk_test(identity_test SOURCES identity_test.cc LIBS qk_test_core)
qk_test(config_test SOURCES architectures/config_test.cc architectures/config_families_test.cc
        architectures/config_rope_test.cc model/gemma3_folder_test.cc LIBS qk_test_core)
qk_test(model_folder_test SOURCES model/model_folder_test.cc
        model/matmul_groups_test.cc LIBS qk_test_core)
qk_test(config_mutation_test OPTIMIZED SOURCES architectures/config_mutation_test.cc
        architectures/config_mutation_tables.cc architectures/config_variants.cc LIBS qk_test_core)
qk_test(families_identity_test SOURCES families_identity_test.cc LIBS qk_test_core)
qk_test(gguf_golden_test SOURCES gguf_golden_test.cc LIBS qk_test_core)
qk_test(architectures_test SOURCES architectures/architectures_test.cc
        architectures/architectures_gguf_test.cc LIBS qk_test_core)
qk_test(non_finite_test SOURCES run/non_finite_test.cc
        model/weight_scan_test.cc LIBS qk_test_core)
qk_test(packed_model_test SOURCES model/packed_model_test.cc
        model/packed_model_bad_test.cc LIBS qk_test_core)
# Their operator new is their own: a binary each.
qk_test(flat_hash_test SOURCES base/flat_hash_test.cc LIBS qk_base)
qk_test(out_of_memory_test SOURCES out_of_memory_test.cc LIBS qk_test_core)
qk_test(philox_test SOURCES base/philox_test.cc LIBS qk_test_core)
qk_test(sampler_test SOURCES run/sampler_test.cc LIBS qk_test_core)
qk_test(text_stream_test SOURCES tokenizer/text_stream_test.cc LIBS qk_test_core)
qk_test(thread_pool_test SOURCES base/thread_pool_test.cc LIBS qk_test_core
        LABELS threads)
qk_test(rule_shape_test SOURCES types/rule_shape_test.cc LIBS qk_types)
qk_test(statistics_test SOURCES types/statistics_test.cc LIBS qk_test_core)
qk_test(backend_conformance_test OPTIMIZED SOURCES backend/backend_conformance_test.cc
        backend/attention_conformance_test.cc backend/disrupt_conformance_test.cc
        backend/hooks_conformance_test.cc backend/logits_conformance_test.cc
        backend/matmul_conformance_test.cc backend/mixers_conformance_test.cc
        backend/stored_weights_conformance_test.cc LIBS qk_test_core)

# The same on a backend whose results arrive late: nothing reads them earlier,
# and whoever asked for them may be gone.
foreach(test golden_test identity_test families_identity_test disruption_test
        query_head_capture_test generation_test non_finite_test)
  add_test(NAME ${test}_deferred COMMAND ${test}
           WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${test}_deferred PROPERTIES TIMEOUT 3600
    ENVIRONMENT QK_TEST_BACKEND=deferred)
  qk_label_test(${test}_deferred ${QK_TEST_LABELS})
endforeach()

# The same on the CUDA backend, whose kernels run under tests/cuda_on_cpu or, in
# a build with QK_GPU_TESTS, on a GPU. A pattern after the name leaves out what
# takes long under the former.
set(cuda_backend emulated-cuda)
if(QK_GPU_TESTS)
  set(cuda_backend cuda)
endif()
string(REPLACE "-" "_" suffix ${cuda_backend})
foreach(test_and_filter
        backend_conformance_test:* golden_test:* disruption_test:*
        query_head_capture_test:* generation_test:* non_finite_test:*
        shapes_identity_test:* gguf_golden_test:* packed_model_test:*
        vision_test:*
        "identity_test:*bf16*-*PassesThatTakeTurns*"
        "families_identity_test:*bf16*")
  string(REGEX MATCH "^([^:]*):(.*)$" unused ${test_and_filter})
  set(test ${CMAKE_MATCH_1})
  add_test(NAME ${test}_${suffix} COMMAND ${test}
           WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${test}_${suffix} PROPERTIES TIMEOUT 3600
    ENVIRONMENT
    "QK_TEST_BACKEND=${cuda_backend};GTEST_FILTER=${CMAKE_MATCH_2}")
  qk_label_test(${test}_${suffix} engine)
endforeach()

# The real models are not in this repository: deploy/fetch_model.sh gets the
# first.
set(QK_SMOLLM2_GGUF "" CACHE FILEPATH
    "SmolLM2-135M-Instruct.Q4_1.gguf, for smollm2_golden_test")
set(QK_GEMMA3_GGUF "" CACHE FILEPATH
    "A Gemma 3 270M, for architectures_test")
foreach(variable QK_SMOLLM2_GGUF QK_GEMMA3_GGUF)
  if(${variable})
    target_compile_definitions(architectures_test PRIVATE
      ${variable}="${${variable}}")
  endif()
endforeach()
if(QK_SMOLLM2_GGUF)
  qk_test(smollm2_golden_test SOURCES smollm2_golden_test.cc LIBS qk_test_core)
  target_compile_definitions(smollm2_golden_test PRIVATE
    QK_SMOLLM2_GGUF="${QK_SMOLLM2_GGUF}")
else()
  message(STATUS "smollm2_golden_test is left out: set QK_SMOLLM2_GGUF to the "
                 "file that deploy/fetch_model.sh prints")
endif()
