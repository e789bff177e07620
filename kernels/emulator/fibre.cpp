// The hand-written part of fibre.h.
//
// The switch ends in an ordinary `ret`. The processor predicts that a `ret` goes back to where the
// last `call` was made, and between two lanes that wait in the same line that is so, for this `ret`
// and for those of the functions around it: the other lane's calls were made in the same places.
#include "fibre.h"

#ifndef EMULATOR_UCONTEXT

// Where a new fibre begins: calls the function whose address lies in a preserved register.
extern "C" __attribute__((visibility("hidden"))) void emulator_begin();

#if defined(__x86_64__)

asm(R"(
.text
.hidden emulator_switch
.globl emulator_switch
.type emulator_switch, @function
emulator_switch:
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
.size emulator_switch, .-emulator_switch

.hidden emulator_begin
.globl emulator_begin
.type emulator_begin, @function
emulator_begin:
  callq *%rbx
  ud2
.size emulator_begin, .-emulator_begin
)");

void emulator::Fibre::start(char* stack, size_t bytes, void (*entry)()) {
  // What emulator_switch pops: r15 r14 r13 r12 rbx rbp, and where to go on. The pops end at the
  // stack's top, a multiple of 16, as the call of `entry` wants it.
  void** frame = reinterpret_cast<void**>(stack + bytes) - 7;
  for (int i = 0; i < 6; i++) frame[i] = nullptr;
  frame[4] = reinterpret_cast<void*>(entry);  // rbx
  frame[6] = reinterpret_cast<void*>(emulator_begin);
  stack_pointer = frame;
}

#else  // __aarch64__

// x19-x28, the frame pointer x29, the return address x30, and the lower halves of v8-v15.
asm(R"(
.text
.hidden emulator_switch
.globl emulator_switch
.type emulator_switch, %function
emulator_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size emulator_switch, .-emulator_switch

.hidden emulator_begin
.globl emulator_begin
.type emulator_begin, %function
emulator_begin:
  blr x19
  brk #0
.size emulator_begin, .-emulator_begin
)");

void emulator::Fibre::start(char* stack, size_t bytes, void (*entry)()) {
  void** frame = reinterpret_cast<void**>(stack + bytes - 160);
  for (int i = 0; i < 20; i++) frame[i] = nullptr;
  frame[0] = reinterpret_cast<void*>(entry);            // x19
  frame[11] = reinterpret_cast<void*>(emulator_begin);  // x30
  stack_pointer = frame;
}

#endif

#endif
