// What each line's memory accesses cost: shared-memory wavefronts and 32-byte global sectors,
// beside the fewest that would have done.
//
// A GPU serves the lanes of a warp together, one request for an instruction. Here lanes run one
// after another, so their accesses are kept until the warp's lanes meet; the k-th time that each
// lane comes by an instruction then makes up one request. That is what a GPU does as long as the
// lanes stay together, and an estimate where they part.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <unordered_map>
#include <vector>

#include "findings.h"
#include "shadow.h"

namespace checker {

// All requests of one place to one kind of memory.
struct LineCount {
  Place place;
  bool shared, write;
  int bytes;         // of one lane's access
  int64_t requests;  // of whole warps
  int64_t moved;     // wavefronts of shared memory, sectors of global memory
  int64_t fewest;    // of them, for as many lanes and bytes
};

class Counts {
 public:
  bool on = false;

  // `address` is relative to something aligned to 128 bytes; only its low 32 bits are kept.
  void add(Place place, bool shared, bool write, int warp, unsigned lane, uint64_t address,
           int bytes) {
    if (warp != warp_) flush(), warp_ = warp;
    Pending& line = pending(place, shared, write, bytes);
    unsigned turn = line.turns[lane]++;
    if (turn >= MOST_TURNS) return;  // of a loop without meetings: count its beginning
    if (turn == line.requests.size()) line.requests.emplace_back();
    if (!line.waiting) line.waiting = true, waiting_.push_back(&line);
    Request& request = line.requests[turn];
    request.lanes |= 1u << lane;
    request.address[lane] = static_cast<uint32_t>(address);
  }

  // The lanes have met, or another warp runs: what is kept makes up whole requests.
  void flush() {
    for (Pending* line : waiting_) {
      uint32_t most = std::min(*std::max_element(line->turns, line->turns + LANES), MOST_TURNS);
      for (uint32_t turn = 0; turn < most; turn++) {
        Request& request = line->requests[turn];
        line->count.requests++;
        if (line->count.shared)
          count_wavefronts(request, line->count);
        else
          count_sectors(request, line->count);
        request.lanes = 0;
      }
      memset(line->turns, 0, sizeof line->turns);
      line->waiting = false;
    }
    waiting_.clear();
  }

  std::vector<LineCount> take() {
    flush();
    std::vector<LineCount> all;
    for (auto& [key, line] : lines_) all.push_back(line.count);
    lines_.clear();
    std::fill(std::begin(recent_), std::end(recent_), nullptr);
    return all;
  }

 private:
  static constexpr uint32_t MOST_TURNS = 1 << 13;
  struct Request {
    uint32_t lanes = 0;
    uint32_t address[LANES];
  };
  struct Pending {
    LineCount count{};
    uint32_t turns[LANES] = {};  // of each lane, since the last meeting
    std::vector<Request> requests;
    bool waiting = false;
    uint64_t key = 0;
  };

  Pending& pending(Place place, bool shared, bool write, int bytes) {
    const uint64_t kind = uint64_t(bytes) << 2 | (shared ? 2 : 0) | (write ? 1 : 0);
    const uint64_t key = uint64_t(place) << 32 | kind;
    Pending*& recent = recent_[key * 0x9E3779B97F4A7C15u >> 55];
    if (recent && recent->key == key) return *recent;
    auto [found, is_new] = lines_.try_emplace(key);
    recent = &found->second;
    if (is_new) {
      recent->key = key;
      recent->count = {place, shared, write, bytes, 0, 0, 0};
    }
    return *recent;
  }

  // The addresses of some lanes of a request, each once, in order.
  static int distinct(const Request& request, unsigned from, unsigned to, uint32_t* out) {
    int n = 0;
    bool sorted = true;
    for (unsigned lane = from; lane < to; lane++) {
      if (!(request.lanes >> lane & 1)) continue;
      uint32_t address = request.address[lane];
      if (n && out[n - 1] == address) continue;
      sorted = sorted && (!n || out[n - 1] < address);
      out[n++] = address;
    }
    if (!sorted) {
      std::sort(out, out + n);
      n = static_cast<int>(std::unique(out, out + n) - out);
    }
    return n;
  }

  // Shared memory has 32 banks, each 4 bytes wide; a wavefront takes one word from each. Lanes
  // that ask for the same word are served together. 8 bytes a lane go in halves of a warp, 16
  // in quarters, so that each part can be had in one wavefront.
  static void count_wavefronts(const Request& request, LineCount& count) {
    unsigned words = count.bytes > 4 ? static_cast<unsigned>(count.bytes) / 4 : 1;
    unsigned part = std::max(LANES / words, 1u);
    for (unsigned from = 0; from < LANES; from += part) {
      uint32_t address[LANES];
      int n = distinct(request, from, from + part, address);
      if (!n) continue;
      uint8_t in_bank[LANES] = {}, most = 0;
      uint32_t last = ~0u;
      for (int i = 0; i < n; i++)
        for (uint32_t w = address[i] / 4; w < address[i] / 4 + words; w++) {
          if (w == last) continue;  // several lanes in one word, 1 or 2 bytes each
          last = w;
          most = std::max(most, ++in_bank[w % LANES]);
        }
      count.moved += most;
      count.fewest++;
    }
  }

  // Global memory is moved in sectors of 32 bytes.
  static void count_sectors(const Request& request, LineCount& count) {
    uint32_t address[LANES], bytes = static_cast<uint32_t>(count.bytes);
    int n = distinct(request, 0, LANES, address);
    uint32_t next = 0;  // the first sector after those counted
    int64_t moved = 0;
    for (int i = 0; i < n; i++) {
      uint32_t first = std::max(address[i] / 32, next);
      next = std::max((address[i] + bytes - 1) / 32 + 1, next);
      moved += next > first ? next - first : 0;
    }
    count.moved += moved;
    count.fewest += std::min<int64_t>((n * bytes + 31) / 32, moved);  // lanes may overlap
  }

  int warp_ = -1;
  std::unordered_map<uint64_t, Pending> lines_;
  Pending* recent_[512] = {};
  std::vector<Pending*> waiting_;
};

}  // namespace checker
