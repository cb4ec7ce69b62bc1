// Lets whoever runs long work on a thread, such as tokenising a long text, make
// it pause for others. The work calls MayPark now and then; on a thread that
// nobody watches, that does nothing.
#ifndef QKSCOPE_ENGINE_BASE_MAY_PARK_H_
#define QKSCOPE_ENGINE_BASE_MAY_PARK_H_

namespace qk {

class Parking {
 public:
  virtual ~Parking() = default;
  // May block. Is called very often; `steps`: of work since the last call.
  virtual void MayPark(int steps) = 0;
};

namespace internal {
inline thread_local Parking* t_parking = nullptr;
}  // namespace internal

// A step takes about as long as tokenising a word; kManySteps may take longer
// than a turn.
inline constexpr int kManySteps = 32;
inline void MayPark(int steps = 1) {
  if (internal::t_parking != nullptr) internal::t_parking->MayPark(steps);
}

// Watches its thread during its life.
class ScopedParking {
 public:
  explicit ScopedParking(Parking* parking) { internal::t_parking = parking; }
  ~ScopedParking() { internal::t_parking = nullptr; }
  ScopedParking(const ScopedParking&) = delete;
  ScopedParking& operator=(const ScopedParking&) = delete;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BASE_MAY_PARK_H_
