#include "crash.h"

#include <dlfcn.h>
#include <ucontext.h>

#include "state.h"

namespace emulator {

static const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGINT};
static constexpr int COUNT = sizeof SIGNALS / sizeof *SIGNALS;
static struct sigaction before[COUNT];  // what to do with them outside of kernels
volatile sig_atomic_t interrupted;
static volatile sig_atomic_t interrupts;  // how often Ctrl-C was pressed
static int enough;                        // to end the launch: 1, or 2 where Python has its own way

// Where the program was, as the system saved it.
static const char* program_counter(void* context) {
  [[maybe_unused]] auto* saved = static_cast<ucontext_t*>(context);
#if defined(__x86_64__) && defined(__linux__)
  return reinterpret_cast<const char*>(saved->uc_mcontext.gregs[REG_RIP]);
#elif defined(__aarch64__) && defined(__linux__)
  return reinterpret_cast<const char*>(saved->uc_mcontext.pc);
#else
  return nullptr;
#endif
}

static bool in_kernel(const Worker* w) { return w && w->thread && now.stack_low; }

// The line is not known here; Python finds it from how far into the library the program was. 0
// where it was elsewhere.
static size_t place_in_library(void* context) {
  const char* at = program_counter(context);
  Dl_info there, here;
  if (!at || !dladdr(at, &there) || !dladdr(&enough, &here)) return 0;
  return there.dli_fbase == here.dli_fbase ? at - static_cast<char*>(there.dli_fbase) : 0;
}

// Whether the place is in the text of the kernel file. In a library it comes first, then
// fibre.cpp's (build.py links them so); in a checked build each access is a call of the checker.
static bool in_own_code([[maybe_unused]] const char* at) {
#ifdef EMULATOR_UCONTEXT
  return false;
#else
  Dl_info there, here;
  const void* end = reinterpret_cast<const void*>(&emulator_switch);
  return !checker::PRESENT && at < end && dladdr(at, &there) && dladdr(end, &here) &&
         there.dli_fbase == here.dli_fbase;
#endif
}

[[noreturn]] static void leave(Worker* w) {
  switch_fibre(w->thread->fibre, w->scheduler);  // for good
  __builtin_unreachable();
}

[[noreturn]] static void end_launch(Worker* w, const char* kind, void* context, const char* text) {
  w->fault.code = place_in_library(context);
  set_fault(*w->thread, kind, {"", 0}, "%s", text);
  leave(w);
}

static void on_crash(int signal, siginfo_t* info, void* context) {
  Worker* w = worker;
  if (!in_kernel(w)) {  // it happens again, and ends the process
    struct sigaction standard = {};
    standard.sa_handler = SIG_DFL;
    sigaction(signal, &standard, nullptr);
    return;
  }
  const char* address = static_cast<const char*>(info->si_addr);
  if (signal == SIGFPE)
    end_launch(w, "division by zero", context, "it divides an integer by zero");
  char text[100];
  if (address >= now.stack_low && address < now.stack_high) {
    snprintf(text, sizeof text, "its local variables and calls take more than %zu KiB",
             STACK >> 10);
    end_launch(w, "stack overflow", context, text);
  }
  snprintf(text, sizeof text, "it accesses address %p, where there is no memory", info->si_addr);
  end_launch(w, "out of bounds", context, text);
}

// Where Ctrl-C means no more to Python than an exception, it ends the launch, and module.py raises
// that exception. Python's own handler would take a note and raise it when the launch has ended,
// which one that spins never does. What else handles the signal is told, and the second one ends
// the launch.
//
// Only the kernel's own code is left on the spot: in the C library a lock may be held, in the runtime
// and the checker something be half done. These notice the flag a little later; what does not
// come by there is left at one more Ctrl-C.
static void on_interrupt(int signal, siginfo_t* info, void* context) {
  const struct sigaction& python = before[COUNT - 1];
  if (python.sa_handler == SIG_IGN) return;
  Worker* w = worker;
  if (!w || !w->helper) interrupts = interrupts + 1;  // launch.cpp hands it on to helpers
  if (enough > 1) {
    if (python.sa_flags & SA_SIGINFO)
      python.sa_sigaction(signal, info, context);
    else if (python.sa_handler != SIG_DFL)
      python.sa_handler(signal);
  }
  if (interrupts < enough) return;
  interrupted = 1;
  if (!in_kernel(w)) return;
  if (interrupts == enough && !in_own_code(program_counter(context))) return;
  set_interrupted(*w->thread, {"", 0}, place_in_library(context));
  leave(w);
}

CatchCrashes::CatchCrashes(bool python_only_raises) {
  interrupts = interrupted = 0;
  enough = python_only_raises ? 1 : 2;
  for (int i = 0; i < COUNT; i++) {
    struct sigaction action = {};
    action.sa_sigaction = SIGNALS[i] == SIGINT ? on_interrupt : on_crash;
    // NODEFER: the handler is left by a switch, not by a return that would let signals in again.
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(SIGNALS[i], &action, &before[i]);
  }
}

CatchCrashes::~CatchCrashes() {
  for (int i = 0; i < COUNT; i++) sigaction(SIGNALS[i], &before[i], nullptr);
}

HandlerStack::HandlerStack() : memory_(new char[BYTES]) {
  stack_t stack = {};
  stack.ss_sp = memory_.get();
  stack.ss_size = BYTES;
  sigaltstack(&stack, &before_);
}

HandlerStack::~HandlerStack() { sigaltstack(&before_, nullptr); }

}  // namespace emulator
