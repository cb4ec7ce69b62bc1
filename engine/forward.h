// The forward pass over a ragged batch. Its equations are in forward.cc; pass.h
// runs them step by step.
#ifndef QKSCOPE_ENGINE_FORWARD_H_
#define QKSCOPE_ENGINE_FORWARD_H_

#include "engine/steps.h"

namespace qk {

class Batch;

// hidden = the embeddings of the batch's tokens.
void Embed(Batch& batch);
// Replaces the rows of image placeholders by the vision tower's embeddings.
void PlaceImages(Batch& batch);
// One layer: hidden += attention or Mamba, hidden += MLP.
Steps Block(int layer, Batch& batch);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_FORWARD_H_
