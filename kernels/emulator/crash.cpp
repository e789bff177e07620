#include "crash.h"

#include <dlfcn.h>
#include <ucontext.h>

#include "state.h"

namespace emulator {

static const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE};

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

static void on_signal(int signal, siginfo_t* info, void* context) {
  Worker* w = worker;
  if (!w || !w->thread || !now.stack_low) {  // not a kernel's: let it end the process
    struct sigaction standard = {};
    standard.sa_handler = SIG_DFL;
    sigaction(signal, &standard, nullptr);
    return;
  }
  // The line is not known here; Python finds it from how far into the library the program was.
  const char* at = program_counter(context);
  Dl_info library;
  w->fault.code = at && dladdr(at, &library) ? at - static_cast<char*>(library.dli_fbase) : 0;
  Site nowhere{"", 0};
  const char* address = static_cast<const char*>(info->si_addr);
  if (signal == SIGFPE)
    set_fault(*w->thread, "division by zero", nowhere, "it divides an integer by zero");
  else if (address >= now.stack_low && address < now.stack_high)
    set_fault(*w->thread, "stack overflow", nowhere,
              "its local variables and calls take more than %zu KiB", STACK >> 10);
  else
    set_fault(*w->thread, "out of bounds", nowhere,
              "it accesses address %p, where there is no memory", info->si_addr);
  switch_fibre(w->thread->fibre, w->scheduler);  // for good
}

CatchCrashes::CatchCrashes() {
  struct sigaction action = {};
  action.sa_sigaction = on_signal;
  // NODEFER: the handler is left by a switch, not by a return that would let signals in again.
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (int i = 0; i < COUNT; i++) sigaction(SIGNALS[i], &action, &before_[i]);
}

CatchCrashes::~CatchCrashes() {
  for (int i = 0; i < COUNT; i++) sigaction(SIGNALS[i], &before_[i], nullptr);
}

HandlerStack::HandlerStack() : memory_(new char[BYTES]) {
  stack_t stack = {};
  stack.ss_sp = memory_.get();
  stack.ss_size = BYTES;
  sigaltstack(&stack, &before_);
}

HandlerStack::~HandlerStack() { sigaltstack(&before_, nullptr); }

}  // namespace emulator
