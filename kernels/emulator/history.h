// What happened before what, among the blocks of a launch (shadow.h: among the lanes of a warp).
#pragma once
#include <bitset>
#include <memory>
#include <unordered_map>
#include <vector>

#include "hooks.h"
#include "shadow.h"

namespace checker {

// What a block has made visible to others by `__threadfence()` and then an atomic: its epochs
// before `epoch`, and of that one what `threads` did.
struct Release {
  uint32_t epoch = 0;
  std::bitset<1024> threads;

  void merge(const Release& other) {
    if (other.epoch > epoch)
      *this = other;
    else if (other.epoch == epoch)
      threads |= other.threads;
  }
};
using Releases = std::unordered_map<long, Release>;  // of each block

struct Block {
  long number;
  uint32_t epoch = 0;
  std::vector<WarpClock> warps;
  std::vector<uint32_t> fenced;  // the epoch of each thread's last fence; empty before the first
  Releases seen;                 // of other blocks, through atomics
};

// The running thread and its time, worked out once for as long as neither changes.
struct Moment {
  const char* stack = nullptr;  // the thread's; null: the rest is out of date
  uint32_t epoch, stamp;
  unsigned thread, warp, lane;
  uint32_t readers;  // its time as in Readers
};

class History {
 public:
  Block* here = nullptr;  // the running thread's block, after `enter`
  Moment me;              // the running thread, after `enter`

  // Find out who runs. Every access begins here.
  void enter() {
    const emulator::Now& now = emulator::now;
    if (me.stack == now.stack_low) return;
    enter_block();
    me.stack = now.stack_low;
    me.thread = static_cast<unsigned>(now.thread);
    me.warp = static_cast<unsigned>(now.warp), me.lane = static_cast<unsigned>(now.lane);
    me.epoch = here->epoch, me.stamp = here->warps[me.warp].stamp;
    me.readers = Readers::of(me.warp, me.stamp);
  }

  void begin(int threads) {
    threads_ = threads;
    here = nullptr, me.stack = nullptr;
    blocks_.clear();
    releases_.clear();
    owners_.assign(1, -1);  // epoch 0 means never
    grid_met_ = 1;
  }

  void begin_block(long number) {
    std::unique_ptr<Block>& block = blocks_[number];
    block = std::make_unique<Block>();
    block->number = number;
    block->warps.resize((static_cast<size_t>(threads_) + LANES - 1) / LANES);
    start_epoch(*block);
  }

  void end_block(long number) {
    here = nullptr, me.stack = nullptr;
    blocks_.erase(number);
  }

  void block_barrier() {
    enter_block();
    for (WarpClock& warp : here->warps) warp.start_epoch();
    start_epoch(*here);
  }

  void grid_barrier() {
    grid_met_ = static_cast<uint32_t>(owners_.size());
    for (auto& [number, block] : blocks_) {
      for (WarpClock& warp : block->warps) warp.start_epoch();
      start_epoch(*block);
    }
  }

  void warp_barrier(int warp, uint32_t lanes) {
    enter_block();
    me.stack = nullptr;
    const int all = threads_ - warp * static_cast<int>(LANES);  // that the warp has
    here->warps[warp].meet(lanes, all >= static_cast<int>(LANES) ? ~0u : (1u << all) - 1);
  }

  // Did what `thread` did at that time happen before what the running thread does now?
  bool before(uint32_t epoch, unsigned thread, uint32_t stamp) const {
    if (epoch == me.epoch) {
      if (thread == me.thread) return true;
      return thread / LANES == me.warp &&
             here->warps[me.warp].ordered(me.lane, thread % LANES, stamp);
    }
    return epoch < grid_met_ || is_mine(epoch) || released(epoch, thread);
  }

  // The same of a block of which only the epoch is known.
  bool block_before(uint32_t epoch) const {
    return epoch < grid_met_ || is_mine(epoch) || released(epoch, ANY);
  }

  long owner(uint32_t epoch) const { return owners_[epoch]; }
  bool is_mine(uint32_t epoch) const { return owners_[epoch] == here->number; }

  // A fence, and later an atomic, makes what a thread did or has seen done visible to the blocks
  // that use an atomic on the same address afterwards: the way in which the last block of a
  // reduction finds the sums of the others. (Strictly the reader needs a fence, too; CUDA's own
  // example has none.) What one thread of a block has learnt so, all count as knowing.
  void fence() {
    enter();
    if (here->fenced.empty()) here->fenced.resize(static_cast<size_t>(threads_));
    here->fenced[me.thread] = me.epoch;
  }
  void atomic(const void* address) {
    if (!here->fenced.empty() && here->fenced[me.thread]) {
      Releases& left = releases_[address];
      Release mine;
      mine.epoch = here->fenced[me.thread];
      mine.threads.set(me.thread);
      left[here->number].merge(mine);
      for (auto& [block, release] : here->seen) left[block].merge(release);
    }
    auto found = releases_.empty() ? releases_.end() : releases_.find(address);
    if (found == releases_.end()) return;
    for (auto& [block, release] : found->second)
      if (block != here->number) here->seen[block].merge(release);
  }

 private:
  static constexpr unsigned ANY = ~0u;

  void enter_block() {
    const long number = emulator::now.block;
    if (!here || here->number != number) here = blocks_.at(number).get();
  }

  void start_epoch(Block& block) {
    me.stack = nullptr;
    block.epoch = static_cast<uint32_t>(owners_.size());
    owners_.push_back(block.number);
  }

  bool released(uint32_t epoch, unsigned thread) const {
    auto found = here->seen.find(owners_[epoch]);
    if (found == here->seen.end()) return false;
    const Release& release = found->second;
    if (epoch != release.epoch) return epoch < release.epoch;
    return thread == ANY ? release.threads.any() : release.threads[thread];
  }

  int threads_ = 0;
  std::unordered_map<long, std::unique_ptr<Block>> blocks_;  // that have begun and not ended
  std::vector<long> owners_;                                 // the block of each epoch
  uint32_t grid_met_ = 1;  // the first epoch after the last `grid_sync()`
  std::unordered_map<const void*, Releases> releases_;
};

}  // namespace checker
