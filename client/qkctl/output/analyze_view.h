// What `qkctl analyze` shows a person: a row per layer while the pass runs, and
// a line per arm at its end.
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
    bool all_arms = false;  // else the first arm only
  };

  AnalyzeView(const Options& options, Console* console)
      : options_(options), console_(console) {}

  void OnEvent(const qkscope::v1::AnalyzeEvent& event);
  void OnTensor(const Tensor& tensor);
  // Rows that stayed incomplete, and the arms' table.
  void Finish(const AnalysisResult& result);

 private:
  // Tensors of one row, by point.
  using Row = std::map<int, qkscope::v1::Statistics>;
  // (phase, arm, image, layer); image: -1 of the text
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
  // Of the heading that was printed last.
  int heading_phase_ = 0;
  bool heading_vision_ = false;
  std::map<RowKey, Row> rows_;  // not yet complete
  std::set<RowKey> printed_;
  std::set<int> no_rope_;  // layers without
};

// A line of the arms' table, and what stands above it; `width` is the names'.
std::string ArmHeading(int width);
std::string ArmLine(const AnalysisResult& result, const qkscope::v1::Arm& arm,
                    int width);

// The arms' table: mean log-probability, KL to the baseline, top-1 flips.
std::string ArmTable(const AnalysisResult& result, const Console& console);

// Two sentences, made from the numbers: where the massive values are, and what
// breaking them did. Empty when a number they need was not asked for.
std::string Explain(const AnalysisResult& result);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_OUTPUT_ANALYZE_VIEW_H_
