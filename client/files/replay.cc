#include "client/files/replay.h"

#include <map>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/files/norm_statistics.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

using DigestKey = std::tuple<std::string, int, int, int, int, int>;

DigestKey KeyOf(const v1::PayloadDigest& digest) {
  return {digest.arm(),   digest.has_image() ? digest.image() : -1,
          digest.phase(), digest.layer(),
          digest.point(), digest.stage()};
}

std::string TensorNameOf(const v1::PayloadDigest& digest) {
  v1::Layer header;
  header.set_arm(digest.arm());
  if (digest.has_image()) header.set_image(digest.image());
  header.set_layer(digest.layer());
  header.set_point(digest.point());
  header.set_stage(digest.stage());
  header.set_phase(digest.phase());
  return TensorName(header);
}

bool SameDigest(const v1::PayloadDigest& a, const v1::PayloadDigest& b) {
  const bool both_hashed = !a.sha256().empty() && !b.sha256().empty();
  return a.bytes() == b.bytes() && a.crc32c() == b.crc32c() &&
         (!both_hashed || a.sha256() == b.sha256());
}

// Names the tensors whose digests differ or are missing on one side.
std::vector<std::string> DifferingDigests(const v1::Manifest& before,
                                          const v1::Manifest& after) {
  std::map<DigestKey, const v1::PayloadDigest*> now;
  for (const v1::PayloadDigest& digest : after.digests()) {
    now[KeyOf(digest)] = &digest;
  }
  std::vector<std::string> names;
  for (const v1::PayloadDigest& digest : before.digests()) {
    const auto found = now.find(KeyOf(digest));
    if (found == now.end()) {
      names.push_back(TensorNameOf(digest) + " (missing now)");
    } else if (!SameDigest(digest, *found->second)) {
      names.push_back(TensorNameOf(digest));
    }
    if (found != now.end()) now.erase(found);
  }
  for (const auto& [key, digest] : now) {
    names.push_back(TensorNameOf(*digest) + " (new)");
  }
  return names;
}

// Returns the reasons why bits need not agree; empty if they must agree.
std::vector<std::string> IncomparableReasons(const v1::Manifest& before,
                                             const v1::Manifest& after) {
  std::vector<std::string> reasons;
  auto check = [&](const char* what, const std::string& a,
                   const std::string& b) {
    if (a != b) {
      reasons.push_back(absl::StrCat(what, " was '", a, "', is '", b, "'"));
    }
  };
  check("weights SHA-256", before.weights_sha256(), after.weights_sha256());
  check("compute type", before.compute_type(), after.compute_type());
  check("backend", before.backend(), after.backend());
  check("kernel ids", absl::StrJoin(before.kernel_ids(), " "),
        absl::StrJoin(after.kernel_ids(), " "));
  return reasons;
}

struct ValueReport {
  bool any = false;   // whether any tensors were compared
  std::string first;  // first differing element, or empty
  double largest = 0;
  std::string largest_where;
};

ValueReport CompareTensors(const SavedAnalysis& before,
                           const AnalysisResult& after) {
  std::map<std::string, const Tensor*> saved;
  for (const Tensor& tensor : before.tensors) {
    saved[TensorName(tensor.header)] = &tensor;
  }
  ValueReport report;
  for (const Tensor& now : after.tensors) {
    const auto found = saved.find(TensorName(now.header));
    if (found == saved.end()) continue;
    const auto a =
        TensorValues(found->second->header.dtype(), found->second->data);
    const auto b = TensorValues(now.header.dtype(), now.data);
    if (!a.ok() || !b.ok() || a->size() != b->size()) continue;
    report.any = true;
    const Difference difference = CompareValues(*a, *b);
    if (difference.count == 0) continue;
    if (report.first.empty()) {
      report.first =
          absl::StrCat(found->first, IndexText(difference.first, now.header),
                       ": was ", difference.first_a, ", is ",
                       difference.first_b, " (", difference.count, " of ",
                       a->size(), " elements of this tensor differ)");
    }
    if (difference.largest >= report.largest) {
      report.largest = difference.largest;
      report.largest_where = absl::StrCat(
          found->first, IndexText(difference.largest_at, now.header));
    }
  }
  return report;
}

}  // namespace

v1::AnalyzeRequest ReplayRequest(const v1::Manifest& manifest) {
  v1::AnalyzeRequest request = manifest.expanded();
  request.set_model(manifest.model());
  v1::Input input;
  *input.mutable_token_ids()->mutable_ids() = manifest.token_ids();
  *input.mutable_images() = manifest.expanded().input().images();
  *request.mutable_input() = input;
  for (v1::Arm& arm : *request.mutable_arms()) {
    // An expanded preset is already among the rules; both would collide.
    if (!arm.disruptions().empty()) arm.clear_preset();
  }
  return request;
}

ReplayReport CompareRuns(const SavedAnalysis& before,
                         const AnalysisResult& after) {
  const v1::Manifest& now = after.finished.manifest();
  const std::vector<std::string> reasons =
      IncomparableReasons(before.manifest, now);
  const std::vector<std::string> names = DifferingDigests(before.manifest, now);
  const ValueReport values = CompareTensors(before, after);
  const int total = before.manifest.digests_size();
  ReplayReport report;
  if (total == 0 && names.empty()) {
    report.verdict = ReplayVerdict::kNotComparable;
    report.lines.push_back("the run captured no tensors: nothing to compare");
    return report;
  }
  if (!reasons.empty()) {
    report.verdict = ReplayVerdict::kNotComparable;
    report.lines.push_back(absl::StrCat("not comparable bit for bit: ",
                                        absl::StrJoin(reasons, "; ")));
  } else if (names.empty() && values.first.empty()) {
    report.lines.push_back(
        absl::StrCat("identical: ", total, " payloads, every byte"));
    return report;
  } else {
    report.verdict = ReplayVerdict::kDiffers;
  }
  report.lines.push_back(
      names.empty() ? absl::StrCat("all ", total, " payloads agree")
                    : absl::StrCat(names.size(), " of ", total,
                                   " payloads differ, first ", names[0]));
  if (!values.first.empty()) {
    report.lines.push_back(
        absl::StrCat("first differing element: ", values.first));
    report.lines.push_back(absl::StrCat("largest difference: ", values.largest,
                                        " at ", values.largest_where));
  } else if (!values.any && !names.empty()) {
    report.lines.push_back(
        "a manifest has digests but no values; to see how much they differ, "
        "replay a file saved with --out");
  }
  return report;
}

}  // namespace qk::client
