qk_test(golden_test SOURCES golden_test.cc LIBS qk_core)
