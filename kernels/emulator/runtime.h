// What the runtime offers to the kernel's translation unit (device.h is written on it).
#pragma once
#include "hooks.h"

// Code of the emulator inside the kernel's translation unit: its accesses are not the kernel's.
#define EMULATOR_OWN __attribute__((no_sanitize("thread"), no_sanitize("alignment")))

namespace emulator {

extern EMULATOR_TLS Triple thread_index, block_index;
extern Triple block_size, grid_size;

// ---- barriers ---------------------------------------------------------------------------------

void block_barrier(Site site);
int block_barrier_count(bool predicate, Site site);  // of the threads where it is true
void grid_barrier(Site site);
void memory_fence(bool whole_grid);

// ---- collectives of a warp --------------------------------------------------------------------
// Each lane named in `mask` comes with a payload and waits. When the last one has come, `run` is
// called once with the payloads of all of them (null where a lane is not among `lanes`), works
// out what each lane gets, and writes it into its payload.

using Operation = void (*)(void* const* payloads, unsigned lanes);

void meet(const char* name, Operation run, void* payload, unsigned mask, Site site);
void meet_all(const char* name, Operation run, void* payload, Site site);  // all 32, none gone
void warp_barrier(unsigned mask, Site site);
unsigned active_lanes(Site site);

// Tells the checker that the running lane has asked for the value of a lane that gives none.
void undefined_shuffle(const char* name, unsigned mask, int source, Site site);

// ---- shared memory ----------------------------------------------------------------------------

// A `__shared__` declaration. Its place in a block's shared memory is decided once a launch, when
// the first thread meets it.
struct SharedArray {
  const char* name;
  size_t bytes, alignment;
  Site site;
  unsigned long launch;  // the launch for which the rest holds
  int number;
  size_t offset;
};

void* shared_array(SharedArray& array);            // the running block's copy
void* dynamic_shared(const char* name, size_t alignment, Site site);  // extern __shared__

// ---- accesses on a kernel's behalf ------------------------------------------------------------

[[noreturn]] void misaligned(const char* what, const void* address, size_t bytes, Site site);
void copy_async(void* target, const void* source, size_t bytes, bool inside, Site site);
void copy_commit();
void copy_wait(int groups);  // until at most so many groups of this thread's are on their way

// ---- tensor cores: one warp's payloads, see tensor_core.h -------------------------------------

void run_mma_tf32(void* const* payloads, unsigned lanes);
void run_mma_bf16(void* const* payloads, unsigned lanes);
void run_mma_f16(void* const* payloads, unsigned lanes);

// ---- the kernels of a build -------------------------------------------------------------------

// A parameter: what kind of value, of how many bytes. Pointers say what they point to.
struct Parameter {
  char kind;  // 'i' signed, 'u' unsigned, 'f' floating point, 's' anything else; 'p' pointer
  char element;         // of a pointer: kind of what it points to, 'v' for void
  int bytes;            // of the value
  int element_bytes;    // of a pointer: what it points to, 0 for void
  bool read_only;       // pointer to const
};

struct Kernel {
  const char* name;
  void (*function)();                                  // the kernel, its type forgotten...
  void (*call)(void (*function)(), void* const* arguments);  // ...and remembered here
  const Parameter* parameters;
  int parameter_count;
  int most_threads;  // of a block, from __launch_bounds__; 0 where it says nothing
};

// A `__device__` or `__constant__` variable.
struct Variable {
  const char* name;
  void* address;
  size_t bytes;
  bool constant;
};

}  // namespace emulator
