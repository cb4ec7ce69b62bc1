#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/cpu/attention_task.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "engine/base/half.h"
#include "engine/cpu/attention_task.h"
#include "engine/cpu/softmax-inl.h"
#include "engine/cpu/tile-inl.h"
#include "hwy/highway.h"

// Online softmax over tiles of kTileKeys keys, which start at absolute position
// 0; a tile's pages are multiplied one after another. Under bf16 compute,
// queries and weights are rounded to bf16 for the two products. A row's own
// position fixes its chain of operations, so prefill, decode and any split of a
// prompt give it the same bits: in a tile that it sees in part, the other keys
// have the weight 0, and adding 0 changes nothing.

HWY_BEFORE_NAMESPACE();
namespace qk::cpu::HWY_NAMESPACE {

constexpr int kTileKeys = 2 * kPageSize;

// A task's memory. `all` rows: row r is head r / rows, position r % rows.
struct Memory {
  Memory(const AttentionTask& task, AttentionScratch& scratch) : t(task) {
    const PairKernel* kernel = t.pairs;
    all = static_cast<size_t>(t.heads) * t.rows;
    const size_t width = kernel != nullptr ? kernel->width : PanelWidth();
    const size_t step = kernel != nullptr ? 2 * kernel->pair_step : 1;
    padded = (t.head_dim + width - 1) / width * width;
    depth = (t.head_dim + step - 1) / step * step;
    const size_t a_bytes = kernel != nullptr ? kernel->a_bytes : sizeof(float);
    size_t bytes = 0;
    const auto take = [&](size_t n) {
      const size_t begin = bytes;
      bytes += (n + 63) / 64 * 64;
      return begin;
    };
    const size_t at[] = {take(all * depth * a_bytes),
                         take(all * padded * sizeof(float)),
                         take(all * kTileKeys * sizeof(float)),
                         take(kernel ? all * kTileKeys * a_bytes : 0),
                         take(all * sizeof(float)),
                         take(all * hn::Lanes(D()) * sizeof(float)),
                         take(kPageSize * depth * sizeof(float)),
                         take(kPageSize * padded * sizeof(float))};
    uint8_t* base = scratch.Get(bytes);
    q = base + at[0];
    o = reinterpret_cast<float*>(base + at[1]);
    s = reinterpret_cast<float*>(base + at[2]);
    weights = kernel != nullptr ? base + at[3] : base + at[2];
    max = reinterpret_cast<float*>(base + at[4]);
    sums = reinterpret_cast<float*>(base + at[5]);
    k = base + at[6];
    v = base + at[7];
  }

  const AttentionTask& t;
  size_t all;
  size_t padded;     // head_dim in whole panels
  size_t depth;      // head_dim in whole steps of the kernel
  uint8_t* q;        // (all, depth), in the kernel's form
  float* o;          // (all, padded), sums of weighted values
  float* s;          // (all, kTileKeys), scores, then weights
  uint8_t* weights;  // (all, kTileKeys), in the kernel's form
  float* max;        // of each row's scores so far
  float* sums;       // (all, lanes), which add up to the weights so far
  uint8_t* k;        // room for a page's keys and values
  uint8_t* v;
};

// Of the tile that begins at key `base`.
HWY_INLINE Seen SeenBy(const AttentionTask& t, int position, int base) {
  const int end =
      std::min(kTileKeys, (t.causal ? position + 1 : t.keys) - base);
  const int begin =
      t.window == 0 ? 0 : std::max(0, position - t.window + 1 - base);
  return begin < end ? Seen{begin, end} : Seen{0, 0};
}

// What `seen` has of page `i` of its tile.
HWY_INLINE Seen OfPage(Seen seen, int i) {
  const int begin = std::clamp(seen.begin - i * kPageSize, 0, kPageSize);
  const int end = std::clamp(seen.end - i * kPageSize, 0, kPageSize);
  return begin < end ? Seen{begin, end} : Seen{0, 0};
}

// Calls row(r, what it sees) for all rows.
template <typename Row>
HWY_INLINE void ForRows(const AttentionTask& t, int base, const Row& row) {
  for (int i = 0; i < t.rows; ++i) {
    const Seen seen = SeenBy(t, t.first_position + i, base);
    for (int h = 0; h < t.heads; ++h) {
      row(static_cast<size_t>(h) * t.rows + i, seen);
    }
  }
}

// The keys and values of page `index` of a tile for the task's KV head, and the
// two products with them, in float32.
class F32Page {
 public:
  static void PrepareQuery(const float* from, const Memory& m, size_t row) {
    std::copy_n(from, m.t.head_dim,
                reinterpret_cast<float*>(m.q) + row * m.depth);
  }

  static void PrepareWeights(const Memory&, size_t, size_t) {}

  F32Page(const Memory& m, const KvPage& page, int64_t head, int index)
      : m_(m),
        s_(m.s + index * kPageSize),
        k_(static_cast<const float*>(page.k) + head * m.t.head_dim * kPageSize),
        v_(static_cast<const float*>(page.v) +
           head * m.t.head_dim * kPageSize) {}

  void Scores() const {
    Product(reinterpret_cast<const float*>(m_.q), m_.depth, m_.all, k_,
            kPageSize, m_.depth, {Into::kSet, nullptr, s_, kTileKeys});
  }
  bool ValuesAreFinite(int keys) const {
    return AllFinite(v_, static_cast<size_t>(keys) * m_.t.head_dim);
  }
  // Takes the values of these keys.
  void PrepareValues(Seen keys) {
    keys_ = keys;
    values_ = v_ + static_cast<size_t>(keys.begin) * m_.t.head_dim;
    if (m_.padded == static_cast<size_t>(m_.t.head_dim)) return;
    float* wide = reinterpret_cast<float*>(m_.v);
    for (int j = 0; j < keys.end - keys.begin; ++j) {
      std::copy_n(values_ + j * m_.t.head_dim, m_.t.head_dim,
                  wide + j * m_.padded);
    }
    values_ = wide;
  }
  void AddValues(size_t row, size_t rows) const {
    Product(s_ + row * kTileKeys + keys_.begin, kTileKeys, rows, values_,
            m_.padded, keys_.end - keys_.begin,
            {Into::kContinue, nullptr, m_.o + row * m_.padded, m_.padded});
  }

 private:
  // The sums of a (rows, k) x b (k, n); n a multiple of the panel width.
  static void Product(const float* a, size_t a_stride, size_t rows,
                      const float* b, size_t n, size_t k, const Sums& sums) {
    const size_t width = PanelWidth();
    for (size_t j = 0; j < n; j += width) {
      for (size_t r = 0; r < rows; r += kTileRows) {
        TileOf(std::min<size_t>(kTileRows, rows - r), a + r * a_stride,
               a_stride, b + j, n, k, sums.At(r, j));
      }
    }
  }

  const Memory& m_;
  float* s_;        // the page's part of m_.s
  const float* k_;  // (head_dim, kPageSize)
  const float* v_;  // (kPageSize, head_dim)
  Seen keys_ = {};
  const float* values_ = nullptr;  // (keys, padded)
};

// The same in bf16, by a kernel for pairs.
class PairPage {
 public:
  static void PrepareQuery(const float* from, const Memory& m, size_t row) {
    const PairKernel& kernel = *m.t.pairs;
    uint8_t* to = m.q + row * m.depth * kernel.a_bytes;
    kernel.round(from, m.t.head_dim, to);
    const size_t written = (m.t.head_dim + 1) / 2 * 2;
    std::memset(to + written * kernel.a_bytes, 0,
                (m.depth - written) * kernel.a_bytes);
  }

  // Rounds the first n weights of a row.
  static void PrepareWeights(const Memory& m, size_t row, size_t n) {
    const PairKernel& kernel = *m.t.pairs;
    kernel.round(m.s + row * kTileKeys, n,
                 m.weights + row * kTileKeys * kernel.a_bytes);
  }

  PairPage(const Memory& m, const KvPage& page, int64_t head, int index)
      : m_(m),
        kernel_(*m.t.pairs),
        first_(index * kPageSize),
        k_(static_cast<const uint16_t*>(page.k) +
           head * m.t.head_dim * kPageSize),
        v_(static_cast<const uint16_t*>(page.v) +
           head * m.t.head_dim * kPageSize) {}

  void Scores() const {
    const uint16_t* keys = k_;
    const auto dim = static_cast<size_t>(m_.t.head_dim);
    if (m_.depth != dim) {
      // The kernel takes more at once: zeros follow.
      auto* copy = reinterpret_cast<uint16_t*>(m_.k);
      const size_t whole = dim / 2 * 2;
      std::copy_n(k_, whole * kPageSize, copy);
      std::fill(copy + whole * kPageSize, copy + m_.depth * kPageSize, 0);
      for (size_t key = 0; whole < dim && key < kPageSize; ++key) {
        copy[whole * kPageSize + 2 * key] = k_[whole * kPageSize + key];
      }
      keys = copy;
    }
    Multiply(m_.q, m_.depth, m_.all, keys, kPageSize, m_.depth / 2, Into::kSet,
             m_.s + first_, kTileKeys);
  }
  bool ValuesAreFinite(int keys) const {
    const int dim = m_.t.head_dim;
    bool finite = AllFinite(v_, static_cast<size_t>(keys / 2 * 2) * dim);
    for (int i = 0; keys % 2 != 0 && i < dim; ++i) {
      finite =
          finite &&
          std::isfinite(FromBF16(v_[ValuePlace<uint16_t>(keys - 1, i, dim)]));
    }
    return finite;
  }
  // Takes the values of these keys. Those of whole steps of the kernel are read
  // where they are, the others copied, with zeros for keys that are not seen.
  void PrepareValues(Seen keys) {
    const int dim = m_.t.head_dim;
    const int step = 2 * static_cast<int>(kernel_.pair_step);
    const bool in_place =
        keys.begin == 0 && m_.padded == static_cast<size_t>(dim);
    whole_ = in_place ? keys.end / step * step : 0;
    copied_ = (keys.end - whole_ + step - 1) / step * step;
    const auto seen = [&](int key) {
      return key >= keys.begin && key < keys.end;
    };
    for (int j = 0; j < copied_; j += 2) {
      const int key = whole_ + j;
      const uint16_t* pair = v_ + key * dim;
      auto* to = reinterpret_cast<uint16_t*>(m_.v) + j * m_.padded;
      if (seen(key) && seen(key + 1)) {
        std::copy_n(pair, 2 * dim, to);
        continue;
      }
      for (int i = 0; i < 2 * dim; ++i) to[i] = seen(key + i % 2) ? pair[i] : 0;
    }
  }
  void AddValues(size_t row, size_t rows) const {
    const auto add = [&](int first, int keys, const uint16_t* values) {
      if (keys == 0) return;
      Multiply(
          m_.weights + (row * kTileKeys + first_ + first) * kernel_.a_bytes,
          kTileKeys, rows, values, m_.padded, keys / 2, Into::kContinue,
          m_.o + row * m_.padded, m_.padded);
    };
    add(0, whole_, v_);
    add(whole_, copied_, reinterpret_cast<const uint16_t*>(m_.v));
  }

 private:
  // c (rows, n) = a (rows, 2 pairs) x b (pairs, n, 2).
  void Multiply(const uint8_t* a, size_t a_stride, size_t rows,
                const uint16_t* b, size_t n, size_t pairs, Into into, float* c,
                size_t c_stride) const {
    PairProduct p;
    p.a = a;
    p.a_stride = a_stride;
    p.rows = rows;
    p.b = b;
    p.b_stride = 2 * n;
    p.panel_stride = 2 * kernel_.width;
    p.panels = n / kernel_.width;
    p.pairs = pairs;
    p.into = into;
    p.c = c;
    p.c_stride = c_stride;
    kernel_.multiply(p);
  }

  const Memory& m_;
  const PairKernel& kernel_;
  const int first_;    // the page's first key in the tile
  const uint16_t* k_;  // of KvPage, for the head
  const uint16_t* v_;
  // Of the prepared values: keys in their place, and those in m_.v.
  int whole_ = 0;
  int copied_ = 0;
};

// Turns all rows' scores for the tile into weights. `end`: of the keys that any
// row sees.
template <typename Page>
HWY_INLINE void WeighTile(const Memory& m, int base, int end) {
  const size_t n = (end + kSoftmaxStep - 1) / kSoftmaxStep * kSoftmaxStep;
  ForRows(m.t, base, [&](size_t r, Seen seen) HWY_ATTR {
    float* row = m.s + r * kTileKeys;
    if (seen.end == 0) {
      std::fill_n(row, n, 0.0f);
    } else {
      const float factor =
          SoftmaxRow(row, n, seen, m.t, m.max[r], m.sums + r * hn::Lanes(D()));
      if (factor != 1.0f) ScaleRow(m.o + r * m.padded, m.padded, factor);
    }
    Page::PrepareWeights(m, r, n);
  });
}

// Adds the weighted values of page `index` of a tile. Rows go together, those
// that see it in part with weights of 0 for the other keys. But 0 times NaN is
// NaN: if there is a value that is not finite, rows go one by one, over the
// keys that they see.
template <typename Page>
HWY_INLINE void AddPage(Page& page, const Memory& m, int base, int index) {
  int end = 0;
  bool same = true;
  const Seen first = OfPage(SeenBy(m.t, m.t.first_position, base), index);
  ForRows(m.t, base, [&](size_t, Seen seen) HWY_ATTR {
    const Seen here = OfPage(seen, index);
    same = same && here == first;
    end = std::max(end, here.end);
  });
  if ((same && first.begin == 0) || page.ValuesAreFinite(end)) {
    page.PrepareValues({0, end});
    page.AddValues(0, m.all);
    return;
  }
  ForRows(m.t, base, [&](size_t r, Seen seen) HWY_ATTR {
    const Seen here = OfPage(seen, index);
    if (here.end == 0) return;
    page.PrepareValues(here);
    page.AddValues(r, 1);
  });
}

template <typename Page>
HWY_ATTR void RunTask(const AttentionTask& t, AttentionScratch& scratch) {
  const Memory m(t, scratch);
  std::fill_n(m.o, m.all * m.padded, 0.0f);
  std::fill_n(m.max, m.all, -std::numeric_limits<float>::infinity());
  std::fill_n(m.sums, m.all * hn::Lanes(D()), 0.0f);
  if (m.padded != static_cast<size_t>(t.head_dim)) {
    std::memset(m.v, 0, kPageSize * m.padded * sizeof(float));
  }
  const auto offset_of = [&](size_t r) {
    const int row = static_cast<int>(r);
    return (row / t.rows) * t.head_dim +
           static_cast<int64_t>(row % t.rows) * t.row_stride;
  };
  for (size_t r = 0; r < m.all; ++r) {
    Page::PrepareQuery(t.q + offset_of(r), m, r);
  }
  const int last_key = (t.causal ? t.first_position + t.rows : t.keys) - 1;
  const int first_key =
      t.window == 0 ? 0 : std::max(0, t.first_position - t.window + 1);
  for (int base = first_key / kTileKeys * kTileKeys; base <= last_key;
       base += kTileKeys) {
    const int end = std::min(kTileKeys, last_key + 1 - base);
    const auto for_pages = [&](const auto& use) HWY_ATTR {
      for (int i = 0; i * kPageSize < end; ++i) {
        // No row sees the pages before that of the first key.
        if (base + (i + 1) * kPageSize <= first_key) continue;
        const KvPage& page = t.pages[base / kPageSize + i];
        Page here(m, page, t.kv_head_numerator * page.heads / t.num_heads, i);
        use(here, i);
      }
    };
    for_pages([](Page& page, int) HWY_ATTR { page.Scores(); });
    WeighTile<Page>(m, base, end);
    for_pages([&](Page& page, int i) HWY_ATTR { AddPage(page, m, base, i); });
  }
  for (size_t r = 0; r < m.all; ++r) {
    float* to = t.out + offset_of(r);
    const D d;
    const float inverse =
        1.0f /
        hn::GetLane(hn::SumOfLanes(d, hn::LoadU(d, m.sums + r * hn::Lanes(d))));
    // Of the two zeros, adding 0 leaves the positive one. Which one the sum has
    // may depend on keys that the row does not see.
    for (int i = 0; i < t.head_dim; ++i) {
      to[i] = m.o[r * m.padded + i] * inverse + 0.0f;
    }
  }
}

HWY_ATTR void Run(const AttentionTask& t, AttentionScratch& scratch) {
  t.pairs == nullptr ? RunTask<F32Page>(t, scratch)
                     : RunTask<PairPage>(t, scratch);
}

}  // namespace qk::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qk::cpu {
HWY_EXPORT(Run);

void RunAttentionTask(const AttentionTask& task, AttentionScratch& scratch) {
  HWY_DYNAMIC_DISPATCH(Run)(task, scratch);
}

}  // namespace qk::cpu
#endif  // HWY_ONCE
