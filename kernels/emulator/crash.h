// What would end the process ends the launch instead: a kernel that reads where there is no
// memory, divides an integer by zero, or overruns its stack.
#pragma once
#include <signal.h>

#include <memory>

namespace emulator {

// While one of these lives, on the OS thread that runs a launch, the processor's exceptions in a
// fibre are faults of its thread.
class CatchCrashes {
 public:
  CatchCrashes();
  ~CatchCrashes();

 private:
  static constexpr int COUNT = 3;
  struct sigaction before_[COUNT];
};

// A signal handler cannot run on a stack that has just overflowed. While one of these lives, those
// of this OS thread have a stack of their own.
class HandlerStack {
 public:
  HandlerStack();
  ~HandlerStack();

 private:
  static constexpr size_t BYTES = 64 << 10;
  std::unique_ptr<char[]> memory_;
  stack_t before_;
};

}  // namespace emulator
