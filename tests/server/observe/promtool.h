// Prometheus's own checker of what is scraped.
#ifndef QKSCOPE_TESTS_SERVER_OBSERVE_PROMTOOL_H_
#define QKSCOPE_TESTS_SERVER_OBSERVE_PROMTOOL_H_

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "gtest/gtest.h"

namespace qk::testing {

inline std::string TempPath(const std::string& name) {
  return ::testing::TempDir() + "/" + name + "." + std::to_string(getpid());
}

// Returns promtool's complaints; empty if there are none.
inline std::string Promtool(const std::string& text) {
  const std::string in = TempPath("metrics"), out = TempPath("promtool");
  std::ofstream(in) << text;
  const int rc = std::system(
      ("promtool check metrics < " + in + " > " + out + " 2>&1").c_str());
  std::ifstream file(out);
  std::string said((std::istreambuf_iterator<char>(file)),
                   std::istreambuf_iterator<char>());
  std::remove(in.c_str());
  std::remove(out.c_str());
  return rc == 0 ? said : "exit " + std::to_string(rc) + ": " + said;
}

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_SERVER_OBSERVE_PROMTOOL_H_
