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

// What a scraper may see. The label "other", which stands for several models or
// users, is asked about like a name.
struct ScrapeView {
  std::function<bool(const std::string& name)> model;
  std::function<bool(const std::string& alias)> user;
};

// Prometheus's text format, without the series whose label `model` or `user`
// has a value that must not be seen.
std::string RenderMetrics(std::vector<prometheus::MetricFamily> families,
                          const ScrapeView& view);

}  // namespace qk

#endif  // QKSCOPE_SERVER_OBSERVE_SCRAPE_H_
