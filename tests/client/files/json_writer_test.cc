#include "client/files/json_writer.h"

#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/message_differencer.h>

#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/cpp/fake_stream.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;
using ::testing::HasSubstr;

TEST(ToJson, ProtobufParsersReadItBack) {
  for (const v1::AnalyzeEvent& event : FakeStream()) {
    v1::AnalyzeEvent expected = event;
    if (expected.has_layer()) expected.mutable_layer()->clear_data();
    v1::AnalyzeEvent parsed;
    google::protobuf::util::JsonParseOptions options;
    options.ignore_unknown_fields = true;
    const auto status = google::protobuf::util::JsonStringToMessage(
        ToJson(event), &parsed, options);
    ASSERT_TRUE(status.ok()) << status << "\n" << ToJson(event);
    EXPECT_TRUE(
        google::protobuf::util::MessageDifferencer::Equals(parsed, expected))
        << ToJson(event);
  }
}

TEST(ToJson, WritesTextBesideBytes) {
  v1::Token token;
  token.set_text(" Paris");
  EXPECT_THAT(ToJson(token), HasSubstr("\"text\":\"IFBhcmlz\",\"text_utf8\":"
                                       "\" Paris\""));
  token.set_text("\xff");
  EXPECT_EQ(ToJson(token).find("text_utf8"), std::string::npos);
}

TEST(ToJson, WritesNumbersThatAreNotFinite) {
  v1::Token token;
  token.set_logprob(-std::numeric_limits<float>::infinity());
  EXPECT_THAT(ToJson(token), HasSubstr("\"logprob\":\"-Infinity\""));
  token.set_logprob(0.1f);
  EXPECT_THAT(ToJson(token), HasSubstr("\"logprob\":0.1"));
}

TEST(TensorToJson, GivesNormsAsNumbersAndRawAsBase64) {
  Tensor tensor;
  tensor.header.set_form(v1::NORM_OVER_TOKENS);
  tensor.header.set_dtype(v1::F32);
  const float values[] = {1.5f, std::numeric_limits<float>::quiet_NaN()};
  tensor.data.assign(reinterpret_cast<const char*>(values), sizeof(values));
  EXPECT_THAT(TensorToJson(7, tensor), HasSubstr("{\"seq\":7,\"layer\":{"));
  EXPECT_THAT(TensorToJson(7, tensor),
              HasSubstr(",\"values\":[1.5,\"NaN\"]}}"));
  tensor.header.set_form(v1::RAW);
  EXPECT_THAT(TensorToJson(7, tensor), HasSubstr(",\"data\":\"AADAPwAAwH8=\""));
}

}  // namespace
}  // namespace qk::client
