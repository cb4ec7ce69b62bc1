#include <algorithm>
#include <utility>

#include "engine/base/half.h"
#include "engine/cpu/kernels.h"

namespace qk::cpu {
namespace {

// One head's key and value go to a slot of a page's head.
void StoreHead(const float* k, const float* v, int slot, int dim, float* to_k,
               float* to_v) {
  for (int i = 0; i < dim; ++i) to_k[KeyPlace<float>(slot, i, dim)] = k[i];
  std::copy_n(v, dim, to_v + ValuePlace<float>(slot, 0, dim));
}
void StoreHead(const float* k, const float* v, int slot, int dim,
               uint16_t* to_k, uint16_t* to_v) {
  constexpr int kStep = 64;
  uint16_t rounded[kStep];
  for (int begin = 0; begin < dim; begin += kStep) {
    const int n = std::min(kStep, dim - begin);
    for (int i = 0; i < n; ++i) rounded[i] = RoundToBF16(k[begin + i]);
    for (int i = 0; i + 1 < n; i += 2) {
      uint16_t* pair = to_k + KeyPlace<uint16_t>(slot, begin + i, dim);
      pair[0] = rounded[i];
      pair[1] = rounded[i + 1];
    }
    if (n % 2 != 0) {
      to_k[KeyPlace<uint16_t>(slot, begin + n - 1, dim)] = rounded[n - 1];
    }
    for (int i = 0; i < n; ++i) rounded[i] = RoundToBF16(v[begin + i]);
    uint16_t* values = to_v + ValuePlace<uint16_t>(slot, begin, dim);
    for (int i = 0; i < n; ++i) values[2 * i] = rounded[i];
  }
}

// Stores those rows of k and v (rows, page.heads, dim), whose first one has
// `first_position`, that belong to a page, which begins at page_position.
template <typename T>
void Append(const float* k, const float* v, int rows, int first_position,
            int page_position, int dim, const KvPage& page) {
  const int begin = std::max(0, page_position - first_position);
  const int end = std::min(rows, page_position + kPageSize - first_position);
  for (int row = begin; row < end; ++row) {
    const int slot = first_position + row - page_position;
    for (int h = 0; h < page.heads; ++h) {
      const int64_t source = (int64_t{row} * page.heads + h) * dim;
      const int64_t target = static_cast<int64_t>(h) * dim * kPageSize;
      StoreHead(k + source, v + source, slot, dim,
                static_cast<T*>(page.k) + target,
                static_cast<T*>(page.v) + target);
    }
  }
}

// Copies whole heads; what lies behind the positions in use is not read.
template <typename T>
void CopyPage(const KvPage& from, const KvPage& to, int dim) {
  const int group = to.heads / from.heads;
  const int64_t size = int64_t{dim} * kPageSize;
  for (int h = 0; h < to.heads; ++h) {
    for (const auto& [source, target] :
         {std::pair{from.k, to.k}, std::pair{from.v, to.v}}) {
      std::copy_n(static_cast<const T*>(source) + h / group * size, size,
                  static_cast<T*>(target) + h * size);
    }
  }
}

KvPage PageAt(uint8_t* base, const KvPart& part) {
  return {base + part.k_offset, base + part.v_offset, part.heads};
}

// Rows that go to some pages, one page per task.
struct PageRows {
  const CpuRowTable::Sequence* sequence;
  const float* k;  // (rows, heads, head_dim)
  const float* v;
  const FreshPages* fresh;  // nullptr: they go to the cache
};

template <typename T>
void AppendAll(absl::Span<const PageRows> all, int dim, const KvPart& part,
               ThreadPool& pool) {
  const auto pages = [](const PageRows& rows) {
    const CpuRowTable::Sequence& s = *rows.sequence;
    return int64_t{(s.end() - 1) / kPageSize - s.first_page() + 1};
  };
  ForChunks(all, pool, pages, [&](const PageRows& rows, int64_t i) {
    const CpuRowTable::Sequence& s = *rows.sequence;
    const int64_t page = s.first_page() + i;
    const int position = static_cast<int>(page) * kPageSize;
    const KvPage cached = PageAt(s.pages[page], part);
    KvPage to = cached;
    if (const FreshPages* fresh = rows.fresh; fresh != nullptr) {
      to = PageAt(static_cast<uint8_t*>(fresh->base) + i * fresh->stride,
                  fresh->part);
      if (s.first_position > position) CopyPage<T>(cached, to, dim);
    }
    Append<T>(rows.k, rows.v, s.rows, s.first_position, position, dim, to);
  });
}

}  // namespace

CpuRowTable::CpuRowTable(absl::Span<const SequenceRows> sequences) {
  for (const SequenceRows& rows : sequences) {
    Sequence& s = sequences_.emplace_back();
    s.row_begin = rows.row_begin;
    s.rows = rows.rows;
    s.first_position = rows.first_position;
    s.state = rows.state;
    for (void* page : rows.pages) {
      s.pages.push_back(static_cast<uint8_t*>(page));
    }
  }
}

std::vector<std::vector<KvPage>> PagesOf(const KvView& kv) {
  std::vector<std::vector<KvPage>> all;
  const std::vector<CpuRowTable::Sequence>& sequences =
      CpuRowTable::Of(*kv.rows);
  for (const CpuRowTable::Sequence& s : sequences) {
    std::vector<KvPage>& pages = all.emplace_back();
    pages.reserve(s.pages.size());
    for (uint8_t* page : s.pages) pages.push_back(PageAt(page, kv.part));
  }
  for (const FreshPages& fresh : kv.fresh) {
    const CpuRowTable::Sequence& s = sequences[fresh.sequence];
    auto* base = static_cast<uint8_t*>(fresh.base);
    for (int i = s.first_page(); i <= (s.end() - 1) / kPageSize; ++i) {
      all[fresh.sequence][i] = PageAt(base, fresh.part);
      base += fresh.stride;
    }
  }
  return all;
}

void AppendKv(const float* k, const float* v, int head_dim, const KvView& kv,
              ThreadPool& pool) {
  const int64_t width = int64_t{kv.part.heads} * head_dim;
  const std::vector<CpuRowTable::Sequence>& sequences =
      CpuRowTable::Of(*kv.rows);
  std::vector<PageRows> cached, fresh;
  for (const CpuRowTable::Sequence& s : sequences) {
    cached.push_back(
        {&s, k + s.row_begin * width, v + s.row_begin * width, nullptr});
  }
  for (const FreshPages& f : kv.fresh) {
    fresh.push_back({&sequences[f.sequence], f.k, f.v, &f});
  }
  const auto append =
      kv.type == ComputeType::kF32 ? &AppendAll<float> : &AppendAll<uint16_t>;
  append(cached, head_dim, kv.part, pool);
  append(fresh, head_dim, kv.part, pool);
}

}  // namespace qk::cpu
