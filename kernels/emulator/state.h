// The runtime's own state: threads in warps in blocks, and the OS threads that run them.
#pragma once
#include <cstdio>
#include <vector>

#include "fibre.h"
#include "runtime.h"

namespace emulator {

constexpr int WARP = 32;
constexpr size_t STACK = 128 << 10;   // bytes of stack a thread has
constexpr size_t SHARED = 512 << 10;  // bytes of address space a block's shared memory has

// The memory of stacks and shared arrays: address space that costs nothing until it is touched.
class Pages {
 public:
  Pages() = default;
  Pages(const Pages&) = delete;
  ~Pages() { reserve(0); }
  char* reserve(size_t bytes);  // at least so many, zeros or what was there before
  // `count` stacks of STACK bytes each. What overruns a guarded one crashes.
  char* reserve_stacks(size_t count, bool guarded);

 private:
  char* base_ = nullptr;
  size_t bytes_ = 0;
};

// A cp.async on its way.
struct Copy {
  char* target;
  const char* source;
  size_t bytes;
  bool inside;  // else zeros are written
  Site site;
};

// Those of one thread, oldest first, and where its committed groups end.
struct Copies {
  std::vector<Copy> queue;
  std::vector<size_t> groups;  // sizes of the queue at each commit
  size_t landed = 0, waited = 0;  // how many copies, how many groups have been waited for

  void clear() { queue.clear(), groups.clear(), landed = waited = 0; }
};

struct Thread {
  Fibre fibre;
  Triple index;
  int number, warp, lane;  // number = 32 warp + lane
  char* stack;
  bool predicate;  // what it brought to __syncthreads_count
  Copies copies;
};

// Lanes of a warp that wait for each other: at the same collective, in the same place, with the
// same mask.
enum class Meeting { collective, collective_of_all, barrier, active_mask };
struct Group {
  Meeting kind;
  const char* name;
  Operation run;
  unsigned mask, arrived;
  Site site;
};

// Sets of lanes are bit masks. A lane in none of these waits, in a group or at a block barrier.
struct Warp {
  unsigned present;  // the last warp of a block may be short
  unsigned ready;    // may run, or does
  unsigned exited;   // has left the kernel
  Group groups[WARP];
  int group_count;
  void* payloads[WARP];
};

enum class Barrier { none, block, grid };

struct Block {
  Triple index;
  long number;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Pages stacks, shared_pages;
  char* shared;
  std::vector<char> seen;  // which shared arrays this block has met
  bool dynamic_seen;
  // The barrier at which threads wait now, and who came first.
  Barrier barrier;
  Site site;
  int first, arrived, exited;
  int count;  // of __syncthreads_count, from the barrier before
};

enum class Order : int { forward, reversed, shuffled };

// What is the same for all threads of the launch that runs now.
struct LaunchState {
  Launch launch;
  const Kernel* kernel;
  void* const* arguments;
  Order order;
  unsigned seed;
  bool cooperative;
  unsigned long serial;  // counts launches
  // Shared arrays: how many have a place, where the next one goes, how many bytes a GPU would need.
  int array_count;
  size_t array_end, array_bytes;
};
extern LaunchState state;

// An OS thread that runs blocks: what runs on it now.
struct Worker {
  Fibre scheduler;
  Block* block = nullptr;
  Warp* warp = nullptr;
  Thread* thread = nullptr;  // null while the scheduler runs
  uint32_t random = 1;
  bool helper = false;  // it works beside the OS thread that Python called
  bool failed = false;
  Fault fault;
};
extern EMULATOR_TLS Worker* worker;

inline bool same_line(Site a, Site b) {
  return a.line == b.line && (a.file == b.file || __builtin_strcmp(a.file, b.file) == 0);
}
inline bool same(Site a, Site b) { return a.column == b.column && same_line(a, b); }

// A pseudo-random number below `bound`: xorshift, repeatable from the seed.
inline uint32_t random_below(Worker& w, uint32_t bound) {
  w.random ^= w.random << 13, w.random ^= w.random >> 17, w.random ^= w.random << 5;
  return static_cast<uint32_t>((static_cast<uint64_t>(w.random) * bound) >> 32);
}

void set_fault(const Thread& thread, const char* kind, Site site, const char* format, ...)
    __attribute__((format(printf, 4, 5)));
void start_block(Block& block, long number);
bool run_block(Block& block);  // to its end, false; or to a barrier of the grid, true
// Ends the launch as `interrupt` does, from any of its threads.
void set_interrupted(const Thread& thread, Site site, size_t code);
void release_barrier(Block& block);

}  // namespace emulator
