// One access of a kernel: what it is compared with, what is told, and what it leaves behind.
//
// The rules about races follow FastTrack (Flanagan and Freund, PLDI 2009), with CUDA's kinds of
// order in place of vector clocks: shadow.h and history.h.
#pragma once
#include <cstring>

#include "arrays.h"
#include "findings.h"
#include "history.h"
#include "hooks.h"
#include "shadow.h"

namespace checker {
namespace {

// What the checker knows of the launch that runs.
Arrays arrays;
History history;
Findings findings;

// ---- who called -------------------------------------------------------------------------------

// The running thread's calls, by the chain of frames on its stack: innermost first, the checker's
// own among them.
void trace(Finding& finding) {
  struct Frame {
    const Frame* caller;
    const char* return_address;
  };
  const auto* frame = static_cast<const Frame*>(__builtin_frame_address(0));
  for (uint64_t& address : finding.callers) {
    const char* at = reinterpret_cast<const char*>(frame);
    if (at < emulator::now.stack_low || at + sizeof(Frame) > emulator::now.stack_high) return;
    address = static_cast<uint64_t>(frame->return_address - &__ehdr_start);
    frame = frame->caller;
  }
}

// ---- one access -----------------------------------------------------------------------------

struct Touch {
  const char* address;
  size_t bytes;
  int32_t use;  // READ, WRITE, STRONG
  Place place;
  Array* array;
  bool told = false;  // one access has at most one finding

  Finding* tell(const char* kind, Place other = 0) {
    if (told) return nullptr;
    told = true;
    Finding* finding = findings.add(kind, place, other);
    if (!finding) return nullptr;
    finding->here.thread = emulator::now.thread;
    finding->here.block = emulator::now.block;
    finding->here.use = use;
    trace(*finding);
    finding->bytes = static_cast<int32_t>(bytes);
    if (array) {
      strncpy(finding->array, array->name.c_str(), sizeof finding->array - 1);
      finding->space = static_cast<int32_t>(array->space);
      finding->offset = address - array->low;
      finding->size = array->high - array->low;
    }
    return finding;
  }

  // ---- races

  void tell_writer(const char* kind, const Cell& cell) {
    Finding* finding = tell(kind, cell.write_place);
    if (!finding) return;
    finding->other.use = WRITE | (cell.write_strong ? STRONG : 0);
    finding->other.thread = cell.write_thread;
    finding->other.block = history.owner(cell.write_epoch);
  }

  void tell_reader(const Cell& cell, uint32_t epoch, int64_t thread, int64_t warp) {
    Finding* finding = tell("race", cell.read_place);
    if (!finding) return;
    finding->other.use = READ | (cell.readers.strong() ? STRONG : 0);
    finding->other.thread = thread;
    finding->other.warp = warp;
    finding->other.block = history.owner(epoch);
  }

  // Tells of the first reader that this write is not ordered after.
  void compare_readers(const Cell& cell) {
    if (cell.read_epoch) {
      const Readers readers = cell.readers;
      const bool same_epoch = cell.read_epoch == history.me.epoch;
      if (same_epoch && readers.several_warps() && readers.warp() == history.me.warp)
        return tell_reader(cell, cell.read_epoch, -1, readers.other_warp());
      for (uint32_t lanes = cell.read_lanes; lanes; lanes &= lanes - 1) {
        unsigned thread = readers.warp() * LANES + static_cast<unsigned>(__builtin_ctz(lanes));
        if (!history.before(cell.read_epoch, thread, readers.stamp()))
          return tell_reader(cell, cell.read_epoch, thread, -1);
        if (!same_epoch) break;  // then one lane is as good as another
      }
    }
    if (cell.foreign_epoch && !history.block_before(cell.foreign_epoch))
      tell_reader(cell, cell.foreign_epoch, -1, -1);
  }

  void compare_writer(const Cell& cell) {
    if (use & STRONG && cell.write_strong) return;
    if (!history.before(cell.write_epoch, cell.write_thread, cell.write_stamp))
      tell_writer("race", cell);
  }

  void forget_readers(Cell& cell) {
    cell.read_epoch = cell.foreign_epoch = 0;
    cell.readers = {0};
    cell.readers.set_strong(use & STRONG);
  }

  // Of the readers kept, those that this read is ordered after are of no more interest: a write
  // ordered after this read is ordered after them.
  void record_read(Cell& cell) {
    const Moment& me = history.me;
    Readers& readers = cell.readers;
    if (!cell.read_epoch) readers.set_strong(use & STRONG);
    if (use & STRONG && !readers.strong()) return;  // plain readers go before: they race with more
    if (!(use & STRONG) && readers.strong()) forget_readers(cell);
    if (cell.read_epoch == me.epoch && readers.warp() == me.warp) {
      if (readers.stamp() != me.stamp && all_before(cell)) cell.read_lanes = 0;
      cell.read_lanes |= 1u << me.lane;
    } else {
      if (cell.read_epoch == me.epoch) {
        readers.set_other_warp(readers.warp());
      } else {
        readers.set_one_warp();
        if (cell.read_epoch && !history.is_mine(cell.read_epoch))
          cell.foreign_epoch = cell.read_epoch;
      }
      cell.read_epoch = me.epoch;
      cell.read_lanes = 1u << me.lane;
    }
    readers.set_time(me.warp, me.stamp);
    cell.read_place = place;
  }

  static bool all_before(const Cell& cell) {
    for (uint32_t lanes = cell.read_lanes; lanes; lanes &= lanes - 1) {
      unsigned thread = cell.readers.warp() * LANES + static_cast<unsigned>(__builtin_ctz(lanes));
      if (!history.before(cell.read_epoch, thread, cell.readers.stamp())) return false;
    }
    return true;
  }

  void record_write(Cell& cell) {
    const bool strong = use & STRONG;
    if (!(strong && cell.readers.strong())) forget_readers(cell);
    if (strong) record_read(cell);  // a plain write has to be ordered after each of the atomics
    cell.write_epoch = history.me.epoch;
    cell.write_thread = history.me.thread;
    cell.write_stamp = history.me.stamp;
    cell.write_strong = strong;
    cell.write_place = place;
  }

  // ---- the cells that it covers

  // The bytes [from, to) of one cell.
  void visit(Cell& cell, const char* from, const char* to) {
    if (cell.readers.in_flight()) return tell_writer("copy not waited for", cell);
    if (cell.write_epoch)
      compare_writer(cell);
    else if (!(use & WRITE) && array->never_written(cell, from, to))
      tell("uninitialised read");
    if (use & WRITE) {
      if (!(use & STRONG && cell.readers.strong())) compare_readers(cell);
      record_write(cell);
    } else {
      record_read(cell);
    }
  }

  void visit_all() {
    const char* at = address;
    const char* end = address + bytes;
    Cell* cell = array->cell(at);
    if (((reinterpret_cast<uintptr_t>(at) | bytes) & 3) == 0) {
      for (; at < end; at += 4, cell++) visit_word(*cell, at, at + 4);
      return;
    }
    for (; at < end; cell++) {
      const char* next = at - reinterpret_cast<uintptr_t>(at) % 4 + 4;
      if (next > end) next = end;
      visit_bytes(*cell, at, next);
      at = next;
    }
  }

  void visit_word(Cell& cell, const char* from, const char* to) {
    if (cell.split)
      visit_bytes(cell, from, to);
    else
      visit(cell, from, to);
  }

  void visit_bytes(Cell& cell, const char* from, const char* to) {
    Cell* parts = array->split(cell);
    for (const char* at = from; at < to; at++)
      visit(parts[reinterpret_cast<uintptr_t>(at) % 4], at, at + 1);
  }
};

}  // namespace
}  // namespace checker
