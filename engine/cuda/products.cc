#include "engine/cuda/products.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/check.h"
#include "engine/cuda/cublaslt_probe.h"
#include "engine/cuda/kernels.h"
#include "engine/cuda/matmul.h"

namespace qk::cuda {
namespace {

constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<Products>> Products::Make(
    WorkQueue* queue, const CudaLibraries& libraries) {
  std::unique_ptr<Products> products(new Products(queue, libraries.matmul));
  if (libraries.matmul == MatMulLibrary::kOwn) return products;
  const absl::Status status = products->Open(libraries.cublaslt_file);
  if (status.ok()) return products;
  if (libraries.matmul == MatMulLibrary::kCublasLt ||
      !absl::IsUnavailable(status)) {
    return status;
  }
  return std::unique_ptr<Products>(new Products(queue, MatMulLibrary::kOwn));
}

absl::Status Products::Open(const std::string& path) {
  QK_ASSIGN_OR_RETURN(std::unique_ptr<CublasLt> ops, CublasLt::Open(path));
  MutexLock lock(&mutex_);
  QK_ASSIGN_OR_RETURN(probe_, CublasLt::Open(path));
  QK_ASSIGN_OR_RETURN(probe_stream_, queue_->runtime().MakeStream());
  QK_ASSIGN_OR_RETURN(workspace_, queue_->Allocate(kWorkspaceBytes));
  ops_ = std::move(ops);
  return absl::OkStatus();
}

Products::~Products() {
  if (workspace_ != nullptr) queue_->Free(workspace_);
  MutexLock lock(&mutex_);
  if (probe_stream_ != nullptr) {
    queue_->runtime().DestroyStream(probe_stream_).IgnoreError();
  }
}

std::string Products::own_kernel() const {
  return absl::StrCat("own-sm_", queue_->runtime().facts().compute_capability);
}

std::string Products::library_kernel() const {
  return absl::StrCat("cublaslt-", ops_->version());
}

std::string Products::kernel_id(ComputeType type) const {
  if (ops_ == nullptr || type == ComputeType::kF32) return own_kernel();
  const std::string library = library_kernel();
  return library_ == MatMulLibrary::kCublasLt
             ? library
             : absl::StrCat(library, "-where-proved-else-", own_kernel());
}

absl::StatusOr<Products::Judgement> Products::Choose(const void* w,
                                                     ComputeType type, int out,
                                                     int in) {
  if (ops_ == nullptr || type == ComputeType::kF32) {
    return Judgement{std::nullopt, {own_kernel(), ""}};
  }
  MutexLock lock(&mutex_);
  const Shape shape = {out, in};
  const auto known = judged_.find(shape);
  if (known != judged_.end()) return known->second;
  QK_ASSIGN_OR_RETURN(judged_[shape], Probe(w, shape));
  return judged_[shape];
}

absl::StatusOr<Products::Judgement> Products::Probe(const void* w,
                                                    Shape shape) {
  QK_RETURN_IF_ERROR(queue_->runtime().Use());
  const absl::StatusOr<CublasLtVerdict> verdict =
      ProbeCublasLt(queue_->runtime(), *probe_, w, shape.first, shape.second,
                    kWorkspaceBytes, probe_stream_);
  std::string why;
  if (verdict.ok()) {
    if (verdict->plan.has_value()) {
      return Judgement{verdict->plan, {library_kernel(), ""}};
    }
    why = absl::StrJoin(verdict->refused, "; ");
  } else if (absl::IsInvalidArgument(verdict.status())) {
    why = std::string(verdict.status().message());
  } else {
    return verdict.status();
  }
  if (library_ == MatMulLibrary::kAuto) {
    return Judgement{std::nullopt, {own_kernel(), std::move(why)}};
  }
  return absl::FailedPreconditionError(
      absl::StrCat("cuBLASLt cannot multiply a weight (", shape.first, ", ",
                   shape.second, "): ", why));
}

void Products::MultiplyOwn(const void* x, ComputeType type,
                           absl::Span<const qk::Product> products, int rows,
                           const int32_t* range) {
  MatMulShape shape;
  shape.rows = rows;
  shape.range = range;
  shape.in = products.front().w.in_features();
  shape.products = static_cast<int>(products.size());
  for (int i = 0; i < shape.products; ++i) {
    const CudaMatrix& w = CudaMatrix::Of(products[i].w);
    shape.list[i] = {w.w(), w.bias(), products[i].out, w.out_features(),
                     products[i].add};
  }
  const MatMulPlan plan =
      PlanMatMul(shape, queue_->runtime().facts().multiprocessors);
  float* scratch = queue_->Partial(MatMulScratch(shape, plan));
  if (scratch == nullptr) return;
  cuda::MatMul(x, type, shape, plan, scratch, queue_->stream());
}

void Products::MultiplyByLibrary(const void* x, const qk::Product& product,
                                 int rows) {
  const CudaMatrix& w = CudaMatrix::Of(product.w);
  if (!queue_->Note(ops_->Multiply(*w.plan(), x, rows, w.w(), product.add,
                                   product.out, workspace_, kWorkspaceBytes,
                                   queue_->stream()))) {
    return;
  }
  if (w.bias() == nullptr) return;
  AddBias(product.out, w.bias(), rows, w.out_features(), queue_->stream());
}

void Products::MatMul(const float* x, absl::Span<const qk::Product> products,
                      int rows, const int32_t* range) {
  const auto by_library = [&](const qk::Product& product) {
    return range == nullptr && CudaMatrix::Of(product.w).plan().has_value();
  };
  queue_->RunAside([&] {
    const CudaMatrix& first = CudaMatrix::Of(products.front().w);
    const void* input = x;
    if (first.type() == ComputeType::kBF16) {
      const absl::StatusOr<const uint16_t*> rounded =
          queue_->rounded().Of(x, int64_t{rows} * first.in_features());
      if (!queue_->Note(rounded.status())) return;
      input = *rounded;
    }
    // Neighbours that our kernel multiplies share a launch.
    for (size_t i = 0, n = 0; i < products.size(); i += n) {
      n = 1;
      if (by_library(products[i])) {
        MultiplyByLibrary(input, products[i], rows);
      } else {
        while (i + n < products.size() && n < kMostProducts &&
               !by_library(products[i + n])) {
          ++n;
        }
        MultiplyOwn(input, first.type(), products.subspan(i, n), rows, range);
      }
    }
    for (const qk::Product& product : products) {
      queue_->rounded().Wrote(product.out,
                              int64_t{rows} * product.w.out_features());
    }
  });
}

}  // namespace qk::cuda
