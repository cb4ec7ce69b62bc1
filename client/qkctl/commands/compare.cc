#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/files/json_writer.h"
#include "client/files/norm_statistics.h"
#include "client/files/query_heads.h"
#include "client/files/saved_analysis.h"
#include "client/qkctl/command.h"
#include "client/qkctl/flags/request_flags.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

// (image, phase, step, layer, point, stage); image and step are -1 if absent.
using Place = std::tuple<int, int, int, int, int, int>;

struct Output {
  bool json = false, allow_non_finite = false;
};

// One arm of one run.
struct Side {
  std::string title;
  double lambda = 5;
  std::map<Place, Tensor> tensors;
  std::optional<double> mean_logprob;
  // Values of tensors and positions of logits that are not finite.
  int64_t non_finite_values = 0, non_finite_positions = 0;

  bool finite() const {
    return non_finite_values == 0 && non_finite_positions == 0;
  }
};

// One point of one layer on both sides.
struct Pair {
  NormStatistics a, b;
  bool norms = false;        // if false, the statistics have no meaning
  bool query_heads = false;  // one side's KV heads are repeated
  double change = 0;         // |a - b| / |a|, as vectors
  int64_t non_finite_a = 0, non_finite_b = 0;
};

int64_t CountNonFinite(const std::vector<float>& values) {
  return std::count_if(values.begin(), values.end(),
                       [](float value) { return !std::isfinite(value); });
}

absl::StatusOr<Side> SideOf(const SavedAnalysis& saved, const std::string& arm,
                            const std::string& title) {
  Side side;
  side.title = title;
  if (saved.manifest.expanded().statistics().has_lambda()) {
    side.lambda = saved.manifest.expanded().statistics().lambda();
  }
  for (const Tensor& tensor : saved.tensors) {
    const v1::Layer& header = tensor.header;
    if (header.arm() != arm) continue;
    side.tensors[{header.has_image() ? header.image() : -1, header.phase(),
                  header.has_step() ? header.step() : -1, header.layer(),
                  header.point(), header.stage()}] = tensor;
    absl::StatusOr<std::vector<float>> values =
        TensorValues(header.dtype(), tensor.data);
    if (!values.ok()) return values.status();
    side.non_finite_values += CountNonFinite(*values);
  }
  for (const v1::Comparison& comparison : saved.comparisons) {
    if (comparison.arm() != arm) continue;
    side.mean_logprob = comparison.mean_logprob();
    side.non_finite_positions =
        CountNonFinite({comparison.kl().begin(), comparison.kl().end()});
  }
  if (side.tensors.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(title, ": no tensors of arm '", arm, "'"));
  }
  return side;
}

double RelativeChange(const std::vector<float>& a,
                      const std::vector<float>& b) {
  double distance = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - b[i];
    distance += difference * difference;
    norm += static_cast<double>(a[i]) * a[i];
  }
  if (distance == 0) return 0;
  return norm == 0 ? std::numeric_limits<double>::infinity()
                   : std::sqrt(distance / norm);
}

// The values of `tensor`; its KV heads are repeated if `other` has a head for
// each query head.
absl::StatusOr<std::vector<float>> ValuesLike(const Tensor& tensor,
                                              const v1::Layer& other) {
  absl::StatusOr<std::vector<float>> values =
      TensorValues(tensor.header.dtype(), tensor.data);
  if (!values.ok() || tensor.header.group_size() == 1 ||
      !OnlyOneInQueryHeads(tensor.header, other)) {
    return values;
  }
  return RepeatKvHeads(tensor.header, *values, other);
}

absl::StatusOr<Pair> ComparePlace(const Tensor& a, const Tensor& b,
                                  double lambda) {
  absl::StatusOr<std::vector<float>> values_a = ValuesLike(a, b.header);
  absl::StatusOr<std::vector<float>> values_b = ValuesLike(b, a.header);
  if (!values_a.ok()) return values_a.status();
  if (!values_b.ok()) return values_b.status();
  if (values_a->size() != values_b->size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(TensorName(a.header), " has ", values_a->size(),
                     " values on one side, ", values_b->size(),
                     " on the other; compare runs of the same model and prompt "
                     "length"));
  }
  Pair pair;
  pair.change = RelativeChange(*values_a, *values_b);
  pair.query_heads = OnlyOneInQueryHeads(a.header, b.header);
  pair.non_finite_a = CountNonFinite(*values_a);
  pair.non_finite_b = CountNonFinite(*values_b);
  pair.norms = a.header.form() == v1::NORM_OVER_TOKENS &&
               a.header.shape_size() == 2 && a.header.shape(1) > 0;
  if (pair.norms) {
    pair.a = ComputeNormStatistics(*values_a, a.header.shape(1), lambda);
    pair.b = ComputeNormStatistics(*values_b, b.header.shape(1), lambda);
  }
  return pair;
}

// The layer, and whatever distinguishes the row from plain prefill.
std::string RowLabel(const Place& place) {
  const auto& [image, phase, step, layer, point, stage] = place;
  std::string label = absl::StrCat(layer);
  if (image >= 0) absl::StrAppend(&label, " of image ", image);
  if (phase == v1::DECODE) absl::StrAppend(&label, " decode");
  if (step >= 0) absl::StrAppend(&label, " step ", step);
  if (stage == v1::AFTER) absl::StrAppend(&label, " after");
  return label;
}

// The largest of norms is not known if one of them is not finite.
double ShownRatio(const NormStatistics& statistics) {
  return statistics.non_finite > 0 ? std::numeric_limits<double>::quiet_NaN()
                                   : statistics.ratio;
}

std::string ShownCount(const NormStatistics& statistics) {
  return statistics.non_finite > 0 ? "nan"
                                   : absl::StrCat(statistics.massive_count);
}

std::string PairJson(const Place& place, const Pair& pair) {
  const auto& [image, phase, step, layer, point, stage] = place;
  return absl::StrCat(
      "{", image >= 0 ? absl::StrCat("\"image\":", image, ",") : "",
      "\"layer\":", layer, ",\"point\":\"",
      v1::HookPoint_Name(static_cast<v1::HookPoint>(point)), "\",\"stage\":\"",
      v1::Stage_Name(static_cast<v1::Stage>(stage)), "\",\"phase\":\"",
      v1::Phase_Name(static_cast<v1::Phase>(phase)), "\",\"step\":", step,
      ",\"massive\":[", pair.a.massive_count, ",", pair.b.massive_count,
      "],\"ratio\":[", NumberJson(ShownRatio(pair.a)), ",",
      NumberJson(ShownRatio(pair.b)), "],\"change\":",
      std::isinf(pair.change) ? "null" : NumberJson(pair.change),
      ",\"non_finite\":[", pair.non_finite_a, ",", pair.non_finite_b, "]",
      pair.query_heads ? ",\"query_heads\":true" : "", "}\n");
}

std::string PairLine(const Place& place, const Pair& pair) {
  const std::string point = absl::StrCat(
      absl::AsciiStrToLower(
          v1::HookPoint_Name(static_cast<v1::HookPoint>(std::get<4>(place)))),
      pair.query_heads ? "*" : "");
  const std::string change = absl::StrFormat("%.2f %%", 100 * pair.change);
  if (!pair.norms) {
    return absl::StrFormat("%-18s %-11s %8s %8s %8s %8s %10s\n",
                           RowLabel(place), point, "-", "-", "-", "-", change);
  }
  return absl::StrFormat("%-18s %-11s %8s %8s %8.1f %8.1f %10s\n",
                         RowLabel(place), point, ShownCount(pair.a),
                         ShownCount(pair.b), ShownRatio(pair.a),
                         ShownRatio(pair.b), change);
}

absl::Status PrintComparison(const Side& a, const Side& b, bool json,
                             Console* console) {
  std::string table;
  if (!json) {
    table = absl::StrCat(
        "A: ", a.title, "\nB: ", b.title, "\n",
        console->Bold(absl::StrFormat("%-18s %-11s %8s %8s %8s %8s %10s",
                                      "layer", "point", "massive", "massive",
                                      "ratio", "ratio", "change")),
        "\n",
        console->Bold(absl::StrFormat("%-18s %-11s %8s %8s %8s %8s %10s", "",
                                      "", "A", "B", "A", "B", "|A-B|/|A|")),
        "\n");
  }
  int pairs = 0;
  bool query_heads = false;
  for (const auto& [place, tensor] : a.tensors) {
    const auto other = b.tensors.find(place);
    if (other == b.tensors.end()) continue;
    absl::StatusOr<Pair> pair = ComparePlace(tensor, other->second, a.lambda);
    if (!pair.ok()) return pair.status();
    ++pairs;
    query_heads = query_heads || pair->query_heads;
    table += json ? PairJson(place, *pair) : PairLine(place, *pair);
  }
  if (pairs == 0) {
    return absl::InvalidArgumentError("the two sides have no tensor in common");
  }
  if (query_heads && !json) {
    table +=
        "* A rule made the query heads of a group read different values, so "
        "one side has a\n  head per query head. The KV heads of the other are "
        "repeated to match: massive\n  values are counted per query head on "
        "both sides.\n";
  }
  console->Print(table);
  if (!json && a.mean_logprob.has_value() && b.mean_logprob.has_value()) {
    console->Print(absl::StrFormat(
        "\nmean log-probability of the prompt: A %.4f, B %.4f "
        "(a disrupted prompt's value depends on later tokens)\n",
        *a.mean_logprob, *b.mean_logprob));
  }
  return absl::OkStatus();
}

// The command's exit code, once it has printed its comparison.
ExitCode EndOf(const Side& a, const Side& b, bool allow_non_finite,
               Context* context) {
  std::string text;
  for (const Side* side : {&a, &b}) {
    if (side->finite()) continue;
    absl::StrAppend(&text, text.empty() ? "" : "; ", side == &a ? "A" : "B",
                    " has ", side->non_finite_values, " values and the KL of ",
                    side->non_finite_positions,
                    " positions that are not finite (NaN or infinite)");
  }
  return text.empty() ? kExitOk : context->NonFinite(text, allow_non_finite);
}

// The two sides from one or two saved files; arms are chosen by name, or are
// the first of each file.
absl::StatusOr<std::pair<Side, Side>> SidesOfFiles(
    const std::vector<std::string>& files,
    const std::vector<std::string>& arms) {
  if (arms.size() > 2 || (files.size() == 1 && arms.size() != 2)) {
    return absl::InvalidArgumentError(
        "name two arms of the file: --arm NAME --arm NAME");
  }
  std::vector<Side> sides;
  for (size_t i = 0; i < 2; ++i) {
    const std::string& file = files[files.size() == 1 ? 0 : i];
    absl::StatusOr<SavedAnalysis> saved = ReadSavedAnalysis(file);
    if (!saved.ok()) return saved.status();
    if (saved->tensors.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          file, " has no tensors; compare files saved with analyze --out"));
    }
    const auto& expanded = saved->manifest.expanded().arms();
    std::string arm = expanded.empty() ? "clean" : expanded[0].name();
    if (!arms.empty()) arm = arms[arms.size() == 1 ? 0 : i];
    absl::StatusOr<Side> side =
        SideOf(*saved, arm, absl::StrCat(arm, " of ", file));
    if (!side.ok()) return side.status();
    sides.push_back(*std::move(side));
  }
  return std::make_pair(std::move(sides[0]), std::move(sides[1]));
}

ExitCode CompareFiles(const std::vector<std::string>& files,
                      const std::vector<std::string>& arms,
                      const Output& output, Context* context) {
  absl::StatusOr<std::pair<Side, Side>> sides = SidesOfFiles(files, arms);
  absl::Status status = sides.status();
  if (status.ok()) {
    status = PrintComparison(sides->first, sides->second, output.json,
                             &context->console);
  }
  if (status.ok()) {
    return EndOf(sides->first, sides->second, output.allow_non_finite, context);
  }
  return status.code() == absl::StatusCode::kInvalidArgument
             ? context->FailUsage(status)
             : context->Fail(status);
}

ExitCode CompareArms(v1::AnalyzeRequest request, const Output& output,
                     Context* context) {
  if (request.arms_size() != 2) {
    return context->FailUsage(absl::InvalidArgumentError(
        absl::StrCat("compare takes two arms, got ", request.arms_size(),
                     ": --arm clean --arm top_k:1")));
  }
  // After the disruption, values differ between arms from layer 0 on.
  if (!request.capture().has_stage()) {
    request.mutable_capture()->set_stage(v1::AFTER);
  }
  const std::unique_ptr<AnalysisClient> client = context->Connect();
  if (auto failed =
          ChooseModel(client.get(), context, request.mutable_model())) {
    return *failed;
  }
  absl::StatusOr<AnalysisResult> result =
      client->Analyze(request, {}, context->Call());
  if (!result.ok()) return context->Fail(result.status());
  SavedAnalysis run;
  run.tensors = std::move(result->tensors);
  run.comparisons = std::move(result->comparisons);
  run.manifest = std::move(*result->finished.mutable_manifest());
  absl::StatusOr<Side> a =
      SideOf(run, request.arms(0).name(), request.arms(0).name());
  absl::StatusOr<Side> b =
      SideOf(run, request.arms(1).name(), request.arms(1).name());
  absl::Status status = a.ok() ? b.status() : a.status();
  if (status.ok()) {
    status = PrintComparison(*a, *b, output.json, &context->console);
  }
  if (!status.ok()) return context->Fail(status);
  return EndOf(*a, *b, output.allow_non_finite, context);
}

ExitCode RunCompare(const std::vector<std::string>& arguments,
                    Context* context) {
  CommandLine line(kCompareCommand.text, context);
  RequestFlags request_flags;
  Output output;
  request_flags.AddTo(line.flags());
  line.flags()->Section("Output");
  line.flags()->Add("json", "print one JSON line per layer and point",
                    &output.json);
  AddAllowNonFinite(line.flags(), &output.allow_non_finite);
  if (auto over = line.Parse(arguments, 2)) return *over;
  if (!line.words().empty()) {
    return CompareFiles(line.words(), request_flags.arms(), output, context);
  }
  absl::StatusOr<v1::AnalyzeRequest> request = request_flags.Build();
  if (!request.ok()) return context->FailUsage(request.status());
  return CompareArms(*std::move(request), output, context);
}

}  // namespace

const Command kCompareCommand = {
    {"compare", "[FILE [FILE]]",
     "Compare two arms, or two saved analyses, layer by layer",
     "Given two arms, runs them and compares values after the disruption "
     "(change this\nwith --stage). Given files saved with analyze --out, runs "
     "nothing; --arm NAME\nthen chooses an arm of a file (default: the "
     "first).\n\nWhere an arm makes the query heads of a group read different "
     "K or V (a rule of\nquery heads, such as the control of "
     "rope_with_llm/mistral), the KV heads of the\nother side are repeated: "
     "both then count query heads (marked *; \"query_heads\"\nin --json)."
     "\n\n"
     "Examples:\n"
     "  qkctl compare --prompt 'The city of Paris' --arm clean --arm top_k:1\n"
     "  qkctl compare p.safetensors --arm clean --arm top_k:1\n"
     "  qkctl compare f32.safetensors bf16.safetensors\n"},
    &RunCompare};

}  // namespace qk::client
