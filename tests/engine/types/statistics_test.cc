// Compares statistics, choices and comparisons with references in float64
// (tests/goldens/make_statistics_goldens.py).
#include "engine/types/statistics.h"

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "tests/engine/backend/device_rule.h"
#include "tests/engine/forward_driver.h"

namespace qk::testing {
namespace {

constexpr double kTolerance = 1e-6;  // relative: float32 fields
// The tolerance covers two log-sums of float32 exponentials, nats.
constexpr double kKlTolerance = 4e-7;

// NaN fails.
void ExpectClose(double got, double want, const std::string& what) {
  EXPECT_TRUE(std::abs(got - want) <=
              kTolerance * std::max(1e-6, std::abs(want)))
      << what << ": got " << got << ", want " << want;
}

template <typename T>
void ExpectOptional(const std::optional<T>& got, const JsonValue& expected,
                    const char* key, const std::string& name) {
  const std::optional<JsonValue> want = expected.Find(key);
  ASSERT_EQ(got.has_value(), want.has_value()) << name << " " << key;
  if (got.has_value()) {
    ExpectClose(*got, want->AsDouble().value(), name + " " + key);
  }
}

std::vector<double> Doubles(const JsonValue& array) {
  std::vector<double> values;
  const absl::Status status =
      array.ForEachElement([&](JsonValue element) -> absl::Status {
        QK_ASSIGN_OR_RETURN(const double value, element.AsDouble());
        values.push_back(value);
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
  return values;
}

class StatisticsTest : public ::testing::Test {
 protected:
  StatisticsTest()
      : json_(ReadJson(GoldenPath("statistics/cases.json"))),
        inputs_(OpenSafetensors(GoldenPath("statistics/inputs.safetensors"))
                    .value()) {}

  // Calls check(case, name) for each case of a kind, and returns their number.
  template <typename Check>
  int ForEachCase(const char* kind, const Check& check) {
    int cases = 0;
    const absl::Status status =
        json_.root().GetArray(kind).value().ForEachElement(
            [&](JsonValue c) -> absl::Status {
              check(c, std::string(c.GetString("name").value()));
              ++cases;
              return absl::OkStatus();
            });
    EXPECT_TRUE(status.ok()) << status;
    return cases;
  }

  // Returns the tensor that a field of a case names: (shape[0], shape[1]).
  std::vector<float> Tensor(const JsonValue& c, const char* field,
                            std::vector<int64_t>* shape) {
    const std::string name(c.GetString(field).value());
    *shape = inputs_->Find(name)->shape;
    return ReadTensor(*inputs_, name);
  }

  JsonDocument json_;
  std::unique_ptr<TensorSource> inputs_;
};

void ExpectEntry(const MassiveEntry& got, const JsonValue& want,
                 const std::string& name) {
  EXPECT_EQ(got.head, want.GetInt64("head").value()) << name;
  EXPECT_EQ(got.dim, want.GetInt64("dim").value()) << name;
  ExpectClose(got.norm, want.GetDouble("norm").value(), name + " norm");
  ExpectClose(got.ratio, want.GetDouble("ratio").value(), name + " ratio");
  ExpectOptional(got.wavelength, want, "wavelength", name);
}

void ExpectStatistics(const Statistics& s, const JsonValue& want,
                      const std::string& name) {
  EXPECT_EQ(s.massive_count, want.GetInt64("massive_count").value()) << name;
  EXPECT_EQ(s.non_finite_count, want.GetInt64("non_finite_count").value())
      << name;
  const bool any_finite = want.Find("max").has_value();
  if (any_finite) {
    ExpectClose(s.ratio, want.GetDouble("ratio").value(), name + " ratio");
    ExpectClose(s.max, want.GetDouble("max").value(), name + " max");
  } else {
    EXPECT_TRUE(std::isnan(s.ratio)) << name;
    EXPECT_TRUE(std::isnan(s.max)) << name;
    EXPECT_TRUE(std::isnan(s.largest.ratio)) << name;
    EXPECT_TRUE(std::isnan(s.largest.norm)) << name;
  }
  ExpectOptional(s.top_dim, want, "top_dim", name);
  ExpectOptional(s.top_dim_share, want, "top_dim_share", name);
  ExpectOptional(s.low_frequency_share, want, "low_frequency_share", name);
  const JsonValue top = want.GetArray("top").value();
  ASSERT_EQ(static_cast<int64_t>(s.top.size()), top.size()) << name;
  size_t i = 0;
  EXPECT_TRUE(top.ForEachElement([&](JsonValue entry) -> absl::Status {
                   ExpectEntry(s.top[i++], entry, name);
                   return absl::OkStatus();
                 })
                  .ok());
  const std::optional<JsonValue> largest = want.Find("largest");
  if (largest.has_value()) {
    ExpectEntry(s.largest, *largest, name + " largest");
  } else if (any_finite) {
    EXPECT_EQ(s.largest.ratio, 0.0f) << name;
  }
}

TEST_F(StatisticsTest, EveryCaseEqualsTheReference) {
  const int cases = ForEachCase(
      "statistics", [&](const JsonValue& c, const std::string& name) {
        std::vector<int64_t> shape;
        const std::vector<float> norms = Tensor(c, "norms", &shape);
        ExpectStatistics(
            ComputeStatistics(norms, static_cast<int>(shape[0]),
                              static_cast<int>(shape[1]), {},
                              Doubles(c.GetArray("wavelengths").value()),
                              c.GetDouble("lambda").value(),
                              static_cast<int>(c.GetInt64("top_n").value())),
            c.Get("expected").value(), name);
      });
  EXPECT_EQ(cases, 13);
}

TEST(StatisticsHeadsTest, EntriesNameTheCapturedHeads) {
  const std::vector<float> norms = {1, 1, 1, 30, 1, 1, 40, 1};
  const Statistics s = ComputeStatistics(norms, 2, 4, {3, 7}, {}, 2.0, 8);
  ASSERT_EQ(s.top.size(), 2u);
  EXPECT_EQ(s.top[0].head, 7);
  EXPECT_EQ(s.top[0].dim, 2);
  EXPECT_EQ(s.top[1].head, 3);
  EXPECT_EQ(s.largest.head, 7);
}

DisruptionRule SelectionRule(const JsonValue& select, int* cases_of_kind) {
  using Rule = DisruptionRule;
  Rule rule;
  EXPECT_TRUE(select
                  .ForEachMember(
                      [&](absl::string_view kind, JsonValue v) -> absl::Status {
                        ++*cases_of_kind;
                        rule.k = static_cast<int>(v.GetInt64Or("k", 0).value());
                        if (kind == "bottom_k")
                          rule.select = Rule::Select::kBottomK;
                        if (kind == "threshold") {
                          rule.select = Rule::Select::kThreshold;
                          rule.lambda = v.GetDouble("lambda").value();
                        }
                        if (kind == "random_k") {
                          rule.select = Rule::Select::kRandomK;
                          rule.seed = static_cast<uint64_t>(
                              v.GetInt64Or("seed", 0).value());
                          rule.exclude_top = static_cast<int>(
                              v.GetInt64Or("exclude_top", rule.k).value());
                        }
                        return absl::OkStatus();
                      })
                  .ok());
  return rule;
}

TEST_F(StatisticsTest, EverySelectionEqualsTheReference) {
  const std::unique_ptr<Backend> backend = MakeTestBackend();
  int kinds = 0;
  const int cases = ForEachCase("selections", [&](const JsonValue& c,
                                                  const std::string& name) {
    std::vector<int64_t> shape;
    const std::vector<float> norms = Tensor(c, "norms", &shape);
    const int dims = static_cast<int>(shape[1]);
    const DisruptionRule rule = SelectionRule(c.Get("select").value(), &kinds);
    std::vector<HeadRole> roles;
    std::vector<double> squares, sums(norms.size(), 0.0);
    for (float norm : norms) squares.push_back(double{norm} * norm);
    for (int h = 0; h < shape[0]; ++h) roles.push_back({true, h});
    const std::vector<uint8_t> mask =
        Select(*backend, rule, roles, squares, sums, 1).mask;
    size_t head = 0;
    const auto status =
        c.GetArray("expected")
            .value()
            .ForEachElement([&](JsonValue want) -> absl::Status {
              std::vector<int32_t> chosen;
              for (int d = 0; d < dims; ++d) {
                if (mask[head * dims + d] == 1) chosen.push_back(d);
              }
              EXPECT_EQ(chosen, Ids(want)) << name << " head " << head;
              ++head;
              return absl::OkStatus();
            });
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(head, static_cast<size_t>(shape[0]));
  });
  EXPECT_EQ(cases, 16);
  EXPECT_EQ(kinds, 16);
}

// Each row's target is the next id.
DeviceVector<LogitsRow> Reduced(Backend& backend,
                                const DeviceVector<float>& logits, int vocab,
                                const std::vector<int32_t>& ids) {
  std::vector<int32_t> targets(ids.begin() + 1, ids.end());
  targets.push_back(-1);
  DeviceVector<LogitsRow> rows(backend, ids.size());
  backend.ReduceLogits(logits.data(), vocab, targets, rows.data());
  return rows;
}

TEST_F(StatisticsTest, EveryComparisonEqualsTheReference) {
  const std::unique_ptr<Backend> backend = MakeTestBackend();
  const int cases = ForEachCase(
      "comparisons", [&](const JsonValue& c, const std::string& name) {
        std::vector<int64_t> shape;
        const DeviceVector<float> base(*backend, Tensor(c, "base", &shape));
        const DeviceVector<float> arm(*backend, Tensor(c, "arm", &shape));
        const int vocab = static_cast<int>(shape[1]);
        const std::vector<int32_t> ids = Ids(c.Get("ids").value());
        const DeviceVector<LogitsRow> base_rows =
            Reduced(*backend, base, vocab, ids);
        DeviceVector<LogitsRow> reduced = Reduced(*backend, arm, vocab, ids);
        DeviceVector<float> divergence(*backend, ids.size());
        backend->KlDivergence(base.data(), arm.data(), vocab,
                              static_cast<int>(ids.size()), base_rows.data(),
                              reduced.data(), divergence.data());
        const std::vector<float> kl = divergence.Read();
        const std::vector<LogitsRow> arm_rows = reduced.Read();
        const JsonValue expected = c.Get("expected").value();
        const auto want_kl = Doubles(expected.Get("kl").value());
        const auto want = Doubles(expected.Get("token_logprob").value());
        const auto top1 = Ids(expected.Get("top1_id").value());
        ASSERT_FALSE(ids.empty());
        ASSERT_EQ(want_kl.size(), ids.size());
        ASSERT_EQ(want.size(), ids.size());
        ASSERT_EQ(top1.size(), ids.size());
        for (size_t t = 0; t < ids.size(); ++t) {
          EXPECT_TRUE(std::abs(kl[t] - want_kl[t]) <=
                      kKlTolerance + 1e-5 * want_kl[t])
              << name << " kl[" << t << "]: " << kl[t] << " for " << want_kl[t];
          if (want_kl[t] == 0) {
            EXPECT_EQ(kl[t], 0.0f) << name;
          }
          EXPECT_EQ(arm_rows[t].top1, top1[t]) << name;
          if (t + 1 == ids.size()) continue;
          ExpectClose(arm_rows[t].target_logprob, want[t + 1],
                      name + " token_logprob");
        }
      });
  EXPECT_EQ(cases, 8);
}

}  // namespace
}  // namespace qk::testing
