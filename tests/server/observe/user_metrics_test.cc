// Tests who has series of their own, and that series only grow and add up to
// the truth, against what Prometheus would make of the scrapes.
#include "server/observe/user_metrics.h"

#include <cmath>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace qk {
namespace {

constexpr char kCalls[] = "qkscope_user_requests_total";
constexpr char kDevice[] = "qkscope_user_device_seconds_total";
constexpr char kBytes[] = "qkscope_user_streamed_bytes_total";
constexpr char kMemory[] = "qkscope_user_memory_bytes";
constexpr char kInFlight[] = "qkscope_user_in_flight_requests";
constexpr char kBudget[] = "qkscope_user_budget_used_ratio";

// Name of a family -> user -> value.
using Scrape = std::map<std::string, std::map<std::string, double>>;

// What users do to a server, and the scrapes of it.
class Crowd {
 public:
  UserLoad& At(const std::string& alias) {
    UserLoad& load = loads_[alias];
    load.alias = alias;
    return load;
  }
  void Use(const std::string& alias, double device_seconds) {
    At(alias).device_seconds += device_seconds;
  }
  void Call(const std::string& alias) {
    metrics_.CountCall(alias);
    ++calls_[alias];
  }
  Scrape Look(absl::Duration later = absl::Seconds(15)) {
    now_ += later;
    std::vector<UserLoad> loads;
    for (const auto& [alias, load] : loads_) loads.push_back(load);
    Scrape scrape;
    for (const auto& family : metrics_.Collect(loads, now_)) {
      EXPECT_FALSE(family.help.empty());
      for (const auto& metric : family.metric) {
        EXPECT_EQ(metric.label.size(), 1u);
        const bool is_counter = family.type == prometheus::MetricType::Counter;
        const bool is_new =
            scrape[family.name]
                .emplace(metric.label[0].value,
                         is_counter ? metric.counter.value : metric.gauge.value)
                .second;
        EXPECT_TRUE(is_new) << family.name << " " << metric.label[0].value;
      }
    }
    return scrape;
  }
  double Truth(const std::string& family) const {
    double sum = 0;
    for (const auto& [alias, load] : loads_) {
      if (family == kDevice) sum += load.device_seconds;
      if (family == kBytes) sum += static_cast<double>(load.bytes);
    }
    for (const auto& [alias, calls] : calls_) {
      if (family == kCalls) sum += static_cast<double>(calls);
    }
    return sum;
  }

 private:
  UserMetrics metrics_;
  std::map<std::string, UserLoad> loads_;
  std::map<std::string, int64_t> calls_;
  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
};

// As Prometheus counts: what each series has grown by between two scrapes that
// show it, from 0 on.
class Increases {
 public:
  void Add(const Scrape& scrape) {
    for (const char* family : {kCalls, kDevice, kBytes}) {
      for (const auto& [user, value] : scrape.at(family)) {
        double& last = last_[{family, user}];
        EXPECT_GE(value, last) << family << " " << user;
        sums_[family] += value - last;
        last = value;
      }
    }
  }
  double Sum(const std::string& family) const { return sums_.at(family); }

 private:
  std::map<std::pair<std::string, std::string>, double> last_;
  std::map<std::string, double> sums_;
};

std::string Name(int i) { return "user" + std::to_string(i); }

TEST(UserMetricsTest, NobodyIsOther) {
  Crowd crowd;
  const Scrape scrape = crowd.Look();
  EXPECT_EQ(scrape.at(kCalls), (std::map<std::string, double>{{"other", 0}}));
  EXPECT_FALSE(scrape.contains(kBudget));
}

TEST(UserMetricsTest, AFewUsersHaveWhatTheyDid) {
  Crowd crowd;
  crowd.At("ada") = {.alias = "ada",
                     .device_seconds = 2.5,
                     .bytes = 1000,
                     .memory_bytes = 64,
                     .in_flight = 3,
                     .budget_used = 0.75};
  crowd.Use("bob", 1);
  for (int i = 0; i < 4; ++i) crowd.Call("ada");
  crowd.Call("carl");  // has never had a run
  for (int i = 0; i < 2; ++i) {
    const Scrape scrape = crowd.Look();
    using Values = std::map<std::string, double>;
    EXPECT_EQ(scrape.at(kCalls),
              (Values{{"ada", 4}, {"bob", 0}, {"carl", 1}, {"other", 0}}));
    EXPECT_EQ(scrape.at(kDevice),
              (Values{{"ada", 2.5}, {"bob", 1}, {"carl", 0}, {"other", 0}}));
    EXPECT_EQ(scrape.at(kBytes),
              (Values{{"ada", 1000}, {"bob", 0}, {"carl", 0}, {"other", 0}}));
    EXPECT_EQ(scrape.at(kMemory),
              (Values{{"ada", 64}, {"bob", 0}, {"carl", 0}, {"other", 0}}));
    EXPECT_EQ(scrape.at(kInFlight),
              (Values{{"ada", 3}, {"bob", 0}, {"carl", 0}, {"other", 0}}));
    EXPECT_EQ(scrape.at(kBudget), (Values{{"ada", 0.75}}));
  }
}

// Fills the places: user0 has used 1 s, user1 2 s and so on.
void FillPlaces(Crowd* crowd) {
  for (int i = 0; i < UserMetrics::kMostUsers; ++i) {
    crowd->Use(Name(i), i + 1);
  }
  EXPECT_EQ(crowd->Look(absl::ZeroDuration()).at(kDevice).size(),
            UserMetrics::kMostUsers + 1);
}

TEST(UserMetricsTest, ASeriesIsTakenByWhoIsMuchBusier) {
  Crowd crowd;
  FillPlaces(&crowd);
  crowd.Use("late", 1.9);
  Scrape scrape = crowd.Look(absl::ZeroDuration());
  EXPECT_FALSE(scrape.at(kDevice).contains("late"));
  EXPECT_EQ(scrape.at(kDevice).at("other"), 1.9);
  EXPECT_EQ(scrape.at(kDevice).at("user0"), 1);

  crowd.Use("late", 0.2);
  crowd.Use("user0", 0);
  scrape = crowd.Look(absl::ZeroDuration());
  EXPECT_EQ(scrape.at(kDevice).at("late"), 0);
  EXPECT_DOUBLE_EQ(scrape.at(kDevice).at("other"), 2.1);
  EXPECT_FALSE(scrape.at(kDevice).contains("user0"));
  EXPECT_FALSE(scrape.at(kInFlight).contains("user0"));
  EXPECT_EQ(scrape.at(kDevice).size(), UserMetrics::kMostUsers + 1);

  // From now on, what it does is its own, and what user0 does is not.
  crowd.Use("late", 4);
  crowd.Use("user0", 0.5);
  scrape = crowd.Look(absl::ZeroDuration());
  EXPECT_DOUBLE_EQ(scrape.at(kDevice).at("late"), 4);
  EXPECT_DOUBLE_EQ(scrape.at(kDevice).at("other"), 2.6);
  EXPECT_FALSE(scrape.at(kDevice).contains("user0"));
}

TEST(UserMetricsTest, WhoGetsSeriesBackGoesOn) {
  Crowd crowd;
  FillPlaces(&crowd);
  crowd.Use("late", 50);
  EXPECT_FALSE(crowd.Look().at(kDevice).contains("user0"));
  crowd.Use("user0", 60);
  EXPECT_EQ(crowd.Look().at(kDevice).at("user0"), 1);
  crowd.Use("user0", 2);
  const Scrape scrape = crowd.Look();
  EXPECT_EQ(scrape.at(kDevice).at("user0"), 3);
  EXPECT_EQ(scrape.at(kDevice).at("other"), 110);
}

TEST(UserMetricsTest, OldUseCountsLess) {
  Crowd crowd;
  FillPlaces(&crowd);
  crowd.Use("late", 1.5);
  EXPECT_FALSE(crowd.Look(absl::ZeroDuration()).at(kDevice).contains("late"));
  // An hour later, a second of then is worth a 64th.
  crowd.Use("late", 0.1);
  EXPECT_TRUE(crowd.Look(absl::Hours(1)).at(kDevice).contains("late"));
}

TEST(UserMetricsTest, IdleUsersKeepTheirSeriesFromIdleUsers) {
  Crowd crowd;
  FillPlaces(&crowd);
  for (int i = 0; i < 50; ++i) crowd.Call(Name(1000 + i));
  const Scrape scrape = crowd.Look(absl::Hours(24 * 365));
  EXPECT_EQ(scrape.at(kCalls).at("other"), 50);
  EXPECT_TRUE(scrape.at(kCalls).contains("user0"));
}

TEST(UserMetricsTest, AUserCalledOtherIsNotShownTwice) {
  Crowd crowd;
  crowd.Use("other", 3);
  crowd.Call("other");
  crowd.At("other").in_flight = 1;
  const Scrape scrape = crowd.Look();  // expects each label once
  EXPECT_EQ(scrape.at(kDevice).at("other"), 3);
  EXPECT_EQ(scrape.at(kCalls).at("other"), 1);
  EXPECT_EQ(scrape.at(kInFlight).at("other"), 1);
}

TEST(UserMetricsTest, OtherHasTheGaugesOfTheRest) {
  Crowd crowd;
  FillPlaces(&crowd);
  for (int i = 0; i < 3; ++i) {
    UserLoad& load = crowd.At("late" + std::to_string(i));
    load.memory_bytes = 100;
    load.in_flight = 2;
    load.budget_used = 0.25 * i;
  }
  const Scrape scrape = crowd.Look();
  EXPECT_EQ(scrape.at(kMemory).at("other"), 300);
  EXPECT_EQ(scrape.at(kInFlight).at("other"), 6);
  EXPECT_EQ(scrape.at(kBudget).at("other"), 0.5);
}

// 500 users, some of whom are busy for a while, then others.
TEST(UserMetricsTest, RandomCrowdsAddUp) {
  for (int seed = 0; seed < 3; ++seed) {
    std::mt19937 random(seed);
    const auto below = [&random](int n) {
      return std::uniform_int_distribution<int>(0, n - 1)(random);
    };
    Crowd crowd;
    Increases increases;
    size_t seen = 0;
    int changes = 0;
    std::map<std::string, double> before;
    for (int scrape = 0; scrape < 200; ++scrape) {
      const int center = scrape / 20 * 50;
      for (int i = below(200); i > 0; --i) {
        const std::string user = Name((center + below(150)) % 500);
        crowd.Call(user);
        crowd.Use(user, 0.25 * below(20));
        crowd.At(user).bytes += below(1000);
      }
      const Scrape now = crowd.Look(absl::Seconds(below(60)));
      increases.Add(now);
      for (const auto& [family, values] : now) {
        EXPECT_LE(values.size(), UserMetrics::kMostUsers + 1u);
        EXPECT_TRUE(family == kBudget || values.contains("other"));
      }
      for (const auto& [user, value] : before) {
        changes += now.at(kCalls).contains(user) ? 0 : 1;
      }
      before = now.at(kCalls);
      seen = std::max(seen, before.size());
      for (const char* family : {kCalls, kDevice, kBytes}) {
        const double truth = crowd.Truth(family);
        ASSERT_LE(std::abs(increases.Sum(family) - truth), 1e-9 * truth)
            << family << " in scrape " << scrape << ", seed " << seed;
      }
    }
    EXPECT_EQ(seen, UserMetrics::kMostUsers + 1u);
    EXPECT_GT(changes, 100);
  }
}

}  // namespace
}  // namespace qk
