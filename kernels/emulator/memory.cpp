// Shared memory and asynchronous copies.
#include <sys/mman.h>

#include <cstring>
#include <mutex>

#include "state.h"

namespace emulator {

constexpr size_t GUARD_PAGE = 16 << 10;  // a multiple of the page of every machine we know

char* Pages::reserve(size_t bytes) {
  if (bytes > bytes_ || bytes == 0) {
    if (base_) munmap(base_, bytes_);
    base_ = nullptr;
    bytes_ = bytes;
    if (bytes == 0) return nullptr;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (pages == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<char*>(pages);
  }
  return base_;
}

char* Pages::reserve_stacks(size_t count, bool guarded) {
  char* before = base_;
  size_t bytes_before = bytes_;
  reserve(count * STACK);
  if (guarded && (base_ != before || bytes_ != bytes_before))
    for (size_t i = 0; i < count; i++) mprotect(base_ + i * STACK, GUARD_PAGE, PROT_NONE);
  return base_;
}

// ---- shared memory ----------------------------------------------------------------------------

constexpr size_t GAP = SHARED_GUARD;
constexpr size_t MOST_STATIC = 48 << 10;    // bytes of `__shared__` arrays that a GPU takes
constexpr size_t MOST_SHARED = 227 << 10;   // and with the dynamic ones (sm_90; 163 KiB on sm_80)
static std::mutex placing;

// An address that is a multiple of `alignment` and, below 128 bytes, of no higher power of two:
// what a declaration does not promise, no access should happen to find.
static size_t aligned(size_t offset, size_t alignment) {
  offset = (offset + GAP - 1) / GAP * GAP;
  return alignment < GAP ? offset + alignment : (offset + alignment - 1) / alignment * alignment;
}

static void place(SharedArray& array) {
  std::unique_lock<std::mutex> lock(placing);
  if (array.launch == state.serial) return;  // another OS thread was quicker
  state.array_bytes += array.bytes;
  const bool fits = state.array_bytes <= MOST_STATIC &&
                    state.array_bytes + state.launch.dynamic_shared <= MOST_SHARED;
  if (!fits) lock.unlock();  // `fail` never comes back to do it
  if (state.array_bytes > MOST_STATIC)
    fail("too much shared memory", array.site,
         "up to %s, the kernel's __shared__ arrays take %zu bytes, and a GPU has %zu; more must be "
         "dynamic (extern __shared__)", array.name, state.array_bytes, MOST_STATIC);
  if (!fits)
    fail("too much shared memory", array.site,
         "%zu bytes of __shared__ arrays and %zu of dynamic shared memory: a GPU has %zu",
         state.array_bytes, state.launch.dynamic_shared, MOST_SHARED);
  array.number = state.array_count++;
  array.offset = aligned(state.array_end + GAP, array.alignment);
  state.array_end = array.offset + array.bytes;
  __atomic_store_n(&array.launch, state.serial, __ATOMIC_RELEASE);
}

// Uninitialised memory is NaN, or -1: a read before the first write should not look like a result.
static void begin_shared(const Region& region) {
  memset(region.base, 0xFF, region.bytes);
  checker::shared_region(region);
}

void* shared_array(SharedArray& array) {
  Block& block = *worker->block;
  if (__atomic_load_n(&array.launch, __ATOMIC_ACQUIRE) != state.serial) place(array);
  size_t number = array.number;
  if (number >= block.seen.size()) block.seen.resize(number + 1, 0);
  char* base = block.shared + array.offset;
  if (!block.seen[number]) {
    block.seen[number] = 1;
    begin_shared({array.name, base, array.bytes, Space::shared, nullptr});
  }
  return base;
}

void* dynamic_shared(const char* name, size_t alignment, Site site) {
  Block& block = *worker->block;
  size_t bytes = state.launch.dynamic_shared;
  char* base = block.shared + aligned(0, alignment > 16 ? alignment : 16);
  if (bytes > MOST_SHARED)
    fail("too much shared memory", site, "%s is launched with %zu bytes: a GPU has %zu", name,
         bytes, MOST_SHARED);
  if (!block.dynamic_seen) {
    block.dynamic_seen = true;
    begin_shared({name, base, bytes, Space::shared, nullptr});
  }
  return base;
}

// ---- asynchronous copies ----------------------------------------------------------------------

static bool is_shared(const void* address) {
  const char* shared = worker->block->shared;
  return address >= shared && address < shared + SHARED;
}

static void move(const Copy& copy) {
  if (copy.inside)
    memcpy(copy.target, copy.source, copy.bytes);
  else
    memset(copy.target, 0, copy.bytes);
}

void copy_async(void* target, const void* source, size_t bytes, bool inside, Site site) {
  if (reinterpret_cast<uintptr_t>(target) % bytes) misaligned("cp.async to", target, bytes, site);
  if (reinterpret_cast<uintptr_t>(source) % bytes) misaligned("cp.async from", source, bytes, site);
  // A copy of nothing but zeros never reads its source, which may then be any address.
  if (!is_shared(target) || (inside && is_shared(source)))
    fail("wrong memory", site, "cp.async copies from global to shared memory only");
  checker::copy_issued(source, inside ? bytes : 0, target, bytes, site);
  Copy copy{static_cast<char*>(target), static_cast<const char*>(source), bytes, inside, site};
  if (!state.launch.copies_late) move(copy);
  worker->thread->copies.queue.push_back(copy);
}

void copy_commit() {
  Copies& copies = worker->thread->copies;
  copies.groups.push_back(copies.queue.size());
}

void copy_wait(int groups) {
  Copies& copies = worker->thread->copies;
  while (copies.groups.size() - copies.waited > static_cast<size_t>(groups)) {
    size_t end = copies.groups[copies.waited++];
    for (; copies.landed < end; copies.landed++) {
      const Copy& copy = copies.queue[copies.landed];
      if (state.launch.copies_late) move(copy);
      checker::copy_waited(copy.source, copy.inside ? copy.bytes : 0, copy.target, copy.bytes,
                           copy.site);
    }
  }
  if (copies.waited == copies.groups.size() && copies.landed == copies.queue.size())
    copies.clear();
}

}  // namespace emulator
