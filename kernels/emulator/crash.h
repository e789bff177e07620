// What would end the process ends the launch instead: a kernel that reads where there is no
// memory, divides an integer by zero, or overruns its stack. So does Ctrl-C, for a kernel that
// never ends (say, a thread that spins until another one, whose turn never comes, writes).
#pragma once
#include <signal.h>

#include <memory>

namespace emulator {

// While one of these lives, the processor's exceptions in a fibre are faults of its thread. There
// is one at a time in a process, since module.py sees to it that there is one launch.
class CatchCrashes {
 public:
  // Does Python do nothing at Ctrl-C but raise KeyboardInterrupt?
  explicit CatchCrashes(bool python_only_raises);
  ~CatchCrashes();
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
