// Shares the process's descriptors out, so that no kind of use can take what
// another needs: each keeps to its share, and connections to what is left.
#ifndef QKSCOPE_SERVER_COMMON_DESCRIPTORS_H_
#define QKSCOPE_SERVER_COMMON_DESCRIPTORS_H_

namespace qk {

struct DescriptorShares {
  // Files of kept results that are open at a time.
  int results = 0;
  // Files of a model that ModelAdmin loads.
  int models = 0;
  // What the server itself needs: the listener, the health check, metrics,
  // logs, configuration, libraries.
  int own = 0;
  // Connections may have descriptors below this number. (The kernel assigns the
  // lowest free one, so its number tells how many are open.)
  int connections_end = 0;
};

// Shares out `limit` descriptors, the result of RaiseDescriptorLimit.
DescriptorShares ShareDescriptors(int limit);

// Raises this process's limit as far as it may without privileges; returns how
// many descriptors it may have now.
int RaiseDescriptorLimit();

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_DESCRIPTORS_H_
