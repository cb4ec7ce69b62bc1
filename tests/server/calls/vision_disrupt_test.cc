// Compares rules of the vision tower with the rule and attention as written out
// here, over transformers' own Q, K and V.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "gmock/gmock.h"
#include "tests/server/convert/images_testing.h"

namespace qk::testing {
namespace {

// (patches, heads, dims)
using Rows = std::vector<double>;

Rows GoldenDoubles(int image, pb::HookPoint point) {
  const std::vector<float> rows = GoldenRows("p1", image, 0, point);
  return {rows.begin(), rows.end()};
}

std::vector<float> ToFloats(const Rows& rows) {
  return {rows.begin(), rows.end()};
}

// The dim with a head's largest norm, which is replaced with its mean.
struct TopDim {
  int dim = 0;
  double mean = 0;
};

TopDim FindTop(const Rows& x, int head) {
  std::vector<double> squares(kVisionDims), sums(kVisionDims);
  for (size_t i = 0; i < x.size(); ++i) {
    if (static_cast<int>(i) / kVisionDims % kVisionHeads != head) continue;
    squares[i % kVisionDims] += x[i] * x[i];
    sums[i % kVisionDims] += x[i];
  }
  TopDim top;
  top.dim = static_cast<int>(std::max_element(squares.begin(), squares.end()) -
                             squares.begin());
  const size_t rows = x.size() / kVisionWidth;
  top.mean = sums[top.dim] / static_cast<double>(rows);
  return top;
}

Rows Disrupted(Rows x) {
  for (int h = 0; h < kVisionHeads; ++h) {
    const TopDim top = FindTop(x, h);
    for (size_t row = 0; row < x.size(); row += kVisionWidth) {
      x[row + h * kVisionDims + top.dim] = top.mean;
    }
  }
  return x;
}

// Computes softmax(q k^T / sqrt(dims)) v for each head, one frame at a time.
Rows Attend(const Rows& q, const Rows& k, const Rows& v, int frame_patches) {
  const int patches = static_cast<int>(q.size()) / kVisionWidth;
  Rows z(q.size());
  for (int t = 0; t < patches; ++t) {
    const int first = t / frame_patches * frame_patches;
    for (int h = 0; h < kVisionHeads; ++h) {
      const auto at = [&](int row) {
        return row * kVisionWidth + h * kVisionDims;
      };
      std::vector<double> weights(frame_patches);
      double sum = 0;
      for (int s = 0; s < frame_patches; ++s) {
        double dot = 0;
        for (int d = 0; d < kVisionDims; ++d) {
          dot += q[at(t) + d] * k[at(first + s) + d];
        }
        sum += weights[s] = std::exp(dot / std::sqrt(double{kVisionDims}));
      }
      for (int s = 0; s < frame_patches; ++s) {
        for (int d = 0; d < kVisionDims; ++d) {
          z[at(t) + d] += weights[s] / sum * v[at(first + s) + d];
        }
      }
    }
  }
  return z;
}

// Adds the arm "broken", whose rule is for the tower's layer 0, and then the
// arm "clean".
pb::AnalyzeRequest BrokenTower(pb::AnalyzeRequest request) {
  *request.mutable_arms() =
      Parse<pb::AnalyzeRequest>(
          "arms {name: 'broken' disruptions {tower: VISION top_k {k: 1} "
          "layers: 0}} arms {name: 'clean'}")
          .arms();
  *request.mutable_capture() = Parse<pb::Capture>(
      "form: RAW stage: BEFORE_AND_AFTER vision_layers: [0, 1]");
  for (pb::HookPoint point : kVisionPoints) {
    request.mutable_capture()->add_points(point);
  }
  return request;
}

TEST_F(ImagesTest, ARuleOfTheTowerDoesWhatItSays) {
  const Analysis out = Analyze(BrokenTower(Golden("p1")));
  ASSERT_TRUE(out.status.ok()) << out.status.error_message();
  const std::vector<Image> images = GoldenImages(kVisionModel, "p1");
  int compared = 0;
  for (const pb::Layer* frame : out.layers()) {
    if (!frame->has_image() || frame->layer() != 0) continue;
    const int i = frame->image();
    const bool after = frame->stage() == pb::AFTER;
    const pb::HookPoint point = frame->point();
    Rows want = GoldenDoubles(i, point);
    if (frame->arm() == "broken" && point == pb::HOOK_Z) {
      want = Attend(Disrupted(GoldenDoubles(i, pb::HOOK_ROT_Q)),
                    Disrupted(GoldenDoubles(i, pb::HOOK_ROT_K)),
                    GoldenDoubles(i, pb::HOOK_V),
                    images[i].rows * images[i].columns);
      EXPECT_GT(Nmse(ToFloats(want), GoldenRows("p1", i, 0, point)), 1e-6);
    } else if (frame->arm() == "broken" && after &&
               (point == pb::HOOK_ROT_Q || point == pb::HOOK_ROT_K)) {
      want = Disrupted(want);
    }
    const double nmse = Nmse(Floats(frame->data()), ToFloats(want));
    EXPECT_TRUE(nmse <= 1e-10)
        << frame->arm() << " image " << i << " " << pb::HookPoint_Name(point)
        << (after ? " after" : "") << ": NMSE " << nmse;
    ++compared;
  }
  EXPECT_EQ(compared, 2 * 2 * 6 * 2);  // arms, images, points, stages
}

TEST_F(ImagesTest, WhatARuleOfTheTowerChoseIsToldForEachImage) {
  const Analysis out = Analyze(BrokenTower(Golden("p1")));
  ASSERT_TRUE(out.status.ok()) << out.status.error_message();
  const std::vector<Image> images = GoldenImages(kVisionModel, "p1");
  std::set<std::pair<int, int>> told;  // image, tensor
  for (const pb::AnalyzeEvent& event : out.events) {
    if (!event.has_applied()) continue;
    const pb::Applied& applied = event.applied();
    ASSERT_TRUE(applied.has_image());
    EXPECT_EQ(applied.arm(), "broken");
    EXPECT_EQ(applied.layer(), 0);
    const int64_t patches = images[applied.image()].patches();
    EXPECT_EQ(applied.replaced(), patches * kVisionHeads);
    ASSERT_EQ(applied.chosen_size(), kVisionHeads);
    const Rows rows = GoldenDoubles(
        applied.image(),
        applied.tensor() == pb::QKV_TENSOR_Q ? pb::HOOK_ROT_Q : pb::HOOK_ROT_K);
    for (int h = 0; h < kVisionHeads; ++h) {
      const TopDim top = FindTop(rows, h);
      EXPECT_THAT(applied.chosen(h).dims(), ::testing::ElementsAre(top.dim));
      ASSERT_EQ(applied.chosen(h).values_size(), 1);
      EXPECT_NEAR(applied.chosen(h).values(0), top.mean, 1e-5);
    }
    EXPECT_TRUE(told.insert({applied.image(), applied.tensor()}).second);
  }
  EXPECT_EQ(told.size(), 2u * 2);  // Q and K of two images
}

TEST_F(ImagesTest, ABrokenTowerIsItsArmsAlone) {
  pb::AnalyzeRequest request = BrokenTower(Golden("p1"));
  request.mutable_compare()->set_baseline("clean");
  const Analysis both = Analyze(request);
  ASSERT_TRUE(both.status.ok()) << both.status.error_message();
  std::map<std::string, float> kl;
  for (const pb::AnalyzeEvent& event : both.events) {
    if (event.has_comparison()) {
      kl[event.comparison().arm()] = event.comparison().mean_kl();
    }
  }
  ASSERT_EQ(kl.size(), 2u);
  EXPECT_EQ(kl.at("clean"), 0.0f);
  EXPECT_GT(kl.at("broken"), 1e-6f);
  pb::AnalyzeRequest alone = request;
  alone.mutable_arms()->DeleteSubrange(0, 1);
  const Analysis clean = Analyze(alone);
  ASSERT_TRUE(clean.status.ok()) << clean.status.error_message();
  std::string bytes[2];
  for (const pb::Layer* frame : both.layers()) {
    if (frame->arm() == "clean") bytes[0] += frame->data();
  }
  for (const pb::Layer* frame : clean.layers()) bytes[1] += frame->data();
  EXPECT_FALSE(bytes[1].empty());
  EXPECT_TRUE(bytes[0] == bytes[1]);
}

}  // namespace
}  // namespace qk::testing
