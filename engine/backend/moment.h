// A moment of the device: when it has done the ops up to some point.
#ifndef QKSCOPE_ENGINE_BACKEND_MOMENT_H_
#define QKSCOPE_ENGINE_BACKEND_MOMENT_H_

namespace qk {

class Moment {
 public:
  virtual ~Moment() = default;
  // Whether the device has come so far, or has failed. Waits for nothing.
  virtual bool reached() const = 0;
  virtual void Wait() const = 0;
  // Seconds of the device's clock since an earlier moment of the same backend.
  // Both must be reached; 0 if the device has failed.
  virtual double SecondsSince(const Moment& earlier) const = 0;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BACKEND_MOMENT_H_
