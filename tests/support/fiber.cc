#include "tests/support/fiber.h"

#include <sys/mman.h>

#include <cassert>
#include <utility>
#include <vector>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GUILDLITE_FIBER_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define GUILDLITE_FIBER_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define GUILDLITE_FIBER_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define GUILDLITE_FIBER_TSAN 1
#endif

#ifdef GUILDLITE_FIBER_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef GUILDLITE_FIBER_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace guildlite::testing {
namespace {

constexpr size_t kStackBytes = 1 << 20;  // of address space; what is never touched costs nothing

thread_local Fiber* running = nullptr;

// Mapping a stack costs more than most fibers do.
class Stacks {
 public:
  ~Stacks() {
    for (void* stack : free_) munmap(stack, kStackBytes);
  }
  void* Take() {
    if (!free_.empty()) {
      void* stack = free_.back();
      free_.pop_back();
      return stack;
    }
    void* stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert(stack != MAP_FAILED);
    return stack;
  }
  void Give(void* stack) { free_.push_back(stack); }

 private:
  std::vector<void*> free_;
};
thread_local Stacks stacks;

}  // namespace

Fiber::Fiber(std::function<void()> body) : body_(std::move(body)), stack_(stacks.Take()) {
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_;
  context_.uc_stack.ss_size = kStackBytes;
  context_.uc_link = nullptr;
  makecontext(&context_, &Fiber::Main, 0);
#ifdef GUILDLITE_FIBER_TSAN
  thread_of_fiber_ = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
  assert(done_ || !begun_);
#ifdef GUILDLITE_FIBER_TSAN
  __tsan_destroy_fiber(thread_of_fiber_);
#endif
  stacks.Give(stack_);
}

void Fiber::Resume() {
  assert(!done_ && running == nullptr);
  begun_ = true;
  running = this;
#ifdef GUILDLITE_FIBER_TSAN
  thread_of_resumer_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(thread_of_fiber_, 0);
#endif
#ifdef GUILDLITE_FIBER_ASAN
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, stack_, kStackBytes);
#endif
  swapcontext(&resumer_, &context_);
#ifdef GUILDLITE_FIBER_ASAN
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
  running = nullptr;
}

void Fiber::LeaveFor([[maybe_unused]] bool for_ever) {
#ifdef GUILDLITE_FIBER_TSAN
  __tsan_switch_to_fiber(thread_of_resumer_, 0);
#endif
#ifdef GUILDLITE_FIBER_ASAN
  __sanitizer_start_switch_fiber(for_ever ? nullptr : &fake_stack_, resumer_stack_,
                                 resumer_stack_size_);
#endif
  swapcontext(&context_, &resumer_);
#ifdef GUILDLITE_FIBER_ASAN
  __sanitizer_finish_switch_fiber(fake_stack_, &resumer_stack_, &resumer_stack_size_);
#endif
}

void Fiber::Yield() {
  assert(running != nullptr);
  running->LeaveFor(false);
}

void Fiber::Main() {
  Fiber* const self = running;
#ifdef GUILDLITE_FIBER_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &self->resumer_stack_, &self->resumer_stack_size_);
#endif
  self->body_();
  self->done_ = true;
  self->LeaveFor(true);
}

}  // namespace guildlite::testing
