#include "engine/cuda/cublaslt.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/cuda/cublaslt_functions.h"
#include "engine/cuda/dynamic_library.h"

namespace qk::cuda {
namespace {

constexpr int kMostCandidates = 24;
constexpr uint32_t kAlignment = 16;  // bytes

absl::Status FindAll(const DynamicLibrary& library, lt::Functions& f) {
#define QK_FIND(name) \
  QK_RETURN_IF_ERROR(library.Find("cublasLt" #name, &f.name))
  QK_FIND(GetVersion);
  QK_FIND(GetStatusName);
  QK_FIND(Create);
  QK_FIND(Destroy);
  QK_FIND(MatmulDescCreate);
  QK_FIND(MatmulDescDestroy);
  QK_FIND(MatmulDescSetAttribute);
  QK_FIND(MatrixLayoutCreate);
  QK_FIND(MatrixLayoutDestroy);
  QK_FIND(MatmulPreferenceCreate);
  QK_FIND(MatmulPreferenceDestroy);
  QK_FIND(MatmulPreferenceSetAttribute);
  QK_FIND(MatmulAlgoGetHeuristic);
  QK_FIND(MatmulAlgoCheck);
  QK_FIND(MatmulAlgoConfigGetAttribute);
  QK_FIND(MatmulAlgoCapGetAttribute);
  QK_FIND(Matmul);
#undef QK_FIND
  return absl::OkStatus();
}

absl::Status Checked(const lt::Functions& f, int status, const char* call) {
  if (status == lt::kSuccess) return absl::OkStatus();
  const char* name = f.GetStatusName(status);
  const std::string message =
      absl::StrCat("cublasLt", call, ": ", name == nullptr ? "status" : name,
                   " (", status, ")");
  switch (status) {
    case lt::kAllocFailed:
      return absl::ResourceExhaustedError(message);
    case lt::kInvalidValue:
    case lt::kArchMismatch:
    case lt::kNotSupported:
      return absl::UnimplementedError(message);
    default:
      return absl::InternalError(message);
  }
}

// A product's matrices, each seen column by column: w (in, out_features), which
// the operation transposes, x (in, rows), out (out_features, rows).
class Layouts {
 public:
  static absl::StatusOr<Layouts> Make(const lt::Functions& f, int out_features,
                                      int in, int rows) {
    Layouts made(f);
    const auto make = [&](lt::Layout& layout, int type, int n, int m) {
      return Checked(f, f.MatrixLayoutCreate(&layout, type, n, m, n),
                     "MatrixLayoutCreate");
    };
    QK_RETURN_IF_ERROR(make(made.w, lt::kBFloat16, in, out_features));
    QK_RETURN_IF_ERROR(make(made.x, lt::kBFloat16, in, rows));
    QK_RETURN_IF_ERROR(make(made.out, lt::kFloat32, out_features, rows));
    return made;
  }
  Layouts(Layouts&& other) noexcept
      : w(std::exchange(other.w, nullptr)),
        x(std::exchange(other.x, nullptr)),
        out(std::exchange(other.out, nullptr)),
        f_(other.f_) {}
  Layouts& operator=(Layouts&&) = delete;
  ~Layouts() {
    for (lt::Layout layout : {w, x, out}) {
      if (layout != nullptr) f_.MatrixLayoutDestroy(layout);
    }
  }

  lt::Layout w = nullptr, x = nullptr, out = nullptr;

 private:
  explicit Layouts(const lt::Functions& f) : f_(f) {}
  const lt::Functions& f_;
};

std::optional<int32_t> ConfigOf(const lt::Functions& f,
                                const lt::Algorithm& algorithm, int attribute) {
  int32_t value = 0;
  size_t written = 0;
  if (f.MatmulAlgoConfigGetAttribute(&algorithm, attribute, &value,
                                     sizeof value, &written) != lt::kSuccess ||
      written != sizeof value) {
    return std::nullopt;
  }
  return value;
}

// An algorithm that does not say what it is does not pass.
bool MayKeepBytes(const lt::Functions& f, const lt::Algorithm& algorithm) {
  const auto split = ConfigOf(f, algorithm, lt::kConfigSplitK);
  const auto reduction = ConfigOf(f, algorithm, lt::kConfigReduction);
  uint64_t flags = 0;
  size_t written = 0;
  return split.has_value() && *split <= 1 && reduction.has_value() &&
         *reduction == static_cast<int32_t>(lt::kNoReduction) &&
         f.MatmulAlgoCapGetAttribute(&algorithm, lt::kNumericalFlags, &flags,
                                     sizeof flags, &written) == lt::kSuccess &&
         written == sizeof flags && (flags & lt::kTensorCores) != 0 &&
         (flags & lt::kFloat32Sums) != 0;
}

std::string NameOf(const lt::Functions& f, const lt::Algorithm& algorithm) {
  const auto text = [&](int attribute) {
    const auto value = ConfigOf(f, algorithm, attribute);
    return value.has_value() ? absl::StrCat(*value) : "?";
  };
  return absl::StrCat("algorithm ", text(lt::kConfigId), ", tile ",
                      text(lt::kConfigTile), ", stages ",
                      text(lt::kConfigStages));
}

}  // namespace

struct CublasLt::State {
  explicit State(DynamicLibrary opened) : library(std::move(opened)) {}
  ~State() {
    if (operation != nullptr) f.MatmulDescDestroy(operation);
    if (handle != nullptr) f.Destroy(handle);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  absl::Status Start();
  // The library's list for a shape, best first.
  absl::StatusOr<std::vector<lt::Heuristic>> Ask(const Layouts& layouts,
                                                 int64_t workspace_bytes);
  absl::Status Prefer(lt::Preference preference, int64_t workspace_bytes);

  const DynamicLibrary library;
  lt::Functions f = {};
  lt::Handle handle = nullptr;
  lt::Operation operation = nullptr;
  std::string version;
};

absl::Status CublasLt::State::Start() {
  QK_RETURN_IF_ERROR(FindAll(library, f));
  const size_t number = f.GetVersion();
  version =
      absl::StrCat(number / 10000, ".", number / 100 % 100, ".", number % 100);
  QK_RETURN_IF_ERROR(Checked(f, f.Create(&handle), "Create"));
  QK_RETURN_IF_ERROR(
      Checked(f, f.MatmulDescCreate(&operation, lt::kCompute32F, lt::kFloat32),
              "MatmulDescCreate"));
  return Checked(
      f,
      f.MatmulDescSetAttribute(operation, lt::kTransposeA, &lt::kTranspose,
                               sizeof lt::kTranspose),
      "MatmulDescSetAttribute");
}

absl::Status CublasLt::State::Prefer(lt::Preference preference,
                                     int64_t workspace_bytes) {
  const auto set = [&](int attribute, const auto& value) {
    return Checked(f,
                   f.MatmulPreferenceSetAttribute(preference, attribute, &value,
                                                  sizeof value),
                   "MatmulPreferenceSetAttribute");
  };
  QK_RETURN_IF_ERROR(
      set(lt::kMaxWorkspaceBytes, static_cast<uint64_t>(workspace_bytes)));
  QK_RETURN_IF_ERROR(set(lt::kReductionSchemeMask, lt::kNoReduction));
  for (int i = lt::kMinAlignmentA; i <= lt::kMinAlignmentD; ++i) {
    QK_RETURN_IF_ERROR(set(i, kAlignment));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<lt::Heuristic>> CublasLt::State::Ask(
    const Layouts& layouts, int64_t workspace_bytes) {
  lt::Preference preference = nullptr;
  QK_RETURN_IF_ERROR(Checked(f, f.MatmulPreferenceCreate(&preference),
                             "MatmulPreferenceCreate"));
  std::vector<lt::Heuristic> list(kMostCandidates);
  int count = 0;
  absl::Status status = Prefer(preference, workspace_bytes);
  if (status.ok()) {
    status = Checked(
        f,
        f.MatmulAlgoGetHeuristic(handle, operation, layouts.w, layouts.x,
                                 layouts.out, layouts.out, preference,
                                 kMostCandidates, list.data(), &count),
        "MatmulAlgoGetHeuristic");
    if (absl::IsUnimplemented(status)) {  // none for this shape
      status = absl::OkStatus();
      count = 0;
    }
  }
  f.MatmulPreferenceDestroy(preference);
  if (!status.ok()) return status;
  list.resize(std::clamp(count, 0, kMostCandidates));
  return list;
}

CublasLt::CublasLt(std::unique_ptr<State> state) : state_(std::move(state)) {}
CublasLt::~CublasLt() = default;

absl::StatusOr<std::unique_ptr<CublasLt>> CublasLt::Open(
    const std::string& path) {
  QK_ASSIGN_OR_RETURN(
      DynamicLibrary library,
      DynamicLibrary::Open(path.empty()
                               ? std::vector<std::string>{"libcublasLt.so.13",
                                                          "libcublasLt.so.12",
                                                          "libcublasLt.so"}
                               : std::vector<std::string>{path}));
  auto state = std::make_unique<State>(std::move(library));
  const absl::Status status = state->Start();
  if (!status.ok()) return absl::UnavailableError(status.message());
  return std::unique_ptr<CublasLt>(new CublasLt(std::move(state)));
}

const std::string& CublasLt::version() const { return state_->version; }

absl::StatusOr<std::vector<CublasLtPlan>> CublasLt::Candidates(
    int out_features, int in, int64_t workspace_bytes) {
  if (in <= 0 || in % 8 != 0 || out_features <= 0 || out_features % 4 != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "cuBLASLt: a weight of ", out_features, " x ", in,
        ": 16-byte aligned rows need a multiple of 4 by a multiple of 8"));
  }
  const lt::Functions& f = state_->f;
  std::vector<Layouts> layouts;
  for (int rows : kCublasLtRows) {
    QK_ASSIGN_OR_RETURN(Layouts made, Layouts::Make(f, out_features, in, rows));
    layouts.push_back(std::move(made));
  }
  QK_ASSIGN_OR_RETURN(const std::vector<lt::Heuristic> list,
                      state_->Ask(layouts.front(), workspace_bytes));
  std::vector<CublasLtPlan> plans;
  for (const lt::Heuristic& entry : list) {
    if (entry.status != lt::kSuccess || !MayKeepBytes(f, entry.algorithm)) {
      continue;
    }
    size_t most = 0;
    const bool all =
        std::all_of(layouts.begin(), layouts.end(), [&](const Layouts& l) {
          lt::Heuristic result = {};
          if (f.MatmulAlgoCheck(state_->handle, state_->operation, l.w, l.x,
                                l.out, l.out, &entry.algorithm,
                                &result) != lt::kSuccess) {
            return false;
          }
          most = std::max(most, result.workspace_bytes);
          return true;
        });
    if (!all || most > static_cast<size_t>(workspace_bytes)) continue;
    plans.push_back({out_features, in, entry.algorithm,
                     static_cast<int64_t>(most), NameOf(f, entry.algorithm)});
  }
  return plans;
}

absl::Status CublasLt::Multiply(const CublasLtPlan& plan, const void* x,
                                int rows, const void* w, bool add, float* out,
                                void* workspace, int64_t workspace_bytes,
                                Stream stream) {
  if (rows == 0) return absl::OkStatus();
  const lt::Functions& f = state_->f;
  QK_ASSIGN_OR_RETURN(const Layouts layouts,
                      Layouts::Make(f, plan.out_features, plan.in, rows));
  const float alpha = 1.0f, beta = add ? 1.0f : 0.0f;
  return Checked(f,
                 f.Matmul(state_->handle, state_->operation, &alpha, w,
                          layouts.w, x, layouts.x, &beta, out, layouts.out, out,
                          layouts.out, &plan.algorithm, workspace,
                          static_cast<size_t>(workspace_bytes), stream),
                 "Matmul");
}

}  // namespace qk::cuda
