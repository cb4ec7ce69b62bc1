// What a scrape shows.
#ifndef QKSCOPE_SERVER_OBSERVE_SCRAPE_H_
#define QKSCOPE_SERVER_OBSERVE_SCRAPE_H_

#include <functional>
#include <string>
#include <vector>

#include "prometheus/metric_family.h"

namespace qk {

inline constexpr char kMetricsContentType[] =
    "text/plain; version=0.0.4; charset=utf-8";

// Prometheus's text format. Series with a label `model` are left out where
// `may_see` is false for its value; the label "other", which stands for several
// models, is asked about like a name.
std::string RenderMetrics(
    std::vector<prometheus::MetricFamily> families,
    const std::function<bool(const std::string& model)>& may_see);

}  // namespace qk

#endif  // QKSCOPE_SERVER_OBSERVE_SCRAPE_H_
