// Histograms of the device's passes, and of how long a cancelled request still
// holds its memory.
#ifndef QKSCOPE_SERVER_OBSERVE_PASS_METRICS_H_
#define QKSCOPE_SERVER_OBSERVE_PASS_METRICS_H_

#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "server/schedule/scheduler_observer.h"

namespace qk {

// Thread-safe.
class PassMetrics {
 public:
  explicit PassMetrics(prometheus::Registry* registry);

  void Observe(const PassReport& pass);
  void ObserveCancelled(double seconds) { cancel_to_idle_.Observe(seconds); }

 private:
  prometheus::Histogram& rows_;
  prometheus::Histogram& sequences_;
  prometheus::Histogram& duration_;
  prometheus::Histogram& fill_;
  prometheus::Histogram& cancel_to_idle_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_OBSERVE_PASS_METRICS_H_
