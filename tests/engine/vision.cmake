qk_test(vision_test SOURCES architectures/image_processor_test.cc architectures/vision_config_test.cc
        vision_run_test.cc vision_tower_test.cc LIBS qk_test_core)
