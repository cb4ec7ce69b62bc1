// absl's flat hash tables, grown in a way that survives std::bad_alloc: absl's
// own note their new size first and allocate then, and what is left when that
// throws cannot even be destroyed.
#ifndef QKSCOPE_ENGINE_BASE_FLAT_HASH_H_
#define QKSCOPE_ENGINE_BASE_FLAT_HASH_H_

#include <algorithm>
#include <cstddef>
#include <new>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"

namespace qk {

// All that inserts makes room first. Nothing is ever erased, so room stays.
template <typename Table>
class GrownTable : public Table {
 public:
  using Key = typename Table::key_type;

  GrownTable() = default;
  GrownTable(GrownTable&& other) noexcept { *this = std::move(other); }
  GrownTable& operator=(GrownTable&& other) noexcept {
    Table::swap(other);
    std::swap(room_, other.room_);
    return *this;
  }

  void reserve(size_t size) {
    if (size > room_) Grow(size);
  }
  template <typename... Args>
  auto emplace(Args&&... args) {
    MakeRoom();
    return Table::emplace(std::forward<Args>(args)...);
  }
  template <typename... Args>
  auto try_emplace(Args&&... args) {
    MakeRoom();
    return Table::try_emplace(std::forward<Args>(args)...);
  }
  auto insert(Key key) {
    MakeRoom();
    return Table::insert(std::move(key));
  }
  decltype(auto) operator[](Key key) {
    MakeRoom();
    return Table::operator[](std::move(key));
  }
  void erase() = delete;

 private:
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
