// Stackful coroutines for the threads of an emulated block: a switch of 7
// registers, told to AddressSanitizer and ThreadSanitizer. (ucontext makes two
// system calls a switch; -DQK_FIBER_UCONTEXT takes it on other processors.)
#ifndef QKSCOPE_TESTS_CUDA_ON_CPU_FIBER_H_
#define QKSCOPE_TESTS_CUDA_ON_CPU_FIBER_H_

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <utility>

#if defined(QK_FIBER_UCONTEXT) || !defined(__x86_64__)
#include <ucontext.h>
#ifndef QK_FIBER_UCONTEXT
#define QK_FIBER_UCONTEXT
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
}
#endif

namespace qk::cuda_on_cpu {

#ifndef QK_FIBER_UCONTEXT
// Saves the callee-saved registers, leaves its stack pointer in *from, goes on
// at `to`.
extern "C" void qk_switch_stack(void** from, void* to);
asm(R"(
  .text
  .weak qk_switch_stack
  .type qk_switch_stack, @function
qk_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size qk_switch_stack, .-qk_switch_stack
)");
#endif

class Fiber {
 public:
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  static constexpr size_t kStack = 256 << 10;
#else
  static constexpr size_t kStack = 64 << 10;
#endif

  Fiber() {
    // The lowest page is never mapped: a deep stack ends here, not in a
    // neighbour.
    base_ = static_cast<char*>(mmap(nullptr, kStack + 4096, PROT_NONE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED ||
        mprotect(base_ + 4096, kStack, PROT_READ | PROT_WRITE) != 0) {
      std::perror("fiber stack");
      std::abort();
    }
  }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber() { munmap(base_, kStack + 4096); }

  // The next Resume calls entry(argument) from its beginning.
  void Prepare(void (*entry)(void*), void* argument) {
    entry_ = entry;
    argument_ = argument;
    done_ = false;
#ifdef __SANITIZE_ADDRESS__
    // Frames that were never left.
    __asan_unpoison_memory_region(base_ + 4096, kStack);
#endif
#ifdef __SANITIZE_THREAD__
    // Once: whoever gets this stack next comes after who had it.
    if (tsan_ == nullptr) tsan_ = __tsan_create_fiber(0);
#endif
#ifdef QK_FIBER_UCONTEXT
    getcontext(&context_);
    context_.uc_stack.ss_sp = base_ + 4096;
    context_.uc_stack.ss_size = kStack;
    context_.uc_link = nullptr;
    const auto self = reinterpret_cast<uintptr_t>(this);
    makecontext(&context_, reinterpret_cast<void (*)()>(&Fiber::Begin2), 2,
                static_cast<unsigned>(self >> 32), static_cast<unsigned>(self));
#else
    auto** top = reinterpret_cast<void**>(base_ + 4096 + kStack);
    *--top = nullptr;  // keeps the stack aligned at Begin's first instruction
    *--top = reinterpret_cast<void*>(&Fiber::Begin);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    stack_ = top;
#endif
  }

  // Runs the fiber until it suspends or ends.
  void Resume() {
    current() = this;
#ifdef __SANITIZE_THREAD__
    caller_tsan_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(tsan_, __tsan_switch_to_fiber_no_sync);
#endif
#ifdef __SANITIZE_ADDRESS__
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, base_ + 4096, kStack);
#endif
    SwitchTo();
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  }

  // Called on the fiber, with TSan's eyes closed: back to Resume.
  void Suspend() {
#ifdef __SANITIZE_THREAD__
    __tsan_switch_to_fiber(caller_tsan_, __tsan_switch_to_fiber_no_sync);
#endif
#ifdef __SANITIZE_ADDRESS__
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(done_ ? nullptr : &fake, caller_base_,
                                   caller_size_);
#endif
    SwitchBack();
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fake, &caller_base_, &caller_size_);
#endif
  }

  bool done() const { return done_; }

 private:
  static Fiber*& current() {
    thread_local Fiber* fiber = nullptr;
    return fiber;
  }
  static void Begin() {
    Fiber* self = current();
#ifdef __SANITIZE_THREAD__
    if (self->ran_) {  // it ended with closed eyes
      AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
      AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    }
    self->ran_ = true;
#endif
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, &self->caller_base_,
                                    &self->caller_size_);
#endif
    self->entry_(self->argument_);
#ifdef __SANITIZE_THREAD__
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
#endif
    self->done_ = true;
    self->Suspend();
    std::abort();
  }
#ifdef QK_FIBER_UCONTEXT
  static void Begin2(unsigned, unsigned) { Begin(); }
  void SwitchTo() { swapcontext(&caller_, &context_); }
  void SwitchBack() { swapcontext(&context_, &caller_); }
  ucontext_t context_, caller_;
#else
  void SwitchTo() { qk_switch_stack(&caller_, stack_); }
  void SwitchBack() { qk_switch_stack(&stack_, caller_); }
  void* stack_ = nullptr;
  void* caller_ = nullptr;
#endif

  char* base_ = nullptr;
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
  bool done_ = true;
#ifdef __SANITIZE_ADDRESS__
  const void* caller_base_ = nullptr;
  size_t caller_size_ = 0;
#endif
#ifdef __SANITIZE_THREAD__
  bool ran_ = false;
  void* tsan_ = nullptr;
  void* caller_tsan_ = nullptr;
#endif
};

}  // namespace qk::cuda_on_cpu

#endif  // QKSCOPE_TESTS_CUDA_ON_CPU_FIBER_H_
