// The equations of a forward pass over a ragged batch: forward.cc. pass.h goes
// through them step by step.
#ifndef QKSCOPE_ENGINE_FORWARD_H_
#define QKSCOPE_ENGINE_FORWARD_H_

#include "engine/steps.h"

namespace qk {

class Batch;

// hidden = the embeddings of the batch's tokens.
void Embed(Batch& batch);
// The rows of images' placeholders become the vision tower's.
void PlaceImages(Batch& batch);
// One layer: hidden += attention or Mamba, hidden += MLP.
Steps Block(int layer, Batch& batch);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_FORWARD_H_
