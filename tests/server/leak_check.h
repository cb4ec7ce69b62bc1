// Checks every error that a channel's calls end with: none may reveal the
// server's files, memory or machine.
#ifndef QKSCOPE_TESTS_SERVER_LEAK_CHECK_H_
#define QKSCOPE_TESTS_SERVER_LEAK_CHECK_H_

#include <unistd.h>

#include <cctype>
#include <memory>
#include <string>
#include <vector>

#include "grpcpp/support/client_interceptor.h"
#include "gtest/gtest.h"

namespace qk::testing {

// Returns what the text reveals; empty if nothing.
inline std::string LeakIn(const std::string& text) {
  const auto is_name = [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '.' || c == '-';
  };
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    const bool starts = i == 0 || !is_name(text[i - 1]);
    if (text[i] == '/' && starts && is_name(text[i + 1])) {
      size_t end = i + 1;
      while (end < text.size() && is_name(text[end])) ++end;
      if (end < text.size() && text[end] == '/') return "an absolute path";
    }
    if (text.compare(i, 2, "0x") == 0 && starts && i + 8 <= text.size()) {
      size_t end = i + 2;
      while (end < text.size() && std::isxdigit(text[end]) != 0) ++end;
      if (end - i >= 8) return "a pointer";
    }
  }
  char host[256] = {};
  if (gethostname(host, sizeof(host) - 1) == 0 &&
      std::string(host).size() > 3 && std::string(host) != "localhost" &&
      text.find(host) != std::string::npos) {
    return "the host's name";
  }
  return "";
}

class LeakCheck : public grpc::experimental::Interceptor {
 public:
  class Factory : public grpc::experimental::ClientInterceptorFactoryInterface {
   public:
    grpc::experimental::Interceptor* CreateClientInterceptor(
        grpc::experimental::ClientRpcInfo*) override {
      return new LeakCheck();
    }
  };

  static std::vector<
      std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>>
  Factories() {
    std::vector<
        std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>>
        out;
    out.push_back(std::make_unique<Factory>());
    return out;
  }

  void Intercept(
      grpc::experimental::InterceptorBatchMethods* methods) override {
    using grpc::experimental::InterceptionHookPoints;
    if (methods->QueryInterceptionHookPoint(
            InterceptionHookPoints::POST_RECV_STATUS)) {
      const std::string message = methods->GetRecvStatus()->error_message();
      EXPECT_EQ(LeakIn(message), "") << message;
    }
    methods->Proceed();
  }
};

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_SERVER_LEAK_CHECK_H_
