#include "crash.h"

#include <dlfcn.h>
#include <ucontext.h>

#include "state.h"

namespace emulator {

static const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGINT};
static constexpr int COUNT = sizeof SIGNALS / sizeof *SIGNALS;
static struct sigaction before[COUNT];  // what to do with them outside of kernels
static volatile sig_atomic_t interrupts;

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

[[noreturn]] static void end_launch(Worker* w, const char* kind, void* context, const char* text) {
  // The line is not known here; Python finds it from how far into the library the program was.
  const char* at = program_counter(context);
  Dl_info library;
  w->fault.code = at && dladdr(at, &library) ? at - static_cast<char*>(library.dli_fbase) : 0;
  set_fault(*w->thread, kind, {"", 0}, "%s", text);
  switch_fibre(w->thread->fibre, w->scheduler);  // for good
  __builtin_unreachable();
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

// Python's own handler only takes a note, which it reads when the launch has ended. A launch that
// does not end is told the second time.
static void on_interrupt(int signal, siginfo_t* info, void* context) {
  const struct sigaction& python = before[COUNT - 1];
  if (python.sa_flags & SA_SIGINFO)
    python.sa_sigaction(signal, info, context);
  else if (python.sa_handler != SIG_DFL && python.sa_handler != SIG_IGN)
    python.sa_handler(signal);
  Worker* w = worker;
  if (++interrupts < 2) return;
  if (in_kernel(w))
    end_launch(w, "interrupted", context, "it was still running at the second interrupt");
}

CatchCrashes::CatchCrashes() {
  interrupts = 0;
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
