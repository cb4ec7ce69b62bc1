// Where the largest value of Q stands in each layer, and what breaking it does.
//
//   massive_values_example HOST:PORT MODEL
#include <cstdio>
#include <string>

#include "qkscope/analysis_client.h"

namespace {

namespace v1 = qkscope::v1;

v1::AnalyzeRequest Request(const std::string& model) {
  v1::AnalyzeRequest request;
  request.set_model(model);
  request.mutable_input()->set_text("The city of Paris lies on the river");
  request.add_arms()->set_name("clean");
  v1::Arm* disrupted = request.add_arms();
  disrupted->set_name("disrupted");
  disrupted->add_disruptions()->mutable_top_k()->set_k(1);
  v1::Arm* control = request.add_arms();
  control->set_name("control");
  control->add_disruptions()->mutable_bottom_k()->set_k(1);
  request.mutable_capture()->add_points(v1::HOOK_ROT_Q);
  request.mutable_compare()->set_baseline("clean");
  return request;
}

void PrintLargest(const v1::Layer& layer) {
  const v1::MassiveEntry& largest = layer.statistics().largest();
  std::printf("layer %d: head %d, dim %d, %.1f times its head's mean\n",
              layer.layer(), largest.head(), largest.dim(), largest.ratio());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s HOST:PORT MODEL\n", argv[0]);
    return 2;
  }
  qk::client::ClientOptions options;
  options.server = argv[1];
  const auto client = qk::client::AnalysisClient::Create(options);
  // Checked: whole tensors, checksums, and digests that fit the manifest.
  const auto result = client->Analyze(Request(argv[2]));
  if (!result.ok()) {
    std::fprintf(stderr, "%s\n", result.status().ToString().c_str());
    return 1;
  }
  for (const qk::client::Tensor& tensor : result->tensors) {
    if (tensor.header.arm() == "clean") PrintLargest(tensor.header);
  }
  for (const v1::Comparison& arm : result->comparisons) {
    std::printf("%s: KL %.4f, %d next tokens changed\n", arm.arm().c_str(),
                arm.mean_kl(), arm.top1_flips());
  }
  return 0;
}
