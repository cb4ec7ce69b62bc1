// What the metrics port answers: metrics, the status page, its style sheet and
// documents.
#ifndef QKSCOPE_SERVER_HTTP_ANSWERS_H_
#define QKSCOPE_SERVER_HTTP_ANSWERS_H_

#include <vector>

#include "server/access/identity.h"
#include "server/calls/status_reader.h"
#include "server/common/document.h"
#include "server/net/metrics_listener.h"
#include "server/observe/activation_metrics.h"
#include "server/observe/metrics.h"

namespace qk {

// All of it outlives the listener.
struct HttpSources {
  const std::vector<Document>* documents = nullptr;
  const Identity* identity = nullptr;
  const Metrics* metrics = nullptr;
  const ActivationMetrics* activations = nullptr;
  StatusSources status;
};

// Shows models that the caller may use, or, without credentials, those that
// every user may use. Where there are users, operators see all of them, others
// themselves. Called on the listener's thread.
MetricsListener::Answer AnswerHttp(const HttpSources& sources,
                                   const MetricsListener::Request& request);

}  // namespace qk

#endif  // QKSCOPE_SERVER_HTTP_ANSWERS_H_
