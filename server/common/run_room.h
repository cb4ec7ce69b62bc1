// What a run needs besides the device's memory, such as room in the buffers of
// its results. It is taken when the run is next, so that a run that waits holds
// nothing.
#ifndef QKSCOPE_SERVER_COMMON_RUN_ROOM_H_
#define QKSCOPE_SERVER_COMMON_RUN_ROOM_H_

namespace qk {

class RunRoom {
 public:
  virtual ~RunRoom() = default;
  // Returns false if there is no room now. Must not block. The scheduler's lock
  // is held.
  virtual bool TakeRoom() = 0;
  // Gives back what TakeRoom took, because the run must wait for something
  // else. No lock is held.
  virtual void GiveRoomBack() = 0;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_RUN_ROOM_H_
