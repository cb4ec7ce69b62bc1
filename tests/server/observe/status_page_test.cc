// Tests the status page: what it shows, escapes and leaves out.
#include "server/observe/status_page.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/observe/heat_map.h"
#include "server/observe/html.h"
#include "server/observe/status_style.h"

namespace qk {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

bool Everybody(const std::string&) { return true; }

ActivationGauges Massive(int massive, int64_t non_finite = 0) {
  ActivationGauges gauges;
  gauges.massive = massive;
  gauges.non_finite = non_finite;
  return gauges;
}

size_t Count(const std::string& text, const std::string& what) {
  size_t count = 0;
  for (size_t at = text.find(what); at != std::string::npos;
       at = text.find(what, at + 1)) {
    ++count;
  }
  return count;
}

StatusPage SmallPage() {
  StatusPage page;
  page.health = StatusPage::Health::kServing;
  page.version = "1.2.3";
  page.backend.name = "cpu";
  page.backend.device = "A processor";
  page.uptime = absl::Hours(27);
  page.made = absl::FromUnixSeconds(1'700'000'000);
  return page;
}

TEST(HtmlTest, EscapesWhatHtmlAndViewersActOn) {
  EXPECT_EQ(HtmlText("<a href=\"x\" title='y'>&"),
            "&lt;a href=&quot;x&quot; title=&#39;y&#39;&gt;&amp;");
  EXPECT_EQ(HtmlText("a\nb\x7F\xE2\x80\xAE"
                     "c"),
            "a\xEF\xBF\xBD"
            "b\xEF\xBF\xBD\xEF\xBF\xBD"
            "c");
  EXPECT_EQ(HtmlText("\xFF\xC3"), "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(HtmlText("\xC3\xA9\xC3\xA9\xC3\xA9", 2),
            "\xC3\xA9\xC3\xA9\xE2\x80\xA6");
}

TEST(HtmlTest, NumbersAreShort) {
  EXPECT_EQ(WithCommas(0), "0");
  EXPECT_EQ(WithCommas(-1234567), "-1,234,567");
  EXPECT_EQ(WithCommas(999), "999");
  EXPECT_EQ(ShortDuration(absl::Milliseconds(12)), "12 ms");
  EXPECT_EQ(ShortDuration(absl::Milliseconds(59'999)), "59.9 s");
  EXPECT_EQ(ShortDuration(absl::Seconds(3599)), "59 min 59 s");
  EXPECT_EQ(ShortDuration(absl::Hours(27)), "1 d 3 h");
  EXPECT_EQ(Percent(0), "0 %");
  EXPECT_EQ(Percent(0.004), "0.4 %");
  EXPECT_EQ(Percent(0.999), "100 %");
}

TEST(HeatColourTest, ColoursAreNamedByTheirCounts) {
  EXPECT_EQ(HeatColour(0), 0);
  for (int colour = 1; colour < kHeatColours; ++colour) {
    const int least = std::atoi(HeatColourName(colour).c_str());
    EXPECT_EQ(HeatColour(least), colour) << HeatColourName(colour);
    EXPECT_EQ(HeatColour(least - 1), colour - 1) << HeatColourName(colour);
  }
  EXPECT_EQ(HeatColour(1 << 30), kHeatColours - 1);
}

TEST(RecentActivationsTest, OnePromptPerRunAndArm) {
  RecentActivations recent;
  const uint64_t a = recent.NewRun(), b = recent.NewRun();
  using Matrix = ActivationMatrix;
  recent.Add({a, 0, ArmKind::kClean}, "m", Matrix::kQAfter, 0, Massive(5));
  recent.Add({b, 0, ArmKind::kControl}, "m", Matrix::kQAfter, 0, Massive(6));
  recent.Add({a, 0, ArmKind::kClean}, "m", Matrix::kV, 2, Massive(7));
  recent.Add({a, 1, ArmKind::kDisrupted}, "m", Matrix::kKAfter, 1,
             Massive(8, 3));
  // Of no map:
  recent.Add({a, 0, ArmKind::kClean}, "m", Matrix::kQBefore, 0, Massive(99));
  recent.Add({a, 0, ArmKind::kClean}, "m", Matrix::kKBefore, 0, Massive(99));

  const std::vector<RecentModel> models = recent.Read(Everybody);
  ASSERT_EQ(models.size(), 1u);
  ASSERT_EQ(models[0].prompts.size(), 3u);
  const RecentPrompt& first = models[0].prompts[0];
  EXPECT_EQ(first.count(Qkv::kQ, 0), 5);
  EXPECT_EQ(first.count(Qkv::kV, 2), 7);
  EXPECT_EQ(first.count(Qkv::kV, 1), RecentPrompt::kNotCaptured);
  EXPECT_EQ(first.count(Qkv::kK, 0), RecentPrompt::kNotCaptured);
  EXPECT_EQ(first.num_layers(), 3);
  EXPECT_EQ(models[0].prompts[1].arm, ArmKind::kControl);
  EXPECT_EQ(models[0].prompts[1].count(Qkv::kQ, 0), 6);
  EXPECT_EQ(models[0].prompts[2].arm, ArmKind::kDisrupted);
  EXPECT_EQ(models[0].prompts[2].count(Qkv::kK, 1), RecentPrompt::kNotFinite);
}

TEST(RecentActivationsTest, KeepsTheLastPromptsOfTheLastModels) {
  RecentActivations recent;
  const auto add = [&recent](const std::string& model, int massive) {
    recent.Add({recent.NewRun(), 0, ArmKind::kClean}, model,
               ActivationMatrix::kQAfter, 0, Massive(massive));
  };
  for (int i = 0; i < RecentActivations::kModels; ++i) {
    add(absl::StrCat("m", i), i);
  }
  for (int i = 0; i < RecentActivations::kPrompts + 5; ++i) add("m0", i);
  add("new", 1);
  const std::vector<RecentModel> models = recent.Read(Everybody);
  ASSERT_EQ(static_cast<int>(models.size()), RecentActivations::kModels);
  EXPECT_EQ(models[0].model, "new");
  EXPECT_EQ(models[1].model, "m0");
  EXPECT_EQ(models.back().model, "m2") << "m1 was used least recently";
  ASSERT_EQ(static_cast<int>(models[1].prompts.size()),
            RecentActivations::kPrompts);
  EXPECT_EQ(models[1].prompts.front().count(Qkv::kQ, 0), 5);
  EXPECT_EQ(models[1].prompts.back().count(Qkv::kQ, 0),
            RecentActivations::kPrompts + 4);
  EXPECT_EQ(recent.Read([](const std::string& model) { return model == "m3"; })
                .size(),
            1u);
}

TEST(HeatMapTest, EachCellHasItsPlaceAndColour) {
  RecentModel model;
  model.prompts.resize(3);
  model.prompts[0].counts[1] = {0, RecentPrompt::kNotCaptured, 3};
  model.prompts[1].counts[1] = {RecentPrompt::kNotFinite, 200, 2};
  model.prompts[2].counts[1] = {0};
  model.prompts[1].arm = ArmKind::kDisrupted;
  const std::string svg = HeatMapSvg("K", model, Qkv::kK, 3);
  EXPECT_THAT(svg, HasSubstr("<path class=\"c0\" d=\"M0 0h1M2 0h1\"/>"));
  EXPECT_THAT(svg, HasSubstr("<path class=\"c2\" d=\"M0 2h2\"/>"));
  EXPECT_THAT(svg, HasSubstr("<path class=\"cx\" d=\"M1 0h1\"/>"));
  EXPECT_THAT(svg, HasSubstr("<path class=\"c8\" d=\"M1 1h1\"/>"));
  EXPECT_EQ(Count(svg, "<path class=\"c"), 4u);
  // The newest takes the last of the columns.
  EXPECT_THAT(
      svg, HasSubstr(absl::StrCat(
               "translate(",
               kHeatLeft + kHeatColumn * (RecentActivations::kPrompts - 3))));
  EXPECT_EQ(Count(svg, "class=\"mark\""), 1u);
  EXPECT_THAT(svg, HasSubstr("from 0 to 200, most in layer 1\""));
}

TEST(StatusPageTest, ShowsWhatIsThere) {
  StatusPage page = SmallPage();
  page.models.push_back({.name = "tiny",
                         .state = "ready",
                         .architecture = "llama",
                         .layers = 2,
                         .weights_dtype = "F32",
                         .compute = "f32",
                         .parameters = 1234567,
                         .host_bytes = 3 << 20,
                         .load_seconds = 1.25});
  page.models.push_back(
      {.name = "broken", .state = "failed", .failure = "no such file"});
  page.queue = {
      .waiting = 3, .running = 2, .limit = 256, .oldest = absl::Seconds(75)};
  UserState ada;
  ada.alias = "ada";
  ada.share = 0.5;
  ada.in_flight = 5;
  ada.queued = 3;
  ada.window.device_seconds = 30;
  ada.budget.device_ms_per_window = 60'000;
  page.users.push_back({ada, 2, 2048});
  page.kept = {7, 100, 1 << 20, 1 << 30, absl::Hours(1)};
  page.documents = {"operating.md"};
  const std::string html = RenderStatusPage(page);
  for (const char* shown :
       {"<title>Serving - qkscope</title>", "1.2.3", "1 d 3 h", "A processor",
        "tiny", "1,234,567", "3 MiB", "1.25 s", "no such file", "1 min 15 s",
        "3 of 256", "<th scope=\"row\">ada</th>", "50 %", "30.0 s of 1 min 0 s",
        "7 of 100", "2023-11-14 22:13:20 UTC", "href=\"/docs/operating.md\"",
        "href=\"/metrics\""}) {
    EXPECT_THAT(html, HasSubstr(shown));
  }
  EXPECT_THAT(html, Not(HasSubstr("http-equiv")));
  page.live = true;
  EXPECT_THAT(RenderStatusPage(page), HasSubstr("http-equiv=\"refresh\""));
  page.health = StatusPage::Health::kDraining;
  EXPECT_THAT(RenderStatusPage(page), HasSubstr("<title>Draining - qkscope"));
}

// A page in which every text is hostile and there is as much as can be.
StatusPage LargePage(const std::string& text) {
  StatusPage page = SmallPage();
  page.version = page.backend.name = page.backend.device = page.alias = text;
  page.viewer = StatusPage::Viewer::kOperator;
  page.documents = {text};
  for (int i = 0; i < 50; ++i) {
    page.models.push_back({.name = absl::StrCat(text, i),
                           .state = text,
                           .failure = text,
                           .architecture = text,
                           .layers = 128,
                           .weights_dtype = text,
                           .compute = text,
                           .parameters = int64_t{1} << 62,
                           .host_bytes = int64_t{1} << 62});
  }
  for (int i = 0; i < 500; ++i) {
    UserState user;
    user.alias = absl::StrCat(text, i);
    user.in_flight = i;
    user.budget.device_ms_per_window = user.budget.bytes_per_window = 1;
    page.users.push_back({user, int64_t{1} << 62, int64_t{1} << 62});
  }
  page.kept = {int64_t{1} << 62, 1, 1, 1, absl::InfiniteDuration()};
  for (int m = 0; m < RecentActivations::kModels; ++m) {
    RecentModel& model = page.activations.emplace_back();
    model.model = absl::StrCat(text, m);
    model.prompts.resize(RecentActivations::kPrompts);
    for (size_t p = 0; p < model.prompts.size(); ++p) {
      RecentPrompt& prompt = model.prompts[p];
      prompt.at = absl::UnixEpoch();
      prompt.arm = ArmKind::kControl;
      for (int layer = 0; layer < 200; ++layer) {
        // No two cells side by side have the same colour.
        for (auto& counts : prompt.counts) counts.push_back(p % 2 == 0 ? 0 : 9);
      }
    }
  }
  return page;
}

TEST(StatusPageTest, O9_IsBoundedHoweverMuchThereIs) {
  const std::string html = RenderStatusPage(LargePage(std::string(64, 'x')));
  EXPECT_LE(html.size(), kMaxStatusBytes);
  EXPECT_GT(html.size(), kMaxStatusBytes / 8);
  std::printf("largest status page: %zu bytes\n", html.size());
  EXPECT_THAT(html, HasSubstr("and 480 other users"));
  EXPECT_THAT(html, HasSubstr("and 4 other models with recent prompts"));
  EXPECT_THAT(html, HasSubstr("x499<")) << "the busiest user";
  EXPECT_THAT(html, Not(HasSubstr("x479<")));
  // Twice the texts add to the rows that are shown only.
  StatusPage more = LargePage(std::string(64, 'x'));
  more.users.insert(more.users.end(), more.users.begin(), more.users.end());
  EXPECT_LE(RenderStatusPage(more).size(), html.size() + 100);
}

TEST(StatusPageTest, O9_EscapesEveryText) {
  const std::string bad = "<b>\"'&\x1B[2J\xE2\x80\xAE";
  const std::string html = RenderStatusPage(LargePage(bad));
  EXPECT_THAT(html, Not(HasSubstr("<b>")));
  EXPECT_THAT(html, Not(HasSubstr("\x1B")));
  EXPECT_THAT(html, Not(HasSubstr("\xE2\x80\xAE")));
  EXPECT_THAT(html, Not(HasSubstr("\"'&")));
  EXPECT_GT(Count(html, "&lt;b&gt;&quot;&#39;&amp;"), 100u);
}

TEST(StatusPageTest, NothingOfThePageNeedsMoreThanItsPolicyAllows) {
  const std::string html = RenderStatusPage(LargePage("x"));
  for (const char* refused :
       {"<script", "style=\"", "<style", " onload", "javascript:", "http://",
        "https://", "<img", "src=", "url("}) {
    EXPECT_THAT(html, Not(HasSubstr(refused)));
  }
  const std::string style = kStatusStyle;
  EXPECT_THAT(style, Not(HasSubstr("url(")));
  EXPECT_THAT(style, Not(HasSubstr("@import")));
}

TEST(StatusPageTest, O9_WithoutATokenThereAreNoUsers) {
  StatusPage page = LargePage("secret");
  page.viewer = StatusPage::Viewer::kNobody;
  page.models.clear();
  page.activations.clear();
  page.version = page.backend.name = page.backend.device = "x";
  page.documents.clear();
  EXPECT_THAT(RenderStatusPage(page), Not(HasSubstr("secret")))
      << "even if the caller has left users in";
}

}  // namespace
}  // namespace qk
