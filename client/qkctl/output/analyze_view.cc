#include "client/qkctl/output/analyze_view.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

// The columns in the table's order.
constexpr v1::HookPoint kColumns[] = {v1::HOOK_Q, v1::HOOK_ROT_Q,
                                      v1::HOOK_K, v1::HOOK_ROT_K,
                                      v1::HOOK_V, v1::HOOK_Z};
constexpr int kCountWidth = 8;
constexpr int kRatioWidth = 7;
constexpr int kTopWidth = 10;
constexpr int kWavelengthWidth = 11;

// "Q (hook_rot_q)".
std::string PointTitle(int point) {
  const std::string name = absl::AsciiStrToLower(
      v1::HookPoint_Name(static_cast<v1::HookPoint>(point)));
  const char letter = absl::ascii_toupper(name.back());
  return absl::StrCat(std::string(1, letter), " (", name, ")");
}

// Whether the point is Q or K, for which the table shows where the largest
// value is.
bool IsQueryOrKey(int point) {
  return point == v1::HOOK_Q || point == v1::HOOK_ROT_Q ||
         point == v1::HOOK_K || point == v1::HOOK_ROT_K;
}

bool IsKeyOrValue(int point) {
  return point == v1::HOOK_K || point == v1::HOOK_ROT_K || point == v1::HOOK_V;
}

int BlockWidth(int point) {
  return kCountWidth + kRatioWidth +
         (IsQueryOrKey(point) ? kTopWidth + kWavelengthWidth : 0);
}

std::string Wavelength(const v1::MassiveEntry& entry) {
  if (!entry.has_wavelength()) return "-";
  return entry.wavelength() < 100 ? absl::StrFormat("%.1f", entry.wavelength())
                                  : absl::StrFormat("%.0f", entry.wavelength());
}

}  // namespace

void AnalyzeView::OnEvent(const v1::AnalyzeEvent& event) {
  if (event.has_accepted() && event.accepted().queue_position() > 0) {
    console_->Progress(absl::StrCat("waiting, ",
                                    event.accepted().queue_position(),
                                    " ahead of this request"));
  } else if (event.has_started()) {
    OnStarted(event.started());
  } else if (event.has_token()) {
    console_->Progress(absl::StrCat("arm ", event.token().arm(), ": token ",
                                    event.token().step() + 1));
  }
}

void AnalyzeView::OnStarted(const v1::Started& started) {
  const v1::AnalyzeRequest& request = started.expanded();
  for (const v1::Arm& arm : request.arms()) {
    arms_.push_back(arm.name());
    arm_width_ = std::max(arm_width_, static_cast<int>(arm.name().size()));
  }
  const auto& points = request.capture().points();
  for (const v1::HookPoint column : kColumns) {
    if (std::find(points.begin(), points.end(), column) != points.end()) {
      points_.push_back(column);
    }
  }
  expected_bytes_ = started.estimate().streamed_bytes();
  std::string shown;
  if (!arms_.empty()) {
    shown = options_.all_arms
                ? absl::StrCat("; arms ", absl::StrJoin(arms_, ", "))
                : absl::StrCat("; arm ", arms_[0]);
  }
  const int tokens = started.token_ids_size();
  console_->Print(
      console_->Bold(absl::StrCat(request.model(), ": ", tokens,
                                  tokens == 1 ? " token" : " tokens", shown)) +
      "\n");
}

void AnalyzeView::OnTensor(const Tensor& tensor) {
  const v1::Layer& header = tensor.header;
  got_bytes_ += static_cast<int64_t>(tensor.data.size());
  if (header.no_rope()) no_rope_.insert(header.layer());
  const bool shown =
      options_.all_arms || (!arms_.empty() && header.arm() == arms_[0]);
  if (shown && IsKeyOrValue(header.point())) {
    grouped_ = grouped_ || header.group_size() > 1;
    if (header.group_size() == 1) query_head_arms_.insert(header.arm());
  }
  if (shown && !header.has_statistics()) PrintValues(tensor);
  if (shown && header.has_statistics()) AddToRow(header);
  const double share =
      expected_bytes_ > 0
          ? std::min(1.0, static_cast<double>(got_bytes_) / expected_bytes_)
          : 0;
  console_->Progress(absl::StrFormat("%3.0f %%  layer %d, arm %s", 100 * share,
                                     header.layer(), header.arm()));
}

void AnalyzeView::AddToRow(const v1::Layer& header) {
  const RowKey key{header.phase(), header.arm(),
                   header.has_image() ? header.image() : -1, header.layer()};
  if (printed_.count(key) > 0) return;
  Row& row = rows_[key];
  // If there are values before and after the disruption, the row shows those
  // that arrive first.
  row.emplace(header.point(), header.statistics());
  if (row.size() < points_.size()) return;
  PrintRow(key, row);
  rows_.erase(key);
  printed_.insert(key);
}

void AnalyzeView::PrintHeading(int phase, bool vision) {
  if (heading_phase_ == phase && heading_vision_ == vision) return;
  const bool after_vision = heading_vision_;
  heading_phase_ = phase;
  heading_vision_ = vision;
  const std::string indent(options_.all_arms ? arm_width_ + 2 : 0, ' ');
  std::string first = indent + "     ";
  std::string second =
      absl::StrFormat("%-*s%5s", static_cast<int>(indent.size()),
                      options_.all_arms ? "arm" : "", "layer");
  for (const int point : points_) {
    absl::StrAppendFormat(&first, "  %*s", BlockWidth(point),
                          PointTitle(point));
    absl::StrAppendFormat(&second, "  %*s%*s", kCountWidth, "massive",
                          kRatioWidth, "ratio");
    if (IsQueryOrKey(point)) {
      absl::StrAppendFormat(&second, "%*s%*s", kTopWidth, "head,dim",
                            kWavelengthWidth, "wavelength");
    }
  }
  if (vision) {
    console_->Print("vision tower, image.layer:\n");
  } else if (phase == v1::DECODE) {
    console_->Print("generated tokens:\n");
  } else if (after_vision) {
    console_->Print("text:\n");
  }
  console_->Print(
      absl::StrCat(console_->Bold(first), "\n", console_->Bold(second), "\n"));
}

std::string AnalyzeView::Cells(int point, const Row& row) const {
  const auto found = row.find(point);
  if (found == row.end()) {
    return absl::StrFormat("%*s", BlockWidth(point), "-");
  }
  const v1::Statistics& statistics = found->second;
  if (statistics.non_finite_count() > 0) {
    // The largest of norms is not known if one of them is not finite.
    return console_->Bad(
        absl::StrFormat("%*s%*s%*s", kCountWidth, "nan", kRatioWidth, "nan",
                        BlockWidth(point) - kCountWidth - kRatioWidth, ""));
  }
  std::string cells =
      absl::StrFormat("%*d%*.1f", kCountWidth, statistics.massive_count(),
                      kRatioWidth, statistics.ratio());
  if (IsQueryOrKey(point)) {
    const v1::MassiveEntry& top = statistics.largest();
    absl::StrAppendFormat(&cells, "%*s%*s", kTopWidth,
                          absl::StrCat(top.head(), ",", top.dim()),
                          kWavelengthWidth, Wavelength(top));
  }
  return statistics.massive_count() > 0 ? console_->Warm(cells)
                                        : console_->Dim(cells);
}

void AnalyzeView::PrintRow(const RowKey& key, const Row& row) {
  const auto& [phase, arm, image, layer] = key;
  PrintHeading(phase, image >= 0);
  std::string line;
  if (options_.all_arms) line = absl::StrFormat("%-*s  ", arm_width_, arm);
  absl::StrAppendFormat(
      &line, "%5s",
      image >= 0 ? absl::StrCat(image, ".", layer) : absl::StrCat(layer));
  for (const int point : points_) {
    absl::StrAppend(&line, "  ", Cells(point, row));
  }
  console_->Print(line + "\n");
}

void AnalyzeView::PrintValues(const Tensor& tensor) {
  const absl::StatusOr<std::vector<float>> values =
      TensorValues(tensor.header.dtype(), tensor.data);
  if (!values.ok() || values->empty()) return;
  double sum = 0, largest = 0;
  int64_t not_finite = 0;
  for (const float value : *values) {
    if (!std::isfinite(value)) ++not_finite;
    sum += std::fabs(value);
    largest = std::max(largest, std::fabs(static_cast<double>(value)));
  }
  if (not_finite > 0) sum = largest = std::nan("");
  std::string line = absl::StrFormat(
      "%-36s (%s)  mean |x| %.4g  max |x| %.4g", TensorName(tensor.header),
      absl::StrJoin(tensor.header.shape(), ", "),
      sum / static_cast<double>(values->size()), largest);
  if (not_finite > 0) {
    line += console_->Bad(absl::StrCat("  ", not_finite, " not finite"));
  }
  console_->Print(line + "\n");
}

void AnalyzeView::Finish(const AnalysisResult& result) {
  for (const auto& [key, row] : rows_) PrintRow(key, row);
  if (!no_rope_.empty()) {
    console_->Print(
        absl::StrCat("No RoPE in layers ", absl::StrJoin(no_rope_, ","),
                     ": hook_rot_q and hook_rot_k equal hook_q and hook_k.\n"));
  }
  // Without groups, query heads are all that there is.
  if (grouped_ && !query_head_arms_.empty()) {
    console_->Print(absl::StrCat(
        "Rules of ", absl::StrJoin(query_head_arms_, ", "),
        " give the query heads of a group K or V of their own: after them, "
        "massive values\nof K or V are counted per query head.\n"));
  }
  console_->Print(ArmTable(result, *console_));
}

}  // namespace qk::client
