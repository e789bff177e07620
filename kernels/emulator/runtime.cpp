// The scheduler: how one OS thread runs the threads of a block, a fibre each.
//
// A fibre runs until its thread has to wait for others: at a barrier or a collective of its warp,
// or at a barrier of its block. Then the next lane of the warp that can run does. When none can,
// the scheduler goes to the next warp; when no warp can go on, all wait at the barrier of the
// block, which opens. What leaves somebody waiting for a thread that does not come is a
// fault, and says who waits where for whom.
#include "state.h"

#include <cstdarg>

namespace emulator {

EMULATOR_TLS Now now;
EMULATOR_TLS Triple thread_index, block_index;
EMULATOR_TLS Worker* worker;
Triple block_size, grid_size;
LaunchState state;

// ---- faults -----------------------------------------------------------------------------------

static const char* name_of(Barrier kind) {
  return kind == Barrier::grid ? "grid_sync" : "__syncthreads";
}

static void set_fault(const Thread& thread, const char* kind, Site site, const char* format,
                      va_list values) {
  Worker& w = *worker;
  if (w.failed) return;  // the first one counts
  w.failed = true;
  w.fault.kind = kind;
  w.fault.site = site;
  w.fault.thread = thread.index;
  w.fault.block = w.block->index;
  vsnprintf(w.fault.text, sizeof w.fault.text, format, values);
  checker::fault(w.fault);
}

void set_fault(const Thread& thread, const char* kind, Site site, const char* format, ...) {
  va_list values;
  va_start(values, format);
  set_fault(thread, kind, site, format, values);
  va_end(values);
}

[[noreturn]] static void leave() {
  switch_fibre(worker->thread->fibre, worker->scheduler);  // for good: nobody resumes it
  __builtin_unreachable();
}

void fail(const char* kind, Site site, const char* format, ...) {
  va_list values;
  va_start(values, format);
  set_fault(*worker->thread, kind, site, format, values);
  va_end(values);
  leave();
}

void set_interrupted(const Thread& thread, Site site, size_t code) {
  const Block& block = *worker->block;
  const Warp& warp = *worker->warp;
  char text[160] = "";
  if (block.arrived)
    snprintf(text, sizeof text, "%d of its block's threads wait at %s in line %d", block.arrived,
             name_of(block.barrier), block.site.line);
  else if (warp.group_count)
    snprintf(text, sizeof text, "%d of its warp's lanes wait at %s in line %d",
             __builtin_popcount(warp.groups[0].arrived), warp.groups[0].name,
             warp.groups[0].site.line);
  worker->fault.code = code;
  set_fault(thread, "interrupted", site, "%s", text);
}

void interrupt(Site site, size_t code) {
  set_interrupted(*worker->thread, site, code);
  leave();
}

void misaligned(const char* what, const void* address, size_t bytes, Site site) {
  size_t past = reinterpret_cast<uintptr_t>(address) % bytes;
  fail("misaligned access", site,
       "%s needs an address that is a multiple of %zu bytes, and got one %zu past it (an array "
       "can be declared with __align__(%zu))", what, bytes, past, bytes);
}

// ---- switching --------------------------------------------------------------------------------

static void become(Worker& w, Thread& thread) {
  w.thread = &thread;
  thread_index = thread.index;
  now.thread = thread.number;
  now.warp = thread.warp;
  now.lane = thread.lane;
  now.stack_low = thread.stack;
  now.stack_high = thread.stack + STACK;
}

static int pick(Worker& w, unsigned lanes) {
  switch (state.order) {
    case Order::forward:
      return __builtin_ctz(lanes);
    case Order::reversed:
      return 31 - __builtin_clz(lanes);
    default: {
      unsigned turn = random_below(w, WARP);
      unsigned turned = lanes >> turn | lanes << (-turn & 31);
      return (__builtin_ctz(turned) + turn) % WARP;
    }
  }
}

// Let another lane run that can, this one too if it can; the scheduler if none can.
static inline __attribute__((always_inline)) void yield(Worker& w, Site site) {
  Thread& self = *w.thread;
  if (interrupted) interrupt(site, 0);
  if (w.warp->ready) {
    Thread& next = w.block->threads[self.warp * WARP + pick(w, w.warp->ready)];
    if (&next == &self) return;
    become(w, next);
    switch_fibre(self.fibre, next.fibre);
  } else {
    now.stack_low = now.stack_high = nullptr;
    switch_fibre(self.fibre, w.scheduler);
  }
}

// ---- meetings of a warp -----------------------------------------------------------------------

// All have come who can: do what they came for, and let them run.
static void complete(Warp& warp, int which) {
  Group group = warp.groups[which];
  unsigned lanes = group.arrived;
  warp.group_count--;
  for (int i = which; i < warp.group_count; i++) warp.groups[i] = warp.groups[i + 1];
  if (group.kind == Meeting::collective_of_all && lanes != 0xffffffffu)
    fail("divergent collective", group.site,
         "%s needs all 32 lanes of the warp, and lane %d does not exist or has left the kernel",
         group.name, __builtin_ctz(~lanes));
  if (group.run) group.run(warp.payloads, lanes);
  if (group.kind == Meeting::barrier)
    checker::warp_barrier(lanes, group.site);
  else
    checker::warp_collective(lanes, group.site);
  warp.ready |= lanes;
}

static bool is_complete(const Warp& warp, const Group& group) {
  return group.kind != Meeting::active_mask &&
         (group.mask & warp.present & ~warp.exited) == group.arrived;
}

// Called for each lane of each collective: all in one function, so that little is handed around.
static inline __attribute__((always_inline)) void wait_in_group(Meeting kind, const char* name,
                                                                Operation run, unsigned mask,
                                                                Site site, void* payload) {
  Worker& w = *worker;
  Warp& warp = *w.warp;
  int lane = w.thread->lane;
  if (!(mask >> lane & 1))
    fail("divergent collective", site,
         "the mask 0x%08x of %s does not name lane %d, which calls it", mask, name, lane);
  int which = 0;
  for (; which < warp.group_count; which++) {
    const Group& other = warp.groups[which];
    // `__syncwarp`s meet wherever they stand, collectives in one place.
    if (other.kind == kind && other.mask == mask && other.run == run &&
        (kind == Meeting::barrier || same(other.site, site)))
      break;
  }
  Group& group = warp.groups[which];
  if (which == warp.group_count) {
    warp.group_count++;
    group.kind = kind, group.name = name, group.run = run;
    group.mask = mask, group.arrived = 0, group.site = site;
  }
  group.arrived |= 1u << lane;
  warp.payloads[lane] = payload;
  warp.ready &= ~(1u << lane);
  if (is_complete(warp, group)) complete(warp, which);
  yield(w, site);
}

void meet(const char* name, Operation run, void* payload, unsigned mask, Site site) {
  wait_in_group(Meeting::collective, name, run, mask, site, payload);
}

void meet_all(const char* name, Operation run, void* payload, Site site) {
  wait_in_group(Meeting::collective_of_all, name, run, 0xffffffffu, site, payload);
}

void warp_barrier(unsigned mask, Site site) {
  wait_in_group(Meeting::barrier, "__syncwarp", nullptr, mask, site, nullptr);
}

static void tell_lanes(void* const* payloads, unsigned lanes) {
  for (int i = 0; i < WARP; i++)
    if (lanes >> i & 1) *static_cast<unsigned*>(payloads[i]) = lanes;
}

// Votes and reductions go by the lanes that are still there, as CUDA has it, but there is no value
// of a lane that is not.
void undefined_shuffle(const char* name, unsigned mask, int source, Site site) {
  const Warp& warp = *worker->warp;
  char why[40] = "has left the kernel", text[200];
  if (!(mask >> source & 1)) snprintf(why, sizeof why, "its mask 0x%08x does not name", mask);
  if (!(warp.present >> source & 1)) snprintf(why, sizeof why, "the block does not have");
  snprintf(text, sizeof text, "it takes by %s the value of lane %d, which %s: what it gets is undefined",
           name, source, why);
  checker::finding("undefined shuffle", site, text);
}

unsigned active_lanes(Site site) {
  unsigned lanes = 0;
  wait_in_group(Meeting::active_mask, "__activemask", tell_lanes, 0xffffffffu, site, &lanes);
  return lanes;
}

// ---- barriers of a block and of the grid ------------------------------------------------------

static void wait_at_barrier(Barrier kind, Site site) {
  Worker& w = *worker;
  Block& block = *w.block;
  if (block.arrived == 0) {
    block.barrier = kind, block.site = site, block.first = w.thread->number;
  } else if (block.barrier != kind || !same(block.site, site)) {
    Triple first = block.threads[block.first].index;
    w.fault.other = block.site;
    fail("divergent barrier", site,
         "it waits at %s while thread (%u, %u, %u) waits at %s%s in line %d", name_of(kind),
         first.x, first.y, first.z, same_line(block.site, site) ? "another " : "", name_of(block.barrier),
         block.site.line);
  }
  block.arrived++;
  w.warp->ready &= ~(1u << w.thread->lane);
  yield(w, site);
}

void block_barrier(Site site) {
  worker->thread->predicate = false;
  wait_at_barrier(Barrier::block, site);
}

int block_barrier_count(bool predicate, Site site) {
  worker->thread->predicate = predicate;
  wait_at_barrier(Barrier::block, site);
  return worker->block->count;
}

void grid_barrier(Site site) {
  if (!state.cooperative)
    fail("divergent barrier", site,
         "grid_sync needs a cooperative launch: in others, blocks may run one after another");
  wait_at_barrier(Barrier::grid, site);
}

void memory_fence(bool whole_grid) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);  // blocks may run on other OS threads
  if (interrupted) interrupt({"", 0}, 0);
  checker::fence(whole_grid);
}

void release_barrier(Block& block) {
  block.count = 0;
  for (Thread& thread : block.threads) block.count += thread.predicate;
  block.arrived = 0;
  block.barrier = Barrier::none;
  for (Warp& warp : block.warps) warp.ready = warp.present;
}

// ---- running ----------------------------------------------------------------------------------

// Where each fibre begins.
static void run_thread() {
  state.kernel->call(state.kernel->function, state.arguments);
  Worker& w = *worker;
  Warp& warp = *w.warp;
  unsigned bit = 1u << w.thread->lane;
  w.block->exited++;
  warp.exited |= bit;
  warp.ready &= ~bit;
  for (int i = 0; i < warp.group_count;)  // others may have waited for this lane
    if (is_complete(warp, warp.groups[i]))
      complete(warp, i);
    else
      i++;
  yield(w, {});
  __builtin_unreachable();
}

void start_block(Block& block, long number) {
  Triple grid = state.launch.grid, size = state.launch.block;
  unsigned long n = number;
  block.number = number;
  block.index = {static_cast<unsigned>(n % grid.x), static_cast<unsigned>(n / grid.x % grid.y),
                 static_cast<unsigned>(n / grid.x / grid.y)};
  unsigned count = size.x * size.y * size.z;
  if (block.threads.size() != count) block.threads.resize(count);
  block.warps.resize((count + WARP - 1) / WARP);
  // Each guard splits a mapping in two, and Linux allows a process some 65,000 of them.
  unsigned long stack_count = state.cooperative ? 1ul * count * grid.x * grid.y * grid.z : count;
  char* stacks = block.stacks.reserve_stacks(count, stack_count <= 16384);
  for (unsigned i = 0; i < count; i++) {
    Thread& thread = block.threads[i];
    thread.number = i, thread.warp = i / WARP, thread.lane = i % WARP;
    thread.index = {i % size.x, i / size.x % size.y, i / size.x / size.y};
    thread.stack = stacks + i * STACK;
    thread.copies.clear();
    // Tops at the same place in each stack would all fall on the same few lines of the cache.
    thread.fibre.start(thread.stack, STACK - i % 16 * 256, run_thread);
  }
  for (unsigned i = 0; i < block.warps.size(); i++) {
    Warp& warp = block.warps[i];
    unsigned lanes = count - i * WARP;
    warp.present = warp.ready = lanes >= WARP ? 0xffffffffu : (1u << lanes) - 1;
    warp.exited = 0;
    warp.group_count = 0;
  }
  block.shared = block.shared_pages.reserve(SHARED);
  block.seen.assign(block.seen.size(), 0);
  block.dynamic_seen = false;
  block.barrier = Barrier::none;
  block.arrived = block.exited = 0;
}

static void stuck(Worker& w) {
  Warp& warp = *w.warp;
  const Group& group = warp.groups[0];
  const unsigned missing = group.mask & warp.present & ~warp.exited & ~group.arrived;
  const int lane = __builtin_ctz(missing);
  // It waits, too: at the barrier of the block, or with another group.
  Site site = w.block->site;
  char where[80];
  snprintf(where, sizeof where, "%s", name_of(w.block->barrier));
  for (int i = 1; i < warp.group_count; i++) {
    const Group& other = warp.groups[i];
    if (!(other.arrived >> lane & 1)) continue;
    site = other.site;
    snprintf(where, sizeof where, "%s%s with mask 0x%08x",
             same_line(site, group.site) ? "another " : "", other.name, other.mask);
  }
  w.fault.other = site;
  int first = static_cast<int>(&warp - w.block->warps.data()) * WARP;
  set_fault(w.block->threads[first + __builtin_ctz(group.arrived)], "divergent collective",
            group.site, "%s with mask 0x%08x waits for lane %d, which waits at %s in line %d",
            group.name, group.mask, lane, where, site.line);
}

// Run the lanes of a warp until each waits at a barrier of the block, or has left.
static void run_warp(Worker& w, Block& block, int number) {
  Warp& warp = block.warps[number];
  w.warp = &warp;
  while (!w.failed) {
    if (warp.ready) {
      Thread& thread = block.threads[number * WARP + pick(w, warp.ready)];
      become(w, thread);
      switch_fibre(w.scheduler, thread.fibre);
      now.stack_low = now.stack_high = nullptr;
    } else if (warp.group_count == 0) {
      return;
    } else {
      int which = 0;  // nobody else comes: those at `__activemask` are the active lanes
      while (which < warp.group_count && warp.groups[which].kind != Meeting::active_mask) which++;
      if (which < warp.group_count)
        complete(warp, which);
      else
        stuck(w);
    }
  }
}

bool run_block(Block& block) {
  Worker& w = *worker;
  w.block = &block;
  block_index = block.index;
  now.block = block.number;
  int count = static_cast<int>(block.threads.size()), warps = static_cast<int>(block.warps.size());
  for (;;) {
    int turn = state.order == Order::shuffled ? random_below(w, warps) : 0;
    for (int i = 0; i < warps && !w.failed; i++) {
      int number = (i + turn) % warps;
      run_warp(w, block, state.order == Order::reversed ? warps - 1 - number : number);
    }
    w.thread = nullptr;
    if (w.failed || block.exited == count) return false;
    if (block.exited) {
      int left = 0;
      while (!(block.warps[left / WARP].exited >> left % WARP & 1)) left++;
      Triple gone = block.threads[left].index;
      set_fault(block.threads[block.first], "divergent barrier", block.site,
                "it waits at %s, which thread (%u, %u, %u) never reaches: it has left the kernel",
                name_of(block.barrier), gone.x, gone.y, gone.z);
      return false;
    }
    if (block.barrier == Barrier::grid) return true;
    checker::block_barrier(block.site);
    release_barrier(block);
  }
}

}  // namespace emulator
