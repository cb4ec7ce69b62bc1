#include "engine/base/request_id.h"

#include <string>

#include "gtest/gtest.h"

namespace qk {
namespace {

TEST(RequestId, IsMadeAndTakenApart) {
  EXPECT_EQ(MakeRequestId(0x1f2e3d4c5b6a7988, ""), "1f2e3d4c5b6a7988");
  EXPECT_EQ(MakeRequestId(0xa, "gpu-7"), "000000000000000a-gpu-7");
  EXPECT_EQ(ReplicaOf("000000000000000a-gpu-7"), "gpu-7");
  EXPECT_EQ(ReplicaOf("000000000000000a"), "");
  EXPECT_TRUE(IsRequestId("0123456789abcdef"));
  EXPECT_TRUE(IsRequestId("0123456789abcdef-a"));
}

TEST(RequestId, WhatIsNoIdHasNoReplica) {
  for (const std::string& text :
       {std::string(), std::string("a"), std::string("fake-1"),
        std::string("0123456789abcde"), std::string("0123456789abcdeF"),
        std::string("0123456789abcdef0"), std::string("0123456789abcdef-"),
        std::string("0123456789abcdef.a"), std::string("0123456789abcdef-A"),
        std::string("0123456789abcdef-a-"), std::string("0123456789abcdef--a"),
        std::string("0123456789abcdef-a/../b"),
        std::string("0123456789abcdef-a\r\nx: y"),
        std::string("0123456789abcdef-a\0", 19),
        std::string("0123456789abcde\0", 16),
        "0123456789abcdef-" + std::string(64, 'a')}) {
    EXPECT_FALSE(IsRequestId(text)) << text;
    EXPECT_EQ(ReplicaOf(text), "") << text;
  }
  EXPECT_TRUE(IsRequestId("0123456789abcdef-" + std::string(63, 'a')));
}

}  // namespace
}  // namespace qk
