// What the emulator's runtime and its access checker tell each other.
//
// Three parts make a build: the kernel (device.h and the `.cu` file), the runtime (runtime.cpp)
// and, in a checked build, the checker (checker.cpp). A checked kernel is compiled with
// `-fsanitize=thread`, so that the compiler puts a call `__tsan_readN(address)` or
// `__tsan_writeN(address)` before each of its memory accesses. The checker defines those
// functions. Everything it cannot learn from them it is told through this header: who runs,
// where memory begins and ends, when threads meet, and the accesses that the emulator makes on a
// kernel's behalf (atomics, wrapped vector loads, cp.async, ldmatrix).
//
// Runtime and checker are compiled without instrumentation; what device.h adds to the kernel's
// own translation unit is marked EMULATOR_OWN, which turns the instrumentation off. So every
// `__tsan_` call is the kernel's own. Many are on its stack, or on the emulator's variables
// (`threadIdx` is one): those are neither shared nor global memory, and a checker skips them.
//
// A checked launch runs on one OS thread, one fibre at a time: hooks need no locks.
#pragma once
#include <signal.h>

#include <cstddef>
#include <cstdint>

// In an unchecked build blocks run on several OS threads at once, and each has its own current
// thread. `__thread`, unlike `thread_local`, promises that nothing is constructed at run time.
#ifdef EMULATOR_CHECKED
#define EMULATOR_TLS
#else
#define EMULATOR_TLS __thread
#endif

// In which column of its line a call stands. GCC tells it by what it makes C++20's class of.
#if defined(__clang__)
#define EMULATOR_COLUMN __builtin_COLUMN()
#elif __GNUC__ >= 11
namespace std {
struct source_location {
  struct __impl {
    const char *_M_file_name, *_M_function_name;
    unsigned _M_line, _M_column;
  };
};
}  // namespace std
#define EMULATOR_COLUMN \
  static_cast<int>( \
      static_cast<const std::source_location::__impl*>(__builtin_source_location())->_M_column)
#else
#define EMULATOR_COLUMN 0  // nobody tells
#endif

namespace emulator {

// A place in the kernel's source. `here()` as a default argument is the place of the call. The
// column tells two calls in one line apart; it counts after macros are expanded, so it is for no
// person's eyes.
struct Site {
  const char* file;
  int line, column;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE(),
                             int column = EMULATOR_COLUMN) {
    return {file, line, column};
  }
};

// Three sizes or indices: x runs fastest, so number = (z * Y + y) * X + x.
struct Triple {
  unsigned x, y, z;
};

enum class Space { global, constant, shared };

// Memory that a kernel may touch. The name is the kernel's own: of the parameter, of the
// `__device__`/`__constant__` variable or of the `__shared__` array.
struct Region {
  const char* name;
  char* base;
  size_t bytes;
  Space space;
  // A byte for each byte of the region, 1 where nothing has been written yet: reading it is a
  // finding, writing it clears it. Null where all is initialised; never set for shared memory,
  // which starts uninitialised in any case.
  unsigned char* unwritten;
};

struct Launch {
  const char* kernel;
  Triple grid, block;
  size_t dynamic_shared;  // bytes
  const Region* regions;  // array arguments, `__device__` and `__constant__` variables
  int region_count;
  bool copies_late;       // cp.async lands at its wait, not where it is issued
};

// In a checked launch at least this many bytes that belong to no region, but can be read and
// written without harm, lie before and after each global array: an overrun is seen, the launch goes
// on, and the array beyond keeps its values. (Between shared arrays it is 128 bytes.)
constexpr size_t GLOBAL_GUARD = 64 << 10, SHARED_GUARD = 128;

// Who runs now. Valid while a fibre runs, and while the runtime makes an access or an event on
// its behalf; between fibres `stack_low` is null, and accesses are not a kernel's.
struct Now {
  int thread;              // number in its block; warp = thread / 32, lane = thread % 32
  int warp, lane;
  long block;              // number in the grid
  const char* stack_low;   // the fibre's own stack, from low...
  const char* stack_high;  // ...up to, not including, high
};
extern EMULATOR_TLS Now now;

enum class Access {
  read,       // an ordinary read, in one piece: a vector load, a row of ldmatrix
  write,      // an ordinary write, in one piece: a vector store
  atomic      // read-modify-write
};

// A fault ends the launch: a divergent barrier, a misaligned vector, too much shared memory.
struct Fault {
  const char* kind;  // "divergent barrier", "divergent collective", "misaligned access", ...
  Site site, other;  // where; and where those wait that it waits for, if they do
  Triple thread, block;
  char text[400];  // a sentence for a person, without place and thread
  size_t code;     // where `site` is unknown: the place in the library's code, else 0
};

// Ends the launch from inside a kernel, with a fault at the running thread. `format` is as in
// printf. The checker may call it; what lets the kernel go on is a finding, which it keeps itself.
[[noreturn]] void fail(const char* kind, Site site, const char* format, ...)
    __attribute__((format(printf, 3, 4)));

// Set by Ctrl-C: whoever runs ends the launch with `interrupt`, where that is safe. Its place is a
// site or, as in Fault, one in the library's code.
extern volatile sig_atomic_t interrupted;
[[noreturn]] void interrupt(Site site, size_t code);

}  // namespace emulator

// ---- what the checker defines --------------------------------------------------------------

#ifdef EMULATOR_CHECKED
namespace checker {

// A launch: its regions are known from here on. `end` also follows a fault.
void launch_begin(const emulator::Launch& launch);
void launch_end();

// A block starts: its shared memory is uninitialised (filled with 0xFF) and holds no regions yet.
void block_begin();
void block_end();

// A `__shared__` array met for the first time in this block. `extern __shared__` is one region of
// `dynamic_shared` bytes. At least 128 bytes that belong to no region separate two arrays, so an
// overrun is seen. Bank = (address - base) / 4 % 32. Blocks of a cooperative launch have theirs
// at other addresses; a block that has ended gives its memory to the next.
void shared_region(const emulator::Region& region);

// All threads of the current block have met at `__syncthreads()`: what they did before happened
// before what they do after. Called once a barrier, while none of them runs (`now.block` is valid).
void block_barrier(emulator::Site site);

// All threads of the grid have met at `grid_sync()`.
void grid_barrier(emulator::Site site);

// `lanes` of the current warp have met at `__syncwarp()`, which orders their memory accesses.
void warp_barrier(unsigned lanes, emulator::Site site);

// `lanes` of the current warp have met at a shuffle, vote, ldmatrix or mma, which order nothing.
void warp_collective(unsigned lanes, emulator::Site site);

// `now` is about to stand for another block (cooperative launches run their blocks in turn).
void block_switch();

// The running thread accesses memory through the emulator. Alignment has been checked.
void access(const void* address, size_t bytes, emulator::Access kind, emulator::Site site);

// The running thread issues a cp.async: `read` bytes of `source` (0 where it is predicated off)
// and zeros up to `bytes` go to `target`.
void copy_issued(const void* source, size_t read, void* target, size_t bytes, emulator::Site site);

// The running thread has waited for this copy, at `cp_async_wait`; the arguments are those of its
// issue. Told there whether the bytes moved when the copy was issued or move now: until its wait
// nobody may touch the target nor change the source, in either mode.
void copy_waited(const void* source, size_t read, void* target, size_t bytes, emulator::Site site);

// `__threadfence()`, `__threadfence_block()`.
void fence(bool whole_grid);

// The launch ends with this fault.
void fault(const emulator::Fault& fault);

// The launch goes on, though the running thread has done this; `text` as in Fault.
void finding(const char* kind, emulator::Site site, const char* text);

constexpr bool PRESENT = true;

}  // namespace checker
#else
// An unchecked build: the hooks cost nothing.
namespace checker {
constexpr bool PRESENT = false;
inline void finding(const char*, emulator::Site, const char*) {}
inline void launch_begin(const emulator::Launch&) {}
inline void launch_end() {}
inline void block_begin() {}
inline void block_end() {}
inline void shared_region(const emulator::Region&) {}
inline void block_barrier(emulator::Site) {}
inline void grid_barrier(emulator::Site) {}
inline void warp_barrier(unsigned, emulator::Site) {}
inline void warp_collective(unsigned, emulator::Site) {}
inline void block_switch() {}
inline void access(const void*, size_t, emulator::Access, emulator::Site) {}
inline void copy_issued(const void*, size_t, void*, size_t, emulator::Site) {}
inline void copy_waited(const void*, size_t, void*, size_t, emulator::Site) {}
inline void fence(bool) {}
inline void fault(const emulator::Fault&) {}
}  // namespace checker
#endif
