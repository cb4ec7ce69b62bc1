qk_test(golden_test SOURCES golden_test.cc LIBS qk_core)
qk_test(disruption_test SOURCES disruption_test.cc LIBS qk_core)
qk_test(identity_test SOURCES identity_test.cc LIBS qk_core)
