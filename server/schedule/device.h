// The scheduler's interface to a device: passes that run step by step. The real
// device (engine_device.h) uses qk::Pass; tests use their own.
#ifndef QKSCOPE_SERVER_SCHEDULE_DEVICE_H_
#define QKSCOPE_SERVER_SCHEDULE_DEVICE_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace qk {

class Model;
class Sequence;

// Like qk::Pass: call RunStep until done, then Finish.
class DevicePass {
 public:
  virtual ~DevicePass() = default;
  virtual void RunStep() = 0;
  virtual void DropCancelled() = 0;
  virtual bool done() const = 0;
  virtual absl::Status Finish() = 0;
  // The device's seconds of the steps that it has done.
  virtual double Seconds() = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  // `sequences` must not be empty, must all be of `model`, and must outlive the
  // pass.
  virtual std::unique_ptr<DevicePass> StartPass(
      const Model& model, absl::Span<Sequence* const> sequences) = 0;
  // The number of rows of the sequence in its next pass.
  virtual int Rows(const Sequence& sequence) const = 0;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_DEVICE_H_
