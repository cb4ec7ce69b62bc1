// absl's flat hash tables, grown in a way that survives std::bad_alloc: absl's
// own note their new size first and allocate then, and what is left when that
// throws cannot even be destroyed.
#ifndef QKSCOPE_ENGINE_BASE_FLAT_HASH_H_
#define QKSCOPE_ENGINE_BASE_FLAT_HASH_H_

#include <algorithm>
#include <cstddef>
#include <new>
#include <type_traits>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"

namespace qk {

// An insertion that throws std::bad_alloc leaves the table as it was. All that
// inserts makes room first. Nothing is ever erased, so room stays.
template <typename Table>
class GrownTable : private Table {
 public:
  using Key = typename Table::key_type;
  using typename Table::value_type;

  GrownTable() = default;
  GrownTable(GrownTable&& other) noexcept { *this = std::move(other); }
  GrownTable& operator=(GrownTable&& other) noexcept {
    Table::swap(other);
    std::swap(room_, other.room_);
    return *this;
  }

  using Table::begin;
  using Table::contains;
  using Table::empty;
  using Table::end;
  using Table::find;
  using Table::size;

  void reserve(size_t size) {
    if (size > room_) Grow(size);
  }
  // Elements are made in their place, where absl cannot bear an exception:
  // what they are made of must not throw.
  template <typename K, typename... Args>
  auto emplace(K&& key, Args&&... args) {
    CheckNothrow<K, Args...>();
    MakeRoom();
    return Table::emplace(std::forward<K>(key), std::forward<Args>(args)...);
  }
  template <typename K, typename... Args>
  auto try_emplace(K&& key, Args&&... args) {
    CheckNothrow<K, Args...>();
    MakeRoom();
    return Table::try_emplace(std::forward<K>(key),
                              std::forward<Args>(args)...);
  }
  auto insert(Key key) {
    CheckNothrow<Key&&>();
    MakeRoom();
    return Table::insert(std::move(key));
  }
  decltype(auto) operator[](Key key) {
    CheckNothrow<Key&&>();
    MakeRoom();
    return Table::operator[](std::move(key));
  }
  decltype(auto) at(const Key& key) { return Table::at(key); }

 private:
  template <typename K, typename... Args>
  static constexpr void CheckNothrow() {
    static_assert(std::is_nothrow_constructible_v<Key, K>);
    if constexpr (!std::is_same_v<Key, value_type>) {
      static_assert(std::is_nothrow_constructible_v<typename Table::mapped_type,
                                                    Args...>);
    }
  }

  void MakeRoom() {
    if (this->size() == room_) Grow(std::max<size_t>(8, 2 * room_));
  }

  void Grow(size_t room) {
    alignas(Table) std::byte storage[sizeof(Table)];
    Table* bigger = new (storage) Table();
    bigger->reserve(room);  // throws: it owns nothing, and is not destroyed
    bigger->merge(*this);
    Table::swap(*bigger);
    bigger->~Table();
    room_ = room;
  }

  size_t room_ = 0;  // elements that certainly fit
};

template <typename Key, typename Value>
using FlatHashMap = GrownTable<absl::flat_hash_map<Key, Value>>;
template <typename Key>
using FlatHashSet = GrownTable<absl::flat_hash_set<Key>>;

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BASE_FLAT_HASH_H_
