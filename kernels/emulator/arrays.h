// The memory that a kernel may touch, and its shadow.
#pragma once
#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "hooks.h"
#include "shadow.h"

namespace checker {

struct Array {
  std::string name;
  const char *low, *high;
  emulator::Space space;
  unsigned char* unwritten;  // see emulator::Region
  long block;                // whose shared memory it is; -1 otherwise
  int number;                // in its launch
  const char* origin;        // `low`, down to a multiple of 4: where the first cell begins
  std::unique_ptr<Cell[], decltype(&std::free)> cells{nullptr, &std::free};
  size_t cell_count = 0;
  std::vector<std::array<Cell, 4>> bytes;  // of the cells that were split

  bool shared() const { return space == emulator::Space::shared; }

  void start(const emulator::Region& region, long of_block, int its_number) {
    name = region.name ? region.name : "";
    low = region.base, high = region.base + region.bytes;
    space = region.space, unwritten = region.unwritten;
    block = of_block, number = its_number;
    origin = low - reinterpret_cast<uintptr_t>(low) % 4;
    size_t need = static_cast<size_t>(high - origin) / 4 + 1;
    bytes.clear();
    if (need > cell_count) {  // zeros from calloc cost nothing before they are touched
      cells.reset(static_cast<Cell*>(std::calloc(need, sizeof(Cell))));
      if (!cells) throw std::bad_alloc();
      cell_count = need;
    } else {
      memset(static_cast<void*>(cells.get()), 0, need * sizeof(Cell));
    }
  }

  Cell* cell(const char* address) const { return &cells[size_t(address - origin) / 4]; }

  // A word of which single bytes are accessed is four cells from then on.
  Cell* split(Cell& cell) {
    if (!cell.split) {
      Cell part = cell;
      bytes.push_back({part, part, part, part});
      cell.split = 1;
      cell.read_epoch = 0;  // so that nobody joins its readers
      cell.write_epoch = static_cast<uint32_t>(bytes.size() - 1);
    }
    return bytes[cell.write_epoch].data();
  }

  bool never_written(const Cell& cell, const char* from, const char* to) const {
    if (cell.write_epoch) return false;
    if (shared()) return true;
    return unwritten && memchr(unwritten + (from - low), 1, static_cast<size_t>(to - from));
  }

  // Tells the owner of `unwritten` what has been written.
  void clear_unwritten() {
    if (!unwritten) return;
    for (const char* at = low; at < high; at++) {
      const Cell& word = *cell(at);
      const Cell& its = word.split ? bytes[word.write_epoch][(at - origin) % 4] : word;
      if (its.write_epoch) unwritten[at - low] = 0;
    }
  }
};

class Arrays {
 public:
  Array& add(const emulator::Region& region, long block) {
    std::unique_ptr<Array> array;
    if (block >= 0 && !spare_.empty()) {
      array = std::move(spare_.back());
      spare_.pop_back();
    } else {
      array = std::make_unique<Array>();
    }
    array->start(region, block, next_number_++);
    auto place = std::upper_bound(all_.begin(), all_.end(), array->low, before);
    forget_recent();
    return **all_.insert(place, std::move(array));
  }

  // A block has ended; the memory of its arrays serves the next one's.
  void remove_shared(long block) {
    for (auto& array : all_)
      if (array->block == block) spare_.push_back(std::move(array));
    all_.erase(std::remove(all_.begin(), all_.end(), nullptr), all_.end());
    forget_recent();
  }

  void clear() {
    for (auto& array : all_) array->clear_unwritten();
    all_.clear();
    spare_.clear();
    next_number_ = 0;
    forget_recent();
  }

  // The array that an instruction accessed last, in which it mostly stays; null at first.
  Array*& recent(uint32_t place) { return recent_[(place ^ place >> 8) % RECENT]; }

  // The array that holds all of the bytes, or null.
  Array* find(const char* from, size_t bytes, uint32_t place) {
    Array*& hit = recent(place);
    if (hit && from >= hit->low && from + bytes <= hit->high) return hit;
    auto after = std::upper_bound(all_.begin(), all_.end(), from, before);
    if (after == all_.begin()) return nullptr;
    Array* array = std::prev(after)->get();
    if (from + bytes > array->high) return nullptr;
    hit = array;
    return array;
  }

  // The nearest array at most `guard` bytes away, for an access that `find` did not place.
  Array* near(const char* from, size_t bytes) {
    auto after = std::upper_bound(all_.begin(), all_.end(), from, before);
    Array *best = nullptr, *below = after == all_.begin() ? nullptr : std::prev(after)->get();
    ptrdiff_t distance = PTRDIFF_MAX;
    if (below && from - below->high < guard(*below)) best = below, distance = from - below->high;
    if (after != all_.end()) {
      Array* above = after->get();
      ptrdiff_t gap = above->low - (from + bytes);
      if (gap < guard(*above) && gap < distance) best = above;
    }
    return best;
  }

 private:
  static constexpr size_t RECENT = 256;

  static bool before(const char* address, const std::unique_ptr<Array>& array) {
    return address < array->low;
  }
  static ptrdiff_t guard(const Array& array) {
    return array.shared() ? emulator::SHARED_GUARD : emulator::GLOBAL_GUARD;
  }
  void forget_recent() { std::fill(std::begin(recent_), std::end(recent_), nullptr); }

  std::vector<std::unique_ptr<Array>> all_;  // by address
  std::vector<std::unique_ptr<Array>> spare_;
  Array* recent_[RECENT] = {};
  int next_number_ = 0;
};

}  // namespace checker
