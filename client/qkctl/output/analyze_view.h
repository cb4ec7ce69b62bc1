// The table of `qkctl analyze`: one row per layer while the pass runs, and one
// line per arm at the end.
#ifndef QKSCOPE_CLIENT_QKCTL_OUTPUT_ANALYZE_VIEW_H_
#define QKSCOPE_CLIENT_QKCTL_OUTPUT_ANALYZE_VIEW_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "client/cpp/analysis_client.h"
#include "client/qkctl/output/console.h"

namespace qk::client {

class AnalyzeView {
 public:
  struct Options {
    bool all_arms = false;  // false: only the first arm
  };

  AnalyzeView(const Options& options, Console* console)
      : options_(options), console_(console) {}

  void OnEvent(const qkscope::v1::AnalyzeEvent& event);
  void OnTensor(const Tensor& tensor);
  // Prints the rows that stayed incomplete, and the table of arms.
  void Finish(const AnalysisResult& result);

 private:
  // The statistics of one row, by point.
  using Row = std::map<int, qkscope::v1::Statistics>;
  // (phase, arm, image, layer); image is -1 for the text.
  using RowKey = std::tuple<int, std::string, int, int>;

  void OnStarted(const qkscope::v1::Started& started);
  void AddToRow(const qkscope::v1::Layer& header);
  void PrintHeading(int phase, bool vision);
  void PrintRow(const RowKey& key, const Row& row);
  void PrintValues(const Tensor& tensor);
  std::string Cells(int point, const Row& row) const;

  Options options_;
  Console* console_;
  std::vector<int> points_;  // columns, in the table's order
  std::vector<std::string> arms_;
  int arm_width_ = 0;
  int64_t expected_bytes_ = 0, got_bytes_ = 0;
  // The heading that was printed last.
  int heading_phase_ = 0;
  bool heading_vision_ = false;
  std::map<RowKey, Row> rows_;  // not yet complete
  std::set<RowKey> printed_;
  std::set<int> no_rope_;  // layers without RoPE
  // Whether K or V has been shown with KV heads that serve several query heads,
  // and the arms for which one has a head for each query head.
  bool grouped_ = false;
  std::set<std::string> query_head_arms_;
};

// The heading and one line of the table of arms. `width` is that of the names.
std::string ArmHeading(int width);
std::string ArmLine(const AnalysisResult& result, const qkscope::v1::Arm& arm,
                    int width);

// The table of arms: mean log-probability, KL from the baseline, top-1 flips.
std::string ArmTable(const AnalysisResult& result, const Console& console);

// Two sentences that explain the numbers: where the massive values are, and
// what disrupting them did. Empty if a number is missing
// or not finite.
std::string Explain(const AnalysisResult& result);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_OUTPUT_ANALYZE_VIEW_H_
