qk_test(vision_test SOURCES vision_config_test.cc vision_run_test.cc
        vision_tower_test.cc LIBS qk_core)
