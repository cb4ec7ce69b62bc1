// Tests qkctl doctor against a fake, in-process service.
#include <string>
#include <vector>

#include "client/qkctl/commands/open_port.h"
#include "gmock/gmock.h"
#include "tests/client/qkctl/qkctl_fake.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

class DoctorFakeTest : public QkctlFakeTest {
 protected:
  DoctorFakeTest() {
    good_.arms = {"clean", "again", "top_k:1"};
    good_.clean_arms = {"clean", "again"};
    service_.events = FakeStream(good_);
    service_.replica = "east";
  }

  int Doctor(std::vector<std::string> arguments = {}) {
    return Qkctl(kDoctorCommand, arguments);
  }

  FakeStreamOptions good_;
};

TEST_F(DoctorFakeTest, TellsWhatItSees) {
  EXPECT_EQ(Doctor(), kExitOk) << out_ << err_;
  EXPECT_THAT(out_, HasSubstr(service_.address() + "\n"));
  for (const char* line :
       {"ok +server +answers; [0-9]+ ms", "ok +replica +east",
        "ok +health +serving", "ok +device +cpu: a fake",
        "note +device +not on cuda: no GPU", "ok +model fake +READY",
        "ok +usage +60 % of the budget of time", "ok +self-test +3 tokens",
        "note +spool +none"}) {
    EXPECT_THAT(out_, ContainsRegex(line));
  }
  EXPECT_EQ(service_.last_request().arms_size(), 3);
  EXPECT_EQ(service_.calls().size(), 2u);  // it runs twice
}

TEST_F(DoctorFakeTest, VersionsThatDifferAreNoted) {
  EXPECT_EQ(Doctor({"--no-run"}), kExitOk);
  EXPECT_THAT(out_, ContainsRegex("note +versions +server 1.2.3, qkctl .*first "
                                  "two numbers differ"));
  EXPECT_TRUE(service_.calls().empty());
}

// What is to be pasted has neither addresses nor users.
TEST_F(DoctorFakeTest, TheReportNamesNobody) {
  EXPECT_EQ(Doctor({"--metrics", service_.address()}), kExitOk);
  const size_t at = out_.find("```text\n");
  ASSERT_NE(at, std::string::npos);
  EXPECT_THAT(out_.substr(0, at), HasSubstr("(" + service_.address() + ")"));
  EXPECT_THAT(out_.substr(at),
              AllOf(HasSubstr("self-test"), HasSubstr("takes connections"),
                    Not(HasSubstr("127.0.0.1")), Not(HasSubstr("secretive"))));
}

TEST_F(DoctorFakeTest, FindsArmsThatDiffer) {
  good_.shift_of_arm["again"] = 1e-6f;
  service_.events = FakeStream(good_);
  EXPECT_EQ(Doctor(), kExitOther);
  EXPECT_THAT(out_, ContainsRegex("FAILED +self-test +INTERNAL: two equal arms "
                                  "of one batch have different bytes"));
}

TEST_F(DoctorFakeTest, FindsASecondRunThatDiffers) {
  service_.events_before = {FakeStream(good_)};
  good_.shift = 1e-6f;
  service_.events = FakeStream(good_);
  EXPECT_EQ(Doctor(), kExitOther);
  EXPECT_THAT(out_, ContainsRegex("FAILED +self-test +INTERNAL: the same "
                                  "request gave other bytes"));
}

TEST_F(DoctorFakeTest, FindsARuleThatDidNothing) {
  good_.clean_arms.insert("top_k:1");
  service_.events = FakeStream(good_);
  EXPECT_EQ(Doctor(), kExitOther);
  EXPECT_THAT(out_, HasSubstr("INTERNAL: top_k:1 replaced no value"));
}

TEST_F(DoctorFakeTest, FindsAnIncompleteStream) {
  service_.events.pop_back();
  EXPECT_EQ(Doctor(), kExitIncomplete);
  EXPECT_THAT(out_, ContainsRegex("FAILED +self-test +DATA_LOSS"));
}

TEST_F(DoctorFakeTest, FindsValuesThatAreNotFinite) {
  v1::ArmSummary* arm = service_.events.back().mutable_finished()->add_arms();
  arm->set_arm("clean");
  arm->mutable_non_finite()->set_captured(3);
  EXPECT_EQ(Doctor(), kExitBadRequest);
  EXPECT_THAT(out_, HasSubstr("OUT_OF_RANGE: arm clean"));
}

TEST_F(DoctorFakeTest, TheFirstFailureGivesTheExitCode) {
  service_.SetServing(false);
  EXPECT_EQ(Doctor({"--model", "absent"}), kExitUnavailable);
  EXPECT_THAT(out_, AllOf(ContainsRegex("FAILED +health"),
                          HasSubstr("NOT_FOUND: there is no model 'absent'")));
}

TEST_F(DoctorFakeTest, LooksAtEveryServerOfAList) {
  Context context;
  context.console = Console(/*color=*/false, /*progress=*/false);
  context.client.server = "file://" + File("servers", service_.address() +
                                                          " east\n"
                                                          "127.0.0.1:1\n");
  ::testing::internal::CaptureStdout();
  EXPECT_EQ(kDoctorCommand.run({"--no-run"}, &context), kExitUnavailable);
  const std::string out = ::testing::internal::GetCapturedStdout();
  EXPECT_THAT(out, AllOf(HasSubstr(service_.address() + "\nok "),
                         HasSubstr("127.0.0.1:1\nFAILED  server")));
}

TEST_F(DoctorFakeTest, PortsThatAreClosed) {
  EXPECT_EQ(ConnectionProblem(service_.address()), "");
  EXPECT_EQ(ConnectionProblem("127.0.0.1:1"), "Connection refused");
  EXPECT_EQ(ConnectionProblem("[::ffff:127.0.0.1]:1"), "Connection refused");
  EXPECT_EQ(ConnectionProblem("localhost"), "it is not HOST:PORT");
  EXPECT_NE(ConnectionProblem("127.0.0.1:many"), "");
  EXPECT_NE(ConnectionProblem("nowhere.invalid:1"), "");
}

}  // namespace
}  // namespace qk::client
