// The access checker of a checked build: sees each memory access of a kernel and finds races,
// accesses out of bounds, reads of what nobody wrote and asynchronous copies not waited for.
//
// g++'s `-fsanitize=thread` puts a call before each access; the functions it calls are at the end
// of this file, instead of its own run-time library. What becomes of an access is in touch.h.
#include <cstdint>
#include <cstring>

#include "counts.h"
#include "hooks.h"
#include "runtime.h"
#include "touch.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace checker {
namespace {

Counts counts;
emulator::Triple grid_size, block_size;
bool stopping;  // the checker itself ends the launch: it has told why

// ---- where an access falls ----------------------------------------------------------------------

[[noreturn]] void stop(const char* kind) {
  stopping = true;
  emulator::fail(kind, {nullptr, 0}, "%s", "told by the checker");
}

// Out of bounds. The launch can go on where the access does no harm: in the guard of an array.
void out_of_bounds(Touch& touch) {
  touch.array = arrays.near(touch.address, touch.bytes);
  touch.tell("out of bounds");
  if (touch.array && touch.array->space != emulator::Space::constant) return;
  stop("out of bounds");
}

// Is it an array's memory, and worth a look? Tells of it where it is nobody's.
bool located(Touch& touch) {
  const emulator::Now& now = emulator::now;
  const char* at = touch.address;
  if (!now.stack_low || (at >= now.stack_low && at < now.stack_high)) return false;
  touch.array = arrays.find(at, touch.bytes, touch.place);
  if (!touch.array) {
    if (at >= &__ehdr_start && at < &_end) return false;  // tables; `threadIdx` and its kin
    out_of_bounds(touch);
    return false;
  }
  if (touch.array->space == emulator::Space::constant) {
    if (touch.use & WRITE) touch.tell("write to constant memory");
    return false;
  }
  history.enter();
  return true;
}

void count(const Touch& touch, bool write) {
  uint64_t address = reinterpret_cast<uintptr_t>(touch.address);
  if (touch.array->shared())  // banks count from the array's start; two arrays share no word
    address = static_cast<uint64_t>(touch.address - touch.array->low) |
              static_cast<uint64_t>(touch.array->number & 0xff) << 24;
  counts.add(touch.place, touch.array->shared(), write, emulator::now.warp,
             static_cast<unsigned>(emulator::now.lane), address, static_cast<int>(touch.bytes));
}

// Most reads are like this: other lanes of the warp have just read these words, which were written,
// if at all, before an earlier barrier. They have been compared with that write, in this
// lane's stead, and one more bit says that it reads too.
inline bool join_readers(const char* address, size_t bytes, Place place) {
  const Array* array = arrays.recent(place);
  if (!array || address < array->low || address + bytes > array->high) return false;
  if ((reinterpret_cast<uintptr_t>(address) | bytes) & 3 || counts.on) return false;
  if (!emulator::now.stack_low) return false;
  history.enter();
  const Moment& me = history.me;
  Cell* cell = array->cell(address);
  for (Cell* end = cell + bytes / 4; cell < end; cell++) {
    if (cell->read_epoch != me.epoch || (cell->readers.bits & Readers::TIME) != me.readers ||
        cell->write_epoch == me.epoch)
      return false;
    cell->read_lanes |= 1u << me.lane;
  }
  return true;
}

[[noreturn]] void interrupt(Place place) {
  if (findings.places.is_site(place)) emulator::interrupt(findings.places.site(place), 0);
  emulator::interrupt({"", 0}, place - 1);
}

inline void touch(const void* address, size_t bytes, int32_t use, Place place) {
  if (emulator::interrupted && emulator::now.stack_low) interrupt(place);
  if (use == READ && join_readers(static_cast<const char*>(address), bytes, place)) return;
  Touch touch{static_cast<const char*>(address), bytes, use, place, nullptr};
  if (!located(touch)) return;
  if (counts.on && !(use & STRONG)) count(touch, use & WRITE);
  if (use & STRONG) history.atomic(address);
  touch.visit_all();
}

// An access that the compiler made: g++ assumes it aligned to its size, as a GPU demands.
inline void instrumented(const void* address, size_t bytes, int32_t use, const void* pc) {
  const Place place = Places::of(pc);
  if (reinterpret_cast<uintptr_t>(address) % bytes) {
    Touch touch{static_cast<const char*>(address), bytes, use, place, nullptr};
    if (!located(touch)) return;
    touch.tell("misaligned access");
    stop("misaligned access");  // the processor might not survive it
  }
  touch(address, bytes, use, place);
}

// A volatile access to global memory is as strong as an atomic (PTX: a relaxed one, of system
// scope). In shared memory it stood for a missing `__syncwarp()` once; it does so no longer.
inline void volatile_access(const void* address, size_t bytes, int32_t use, const void* pc) {
  Array* array = arrays.find(static_cast<const char*>(address), bytes, Places::of(pc));
  instrumented(address, bytes, array && !array->shared() ? use | STRONG : use, pc);
}

}  // namespace

// ---- hooks: see hooks.h -----------------------------------------------------------------------

void launch_begin(const emulator::Launch& launch) {
  stopping = false;
  grid_size = launch.grid, block_size = launch.block;
  arrays.clear();
  history.begin(static_cast<int>(block_size.x * block_size.y * block_size.z));
  for (int i = 0; i < launch.region_count; i++) arrays.add(launch.regions[i], -1);
}

void launch_end() {
  counts.flush();
  arrays.clear();
}

void block_begin() { history.begin_block(emulator::now.block); }

void block_end() {
  counts.flush();
  arrays.remove_shared(emulator::now.block);
  history.end_block(emulator::now.block);
}

void shared_region(const emulator::Region& region) { arrays.add(region, emulator::now.block); }

void block_barrier(emulator::Site) {
  counts.flush();
  history.block_barrier();
}

void grid_barrier(emulator::Site) {
  counts.flush();
  history.grid_barrier();
}

void warp_barrier(unsigned lanes, emulator::Site) {
  counts.flush();
  history.warp_barrier(emulator::now.warp, lanes);
}

void warp_collective(unsigned, emulator::Site) { counts.flush(); }

void block_switch() { counts.flush(); }

void access(const void* address, size_t bytes, emulator::Access kind, emulator::Site site) {
  static constexpr int32_t USES[] = {READ, WRITE, WRITE | STRONG};
  touch(address, bytes, USES[static_cast<int>(kind)], findings.places.of(site));
}

// ---- asynchronous copies ------------------------------------------------------------------------
// The target is in flight from the issue to the wait; then it counts as written by the thread that
// waited. What its source last had written to it is kept in the target's cell meanwhile.

void copy_issued(const void* source, size_t read, void* target, size_t bytes,
                 emulator::Site site) {
  const Place place = findings.places.of(site);
  Touch from{static_cast<const char*>(source), read, READ, place, nullptr};
  Touch to{static_cast<const char*>(target), bytes, WRITE, place, nullptr};
  const bool has_source = read && located(from);
  if (has_source) {
    if (counts.on) count(from, false);
    from.visit_all();
  }
  if (!located(to)) return;
  if (!to.array->shared()) to.tell("copy target is not shared memory");
  if (counts.on) count(to, true);
  to.visit_all();
  Cell* cell = to.array->cell(to.address);
  for (size_t done = 0; done < bytes; done += 4, cell++) {
    if (cell->split) *cell = to.array->split(*cell)[0];
    cell->readers.bits = Readers::IN_FLIGHT;
    if (!has_source || done >= read) continue;
    const Cell& its = *from.array->cell(from.address + done);
    cell->read_epoch = its.write_epoch;
    cell->read_lanes = its.write_time();
    cell->read_place = its.write_place;
  }
}

void copy_waited(const void* source, size_t read, void* target, size_t bytes,
                 emulator::Site site) {
  const Place place = findings.places.of(site);
  history.enter();
  Touch from{static_cast<const char*>(source), read, READ, place, nullptr};
  Touch to{static_cast<const char*>(target), bytes, WRITE, place, nullptr};
  from.array = read ? arrays.find(from.address, read, place) : nullptr;
  to.array = arrays.find(to.address, bytes, place);  // else told when it was issued
  if (!to.array) return;
  Cell* cell = to.array->cell(to.address);
  for (size_t done = 0; done < bytes; done += 4, cell++) {
    if (!cell->readers.in_flight()) continue;  // issued twice
    if (from.array && done < read) {
      const Cell& its = *from.array->cell(from.address + done);
      if (its.write_epoch != cell->read_epoch || its.write_place != cell->read_place ||
          its.write_time() != cell->read_lanes)
        from.tell_writer("source changed during copy", its);
    }
    to.forget_readers(*cell);
    to.record_write(*cell);
  }
  if (from.array && !from.told) from.visit_all();  // it may have been read as late as now
}

void fence(bool whole_grid) {
  if (whole_grid) history.fence();
}

// A finding in the runtime's own words.
static Finding* tell(const char* kind, emulator::Site site, emulator::Site other,
                     const char* text) {
  Places& places = findings.places;
  Finding* finding = findings.add(kind, places.of(site), other.file ? places.of(other) : 0);
  if (!finding) return nullptr;
  strncpy(finding->text, text, sizeof finding->text - 1);
  trace(*finding);
  return finding;
}

static int64_t number(emulator::Triple index, emulator::Triple size) {
  return (static_cast<int64_t>(index.z) * size.y + index.y) * size.x + index.x;
}

void fault(const emulator::Fault& fault) {
  if (stopping || !strcmp(fault.kind, "interrupted")) return;  // the checker has told why; no fault
  Finding* finding = tell(fault.kind, fault.site, fault.other, fault.text);
  if (!finding) return;
  finding->here.thread = number(fault.thread, block_size);
  finding->here.block = number(fault.block, grid_size);
}

void finding(const char* kind, emulator::Site site, const char* text) {
  Finding* finding = tell(kind, site, {}, text);
  if (!finding) return;
  finding->here.thread = emulator::now.thread;
  finding->here.block = emulator::now.block;
}

// ---- what Python calls ------------------------------------------------------------------------

EXPORT void checker_options(int count_lines, int most_findings) {
  counts.on = count_lines;
  findings.most = static_cast<size_t>(most_findings);
}
EXPORT int checker_finding_count() { return static_cast<int>(findings.all.size()); }
EXPORT void checker_take_findings(Finding* out) {
  std::copy(findings.all.begin(), findings.all.end(), out);
  findings.clear();
}

struct LineOut {  // LineCount with its place spelt out
  const char* file;
  uint64_t address;
  int64_t line, shared, write, bytes, requests, moved, fewest;
};
std::vector<LineCount> taken;

EXPORT int checker_line_count() {
  taken = counts.take();
  return static_cast<int>(taken.size());
}
EXPORT void checker_take_lines(LineOut* out) {
  for (const LineCount& line : taken) {
    emulator::Site site{nullptr, 0};
    const bool is_site = findings.places.is_site(line.place);
    if (is_site) site = findings.places.site(line.place);
    *out++ = {site.file, is_site ? 0 : line.place, site.line, line.shared, line.write,
              line.bytes, line.requests, line.moved, line.fewest};
  }
}

}  // namespace checker

// ---- what the compiler calls before each access of the kernel -----------------------------------

#define PC __builtin_return_address(0)
#define ACCESSES(n)                                                                             \
  EXPORT void __tsan_read##n(void* a) { checker::instrumented(a, n, checker::READ, PC); }       \
  EXPORT void __tsan_write##n(void* a) { checker::instrumented(a, n, checker::WRITE, PC); }     \
  EXPORT void __tsan_volatile_read##n(void* a) {                                                \
    checker::volatile_access(a, n, checker::READ, PC);                                          \
  }                                                                                             \
  EXPORT void __tsan_volatile_write##n(void* a) {                                               \
    checker::volatile_access(a, n, checker::WRITE, PC);                                         \
  }                                                                                             \
  EXPORT void __tsan_unaligned_read##n(void* a) {                                               \
    checker::touch(a, n, checker::READ, checker::Places::of(PC));                               \
  }                                                                                             \
  EXPORT void __tsan_unaligned_write##n(void* a) {                                              \
    checker::touch(a, n, checker::WRITE, checker::Places::of(PC));                              \
  }
ACCESSES(1) ACCESSES(2) ACCESSES(4) ACCESSES(8) ACCESSES(16)
EXPORT void __tsan_read_range(void* a, unsigned long n) {
  checker::touch(a, n, checker::READ, checker::Places::of(PC));
}
EXPORT void __tsan_write_range(void* a, unsigned long n) {
  checker::touch(a, n, checker::WRITE, checker::Places::of(PC));
}
// A guard of a function's `static`: only one OS thread runs kernels here.
EXPORT unsigned char __tsan_atomic8_load(const volatile unsigned char* guard, int) {
  return *guard;
}
EXPORT void __tsan_init() {}
EXPORT void __tsan_vptr_update(void**, void*) {}
EXPORT void __tsan_vptr_read(void**) {}

// ---- what `-fsanitize=alignment` calls where a pointer is not aligned as its type demands ---------

struct MisalignedType {
  uint16_t kind, info;
  char name[1];  // in quotes; goes on behind the struct
};
struct Misaligned {
  const char* file;
  uint32_t line, column;
  const MisalignedType* type;
  unsigned char log_alignment, access;
};
EXPORT void __ubsan_handle_type_mismatch_v1(Misaligned* where, void* address) {
  const emulator::Site site{where->file, static_cast<int>(where->line)};
  std::string name = where->type->name;  // such as 'const struct float4', quotes and all
  name = name.substr(name.find_last_of(" '", name.size() - 2) + 1);
  if (!name.empty() && name.back() == '\'') name.pop_back();
  emulator::misaligned(name.c_str(), address, size_t{1} << where->log_alignment, site);
}
