// The part of the status page that shows the last prompts of a model.
#ifndef QKSCOPE_SERVER_OBSERVE_STATUS_ACTIVATIONS_H_
#define QKSCOPE_SERVER_OBSERVE_STATUS_ACTIVATIONS_H_

#include <string>

#include "server/observe/recent_activations.h"

namespace qk {

// Appends the element `section`: heat maps of Q, K and V, what their colours
// mean, and the numbers of the newest prompt as a table.
void AppendActivations(const RecentModel& model, std::string* out);

}  // namespace qk

#endif  // QKSCOPE_SERVER_OBSERVE_STATUS_ACTIVATIONS_H_
