// Fibres: threads that take turns because they say so.
//
// A fibre is a stack and the registers that a function call must preserve. To switch, push those
// registers on the running fibre's stack, remember its stack pointer, take up the other's, and pop.
// That is a dozen instructions, where a switch between the operating system's threads takes
// thousands. Hand-written for x86-64 and aarch64; elsewhere, or with EMULATOR_UCONTEXT defined,
// the C library's `ucontext`, whose switch makes a system call.
#pragma once
#include <cstddef>
#include <cstdint>

#if !defined(EMULATOR_UCONTEXT) && !(defined(__x86_64__) || defined(__aarch64__))
#define EMULATOR_UCONTEXT
#endif
#ifdef EMULATOR_UCONTEXT
#include <ucontext.h>
#endif

namespace emulator {

// A fibre never moves to another OS thread, so the compiler may keep the address of a thread-local
// variable across a switch.
struct Fibre {
#ifdef EMULATOR_UCONTEXT
  ucontext_t context;

  void start(char* stack, size_t bytes, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = bytes;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
  }
#else
  void* stack_pointer;

  // Let the first switch to this fibre call `entry`, which must not return.
  void start(char* stack, size_t bytes, void (*entry)());
#endif
};

}  // namespace emulator

#ifndef EMULATOR_UCONTEXT
// Push what a call preserves, save the stack pointer to *save, take up `load`, and pop.
extern "C" __attribute__((visibility("hidden"))) void emulator_switch(void** save, void* load);
#endif

namespace emulator {

// Stop here, in the fibre `from`, and go on where `to` stopped.
inline void switch_fibre(Fibre& from, Fibre& to) {
#ifdef EMULATOR_UCONTEXT
  swapcontext(&from.context, &to.context);
#else
  emulator_switch(&from.stack_pointer, to.stack_pointer);
#endif
}

}  // namespace emulator
