// A function that can be left in the middle and gone on with later, on one thread: code that
// blocks, under a scheduler that decides who goes on. Made of ucontext(3), and known to the address
// and thread sanitizers.
//
//   Fiber fiber([&] { ...; Fiber::Yield(); ...; });
//   while (!fiber.done()) fiber.Resume();
//
// No lock may be held across a Yield(), and none made while an exception is under way.
#pragma once

#include <ucontext.h>

#include <functional>

namespace guildlite::testing {

class Fiber {
 public:
  // Nothing runs before the first Resume().
  explicit Fiber(std::function<void()> body);
  // REQUIRES: done(), or never resumed.
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Runs it until it yields or ends. Not from inside a fiber.
  void Resume();
  bool done() const { return done_; }

  // Back to Resume(). Only from inside a fiber.
  static void Yield();

 private:
  static void Main();
  void LeaveFor(bool for_ever);

  std::function<void()> body_;
  void* stack_;
  ucontext_t context_;
  ucontext_t resumer_;
  bool begun_ = false;
  bool done_ = false;
  // What the sanitizers want to be told.
  void* fake_stack_ = nullptr;
  const void* resumer_stack_ = nullptr;
  size_t resumer_stack_size_ = 0;
  void* thread_of_fiber_ = nullptr;
  void* thread_of_resumer_ = nullptr;
};

}  // namespace guildlite::testing
