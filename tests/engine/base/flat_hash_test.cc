// Each allocation during the filling of a table fails once, for every kind of
// table and every way to fill it: the contents stay, and filling can continue.
#include "engine/base/flat_hash.h"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "tests/engine/failing_new.h"

namespace qk::testing {
namespace {

constexpr int kElements = 300;

// The text is longer than a std::string holds without memory of its own.
std::string LongText(int i) {
  return absl::StrCat("an element of the table, number ", i);
}

// Returns a view of a text that lives as long as the process.
absl::string_view View(int i) {
  static const auto* const texts = [] {
    auto* texts = new std::string[kElements];
    for (int i = 0; i < kElements; ++i) texts[i] = LongText(i);
    return texts;
  }();
  return texts[i];
}

// Ways to fill a table. Add inserts element i; Has returns whether element i is
// there and right.

struct EmplacedViews {
  using Table = FlatHashMap<absl::string_view, int64_t>;
  static void Add(Table& table, int i) { table.emplace(View(i), int64_t{i}); }
  static bool Has(const Table& table, int i) {
    const auto found = table.find(View(i));
    return found != table.end() && found->second == i;
  }
};

struct TriedNumbers {
  using Table = FlatHashMap<uint64_t, int32_t>;
  static void Add(Table& table, int i) { table.try_emplace(7ull * i, i); }
  static bool Has(const Table& table, int i) {
    const auto found = table.find(7ull * i);
    return found != table.end() && found->second == i;
  }
};

struct IndexedNumbers : TriedNumbers {
  static void Add(Table& table, int i) { table[7ull * i] = i; }
};

struct TextKeys {
  using Table = FlatHashMap<std::string, int32_t>;
  static void Add(Table& table, int i) {
    std::string key = LongText(i);
    table[std::move(key)] = i;
  }
  static bool Has(const Table& table, int i) {
    const auto found = table.find(View(i));
    return found != table.end() && found->second == i;
  }
};

struct EmplacedTextKeys : TextKeys {
  static void Add(Table& table, int i) { table.emplace(LongText(i), i); }
};

// If memory runs out before the value is assigned, the element stays empty, and
// the next try assigns it.
struct TextValues {
  using Table = FlatHashMap<int32_t, std::string>;
  static void Add(Table& table, int i) {
    std::string value = LongText(i);
    table[i] = std::move(value);
  }
  static bool Has(const Table& table, int i) {
    const auto found = table.find(i);
    return found != table.end() && found->second == View(i);
  }
};

struct OwnedValues {
  using Table = FlatHashMap<int32_t, std::unique_ptr<std::string>>;
  static void Add(Table& table, int i) {
    table.try_emplace(i, std::make_unique<std::string>(LongText(i)));
  }
  static bool Has(const Table& table, int i) {
    const auto found = table.find(i);
    return found != table.end() && *found->second == View(i);
  }
};

struct ViewSet {
  using Table = FlatHashSet<absl::string_view>;
  static void Add(Table& table, int i) {
    EXPECT_TRUE(table.insert(View(i)).second);
  }
  static bool Has(const Table& table, int i) {
    return table.find(View(i)) != table.end();
  }
};

struct TextSet {
  using Table = FlatHashSet<std::string>;
  static void Add(Table& table, int i) {
    EXPECT_TRUE(table.insert(LongText(i)).second);
  }
  static bool Has(const Table& table, int i) {
    return table.find(View(i)) != table.end();
  }
};

struct EmplacedTextSet : TextSet {
  static void Add(Table& table, int i) { table.emplace(LongText(i)); }
};

template <typename Way>
class FlatHashTest : public ::testing::Test {
 protected:
  using Table = typename Way::Table;

  // Checks that the table has exactly the first `count` elements.
  static void ExpectHas(const Table& table, int count) {
    ASSERT_EQ(table.size(), static_cast<size_t>(count));
    for (int i = 0; i < kElements; ++i) {
      ASSERT_EQ(Way::Has(table, i), i < count) << i << " of " << count;
    }
    int walked = 0;
    for (auto it = table.begin(); it != table.end(); ++it) ++walked;
    ASSERT_EQ(walked, count);
  }

  // Fills the table from `begin` on while the n-th allocation fails; returns
  // the element at which it stopped.
  static int Fill(Table& table, int begin, int64_t n) {
    int i = begin;
    FailingNew::Arm(n);
    try {
      for (; i < kElements; ++i) Way::Add(table, i);
    } catch (const std::bad_alloc&) {
    }
    calls_ = FailingNew::Disarm();
    return i;
  }

  static inline int64_t calls_ = 0;
};

using Ways = ::testing::Types<EmplacedViews, TriedNumbers, IndexedNumbers,
                              TextKeys, EmplacedTextKeys, TextValues,
                              OwnedValues, ViewSet, TextSet, EmplacedTextSet>;
TYPED_TEST_SUITE(FlatHashTest, Ways);

TYPED_TEST(FlatHashTest, R13_AFailedInsertionChangesNothing) {
  using Table = typename TestFixture::Table;
  View(0);  // makes the texts
  {
    Table table;
    ASSERT_EQ(TestFixture::Fill(table, 0, 0), kElements);
    TestFixture::ExpectHas(table, kElements);
  }
  const int64_t total = TestFixture::calls_;
  ASSERT_GE(total, 6);  // 8, 16, ... 512
  for (int64_t n = 1; n <= total; ++n) {
    const int64_t live = FailingNew::live;
    {
      Table table;
      const int reached = TestFixture::Fill(table, 0, n);
      ASSERT_LT(reached, kElements) << "allocation " << n << " did not fail";
      TestFixture::ExpectHas(table, reached);
      if (this->HasFatalFailure()) FAIL() << "allocation " << n;
      // A table destroyed here leaves nothing; this one is filled further.
      Table moved = std::move(table);
      ASSERT_EQ(TestFixture::Fill(moved, reached, 0), kElements);
      TestFixture::ExpectHas(moved, kElements);
      if (this->HasFatalFailure()) FAIL() << "after allocation " << n;
    }
    ASSERT_EQ(FailingNew::live, live) << "allocation " << n;
    {
      Table table;
      TestFixture::Fill(table, 0, n);
    }
    ASSERT_EQ(FailingNew::live, live) << "allocation " << n;
  }
}

TYPED_TEST(FlatHashTest, R13_AFailedReservationChangesNothing) {
  using Table = typename TestFixture::Table;
  for (int before : {0, 1, 8, 9, 100}) {
    const int64_t live = FailingNew::live;
    {
      Table table;
      for (int i = 0; i < before; ++i) TypeParam::Add(table, i);
      FailingNew::Arm(1);
      EXPECT_THROW(table.reserve(kElements), std::bad_alloc);
      FailingNew::Disarm();
      TestFixture::ExpectHas(table, before);
      table.reserve(kElements);
      TestFixture::ExpectHas(table, before);
      ASSERT_EQ(TestFixture::Fill(table, before, 0), kElements);
      TestFixture::ExpectHas(table, kElements);
    }
    EXPECT_EQ(FailingNew::live, live) << before;
  }
}

}  // namespace
}  // namespace qk::testing
