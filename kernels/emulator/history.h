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

class History {
 public:
  Block* here = nullptr;  // the running thread's block

  void begin(int threads) {
    threads_ = threads;
    here = nullptr;
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
    here = block.get();
    start_epoch(*here);
  }

  void end_block(long number) {
    if (here && here->number == number) here = nullptr;
    blocks_.erase(number);
  }

  void enter(long number) {
    if (!here || here->number != number) here = blocks_.at(number).get();
  }

  void block_barrier() {
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

  // The lanes that the running warp has in its block.
  uint32_t lanes_of(int warp) const {
    int lanes = threads_ - warp * static_cast<int>(LANES);
    return lanes >= static_cast<int>(LANES) ? ~0u : (1u << lanes) - 1;
  }

  // Did what `thread` did at that time happen before what the running thread does now?
  bool before(uint32_t epoch, unsigned thread, uint32_t stamp) const {
    const emulator::Now& me = emulator::now;
    if (epoch == here->epoch) {
      if (thread == static_cast<unsigned>(me.thread)) return true;
      return thread / LANES == static_cast<unsigned>(me.warp) &&
             here->warps[me.warp].ordered(me.lane, thread % LANES, stamp);
    }
    return epoch < grid_met_ || owners_[epoch] == here->number || released(epoch, thread);
  }

  // The same of a block of which only the epoch is known.
  bool block_before(uint32_t epoch) const {
    return epoch < grid_met_ || owners_[epoch] == here->number || released(epoch, ANY);
  }

  uint32_t stamp() const { return here->warps[emulator::now.warp].stamp; }
  uint32_t readers_now() const {  // as in Readers
    return Readers::of(static_cast<unsigned>(emulator::now.warp), stamp());
  }
  long owner(uint32_t epoch) const { return owners_[epoch]; }

  // A fence, and later an atomic, makes what a thread did or has seen done visible to the blocks
  // that use an atomic on the same address afterwards: the way in which the last block of a
  // reduction finds the sums of the others. (Strictly the reader needs a fence, too; CUDA's own
  // example has none.) What one thread of a block has learnt so, all count as knowing.
  void fence() {
    if (here->fenced.empty()) here->fenced.resize(static_cast<size_t>(threads_));
    here->fenced[emulator::now.thread] = here->epoch;
  }
  void atomic(const void* address) {
    if (!here->fenced.empty() && here->fenced[emulator::now.thread]) {
      Releases& left = releases_[address];
      Release mine;
      mine.epoch = here->fenced[emulator::now.thread];
      mine.threads.set(static_cast<size_t>(emulator::now.thread));
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

  void start_epoch(Block& block) {
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
