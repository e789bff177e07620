// The shadow of memory: who last wrote each word, and who has read it since.
//
// Two accesses race when at least one writes and neither happened before the other. What happened
// before is kept as time in three steps, the way threads can be ordered:
//   epoch   a stretch of one block between two `__syncthreads()`; each has a number of its own in
//           the launch, so that a number also says which block it was
//   stamp   within an epoch, how many times the warp has met at `__syncwarp()`
//   lane    of two lanes in one epoch, which has seen which at such a meeting
// Shuffles and votes order nothing, as CUDA says, and warps of one block meet only at barriers.
#pragma once
#include <cstdint>

namespace checker {

constexpr unsigned LANES = 32;
constexpr uint32_t LAST_STAMP = (1u << 19) - 1;

// When lanes of one warp read, and what more is known of the readers, in 32 bits. What has to be
// the same for one more lane to join the readers is in `TIME`, so that one comparison tells.
struct Readers {
  uint32_t bits;

  static constexpr uint32_t TIME = (1u << 26) - 1, IN_FLIGHT = 1u << 25;
  static constexpr uint32_t of(unsigned warp, uint32_t stamp) { return warp | stamp << 5; }

  unsigned warp() const { return bits & 31; }
  uint32_t stamp() const { return bits >> 5 & LAST_STAMP; }
  bool strong() const { return bits >> 24 & 1; }       // they are atomics
  bool in_flight() const { return bits & IN_FLIGHT; }  // see Cell
  bool several_warps() const { return bits >> 26 & 1; }
  unsigned other_warp() const { return bits >> 27; }  // another one that has read in the epoch

  void set_time(unsigned warp, uint32_t stamp) {
    bits = (bits & ~((1u << 24) - 1)) | of(warp, stamp);
  }
  void set_strong(bool strong) { bits = (bits & ~(1u << 24)) | uint32_t{strong} << 24; }
  void set_other_warp(unsigned warp) { bits = (bits & ~(63u << 26)) | 1u << 26 | warp << 27; }
  void set_one_warp() { bits &= ~(63u << 26); }
};

// 32 bytes for each 4 bytes of memory. An epoch of 0 means: never.
//
// Of the readers since the last write only so much is kept that a later write is never taken for
// ordered when it is not: the lanes of the warp that read last, whether another warp of the same
// epoch has read, and an epoch of another block that has.
//
// While a word is the target of a cp.async not waited for, `readers` says so. Then the last write
// of the copy's source lies in the fields of the reads.
struct Cell {
  uint32_t write_epoch;
  uint32_t write_thread : 10, write_stamp : 20;
  uint32_t write_strong : 1;  // by an atomic: does not race with another
  uint32_t split : 1;         // stands for four cells of a byte each; write_epoch is their number
  uint32_t write_place;
  uint32_t read_epoch;
  uint32_t read_lanes;
  Readers readers;
  uint32_t read_place;
  uint32_t foreign_epoch;  // of a block other than read_epoch's

  uint32_t write_time() const { return write_thread | uint32_t{write_stamp} << 10; }
};
static_assert(sizeof(Cell) == 32, "the shadow is eight times the memory");

// What the lanes of one warp know of each other, within an epoch.
class WarpClock {
 public:
  uint32_t stamp = 0;

  // Did what `lane` did at time `then` happen before what lane `me` does now?
  bool ordered(unsigned me, unsigned lane, uint32_t then) const {
    return then < all_met_ || seen_[me][lane] > then || stamp == LAST_STAMP;
  }

  // `lanes` have met, out of the `all` that the warp has.
  void meet(uint32_t lanes, uint32_t all) {
    if (stamp == LAST_STAMP) return;  // half a million meetings without a barrier: see no more races
    stamp++;
    if ((lanes & all) == all) {
      all_met_ = stamp;
      return;
    }
    parts_met_ = true;
    for (unsigned lane = 0; lane < LANES; lane++) {
      uint32_t latest = lanes >> lane & 1 ? stamp : 0;
      for (unsigned who = 0; who < LANES; who++)  // and what each of them had learnt from others
        if (lanes >> who & 1 && seen_[who][lane] > latest) latest = seen_[who][lane];
      for (unsigned who = 0; who < LANES; who++)
        if (lanes >> who & 1) seen_[who][lane] = latest;
    }
  }

  void start_epoch() {
    stamp = all_met_ = 0;
    if (!parts_met_) return;
    parts_met_ = false;
    for (auto& row : seen_)
      for (auto& then : row) then = 0;
  }

 private:
  uint32_t all_met_ = 0;           // the stamp when all lanes last met
  bool parts_met_ = false;         // some met without the others: `seen_` holds something
  uint32_t seen_[LANES][LANES] = {};  // [me][lane]: what that lane did before this stamp
};

}  // namespace checker
