// Shuffles, votes and reductions of a warp. Each is a payload, an operation on the payloads of
// all lanes, and a function under CUDA's name that calls `emulator::meet` with them.
#pragma once
#include "runtime.h"

namespace emulator {

EMULATOR_OWN inline int lane() { return now.lane; }

// ---- shuffles: each lane gets the value of `source` -------------------------------------------

template <class T>
struct Shuffle {
  T value;
  int source;
  bool received;  // whether `source` was there to give its value

  EMULATOR_OWN static void run(void* const* payloads, unsigned lanes) {
    Shuffle before[32];
    for (int i = 0; i < 32; i++)
      if (lanes >> i & 1) before[i] = *static_cast<Shuffle*>(payloads[i]);
    for (int i = 0; i < 32; i++) {
      if (!(lanes >> i & 1)) continue;
      T& out = static_cast<Shuffle*>(payloads[i])->value;
      int from = before[i].source;
      if (lanes >> from & 1)
        out = before[from].value;
      else  // undefined on a GPU: make it show
        memset(static_cast<void*>(&out), 0xFF, sizeof out);
      static_cast<Shuffle*>(payloads[i])->received = lanes >> from & 1;
    }
  }
};

template <class T>
EMULATOR_OWN inline T shuffle(const char* name, unsigned mask, T value, int source, Site site) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move values of 4 or 8 bytes");
  Shuffle<T> payload{value, source, false};
  meet(name, Shuffle<T>::run, &payload, mask, site);
  if (checker::PRESENT && !payload.received) undefined_shuffle(name, mask, source, site);
  return payload.value;
}

}  // namespace emulator

// `width` splits the warp into parts of that many lanes (a power of two), which shuffle apart.

template <class T>
EMULATOR_OWN inline T __shfl_sync(unsigned mask, T value, int source, int width = 32,
                                  emulator::Site site = emulator::Site::here()) {
  int part = emulator::lane() & ~(width - 1);
  return emulator::shuffle("__shfl_sync", mask, value, part + (source & (width - 1)), site);
}
template <class T>
EMULATOR_OWN inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                                     emulator::Site site = emulator::Site::here()) {
  int lane = emulator::lane(), within = lane & (width - 1);
  int source = within >= static_cast<int>(delta) ? lane - static_cast<int>(delta) : lane;
  return emulator::shuffle("__shfl_up_sync", mask, value, source, site);
}
template <class T>
EMULATOR_OWN inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                                       emulator::Site site = emulator::Site::here()) {
  int lane = emulator::lane(), within = lane & (width - 1);
  int source = within + static_cast<int>(delta) < width ? lane + static_cast<int>(delta) : lane;
  return emulator::shuffle("__shfl_down_sync", mask, value, source, site);
}
template <class T>
EMULATOR_OWN inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32,
                                      emulator::Site site = emulator::Site::here()) {
  int lane = emulator::lane(), source = lane ^ bits;  // may reach into earlier parts, not later
  if (source / width > lane / width) source = lane;
  return emulator::shuffle("__shfl_xor_sync", mask, value, source & 31, site);
}

// ---- votes ------------------------------------------------------------------------------------

namespace emulator {

struct Vote {
  bool predicate;
  unsigned ballot, lanes;  // who voted for, who voted at all

  EMULATOR_OWN static void run(void* const* payloads, unsigned lanes) {
    unsigned ballot = 0;
    for (int i = 0; i < 32; i++)
      if (lanes >> i & 1 && static_cast<Vote*>(payloads[i])->predicate) ballot |= 1u << i;
    for (int i = 0; i < 32; i++)
      if (lanes >> i & 1) {
        static_cast<Vote*>(payloads[i])->ballot = ballot;
        static_cast<Vote*>(payloads[i])->lanes = lanes;
      }
  }
};

EMULATOR_OWN inline Vote vote(const char* name, unsigned mask, bool predicate, Site site) {
  Vote payload{predicate, 0, 0};
  meet(name, Vote::run, &payload, mask, site);
  return payload;
}

// ---- match: which lanes hold my value ---------------------------------------------------------

struct Match {
  uint64_t value;
  unsigned equal, lanes;

  EMULATOR_OWN static void run(void* const* payloads, unsigned lanes) {
    for (int i = 0; i < 32; i++) {
      if (!(lanes >> i & 1)) continue;
      Match& mine = *static_cast<Match*>(payloads[i]);
      mine.equal = 0, mine.lanes = lanes;
      for (int j = 0; j < 32; j++)
        if (lanes >> j & 1 && static_cast<Match*>(payloads[j])->value == mine.value)
          mine.equal |= 1u << j;
    }
  }
};

template <class T>
EMULATOR_OWN inline Match match(const char* name, unsigned mask, T value, Site site) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "values of 4 or 8 bytes are matched");
  Match payload{0, 0, 0};
  memcpy(&payload.value, &value, sizeof value);
  meet(name, Match::run, &payload, mask, site);
  return payload;
}

// ---- reductions -------------------------------------------------------------------------------

template <class T, class Combine>
struct Reduction {
  T value;

  EMULATOR_OWN static void run(void* const* payloads, unsigned lanes) {
    T total = static_cast<Reduction*>(payloads[__builtin_ctz(lanes)])->value;
    for (int i = __builtin_ctz(lanes) + 1; i < 32; i++)
      if (lanes >> i & 1) total = Combine::of(total, static_cast<Reduction*>(payloads[i])->value);
    for (int i = 0; i < 32; i++)
      if (lanes >> i & 1) static_cast<Reduction*>(payloads[i])->value = total;
  }
};

}  // namespace emulator

EMULATOR_OWN inline unsigned __ballot_sync(unsigned mask, int predicate,
                                           emulator::Site site = emulator::Site::here()) {
  return emulator::vote("__ballot_sync", mask, predicate != 0, site).ballot;
}
EMULATOR_OWN inline int __any_sync(unsigned mask, int predicate,
                                   emulator::Site site = emulator::Site::here()) {
  return emulator::vote("__any_sync", mask, predicate != 0, site).ballot != 0;
}
EMULATOR_OWN inline int __all_sync(unsigned mask, int predicate,
                                   emulator::Site site = emulator::Site::here()) {
  emulator::Vote vote = emulator::vote("__all_sync", mask, predicate != 0, site);
  return vote.ballot == vote.lanes;
}
template <class T>
EMULATOR_OWN inline unsigned __match_any_sync(unsigned mask, T value,
                                              emulator::Site site = emulator::Site::here()) {
  return emulator::match("__match_any_sync", mask, value, site).equal;
}
template <class T>
EMULATOR_OWN inline unsigned __match_all_sync(unsigned mask, T value, int* all,
                                              emulator::Site site = emulator::Site::here()) {
  emulator::Match match = emulator::match("__match_all_sync", mask, value, site);
  *all = match.equal == match.lanes;
  return *all ? match.lanes : 0;
}

#define EMULATOR_REDUCTION(name, expression)                                          \
  namespace emulator {                                                                \
  struct Combine_##name {                                                             \
    template <class T>                                                                \
    EMULATOR_OWN static T of(T a, T b) {                                              \
      return expression;                                                              \
    }                                                                                 \
  };                                                                                  \
  }                                                                                   \
  template <class T>                                                                  \
  EMULATOR_OWN inline T __reduce_##name##_sync(                                       \
      unsigned mask, T value, emulator::Site site = emulator::Site::here()) {         \
    static_assert(sizeof(T) == 4 && std::is_integral<T>::value, "int or unsigned");   \
    using Payload = emulator::Reduction<T, emulator::Combine_##name>;                 \
    Payload payload{value};                                                           \
    emulator::meet("__reduce_" #name "_sync", Payload::run, &payload, mask, site);    \
    return payload.value;                                                             \
  }
EMULATOR_REDUCTION(add, static_cast<T>(static_cast<unsigned>(a) + static_cast<unsigned>(b)))
EMULATOR_REDUCTION(min, b < a ? b : a)
EMULATOR_REDUCTION(max, a < b ? b : a)
EMULATOR_REDUCTION(and, a & b)
EMULATOR_REDUCTION(or, a | b)
EMULATOR_REDUCTION(xor, a ^ b)
#undef EMULATOR_REDUCTION

// ---- the others -------------------------------------------------------------------------------

// Orders the memory accesses of the lanes of `mask` before and after it.
EMULATOR_OWN inline void __syncwarp(unsigned mask = 0xffffffffu,
                                    emulator::Site site = emulator::Site::here()) {
  emulator::warp_barrier(mask, site);
}
// The lanes of the warp that are at this line together. A GPU promises no more than that the
// calling lane is among them; here all that can come do.
EMULATOR_OWN inline unsigned __activemask(emulator::Site site = emulator::Site::here()) {
  return emulator::active_lanes(site);
}
