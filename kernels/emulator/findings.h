// What the checker found, and where: kept until Python fetches it (report.py has the same struct).
#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <unordered_map>
#include <vector>

#include "hooks.h"

// The loaded library: from its first byte to the end of its variables.
extern "C" __attribute__((visibility("hidden"))) char __ehdr_start, _end;

namespace checker {

// A place in the source as 24 bits: a return address, counted from the start of the library, or
// the number of a Site, with the highest bit set.
using Place = uint32_t;

class Places {
 public:
  static Place of(const void* return_address) {
    return static_cast<Place>(static_cast<const char*>(return_address) - &__ehdr_start) & ~SITE;
  }
  Place of(emulator::Site site) {
    Entry& recent = recent_[site.line % RECENT];  // most calls ask for a few sites in turn
    if (recent.site.file != site.file || recent.site.line != site.line)
      recent = {site, number(site)};
    return recent.place;
  }
  bool is_site(Place place) const { return place & SITE; }
  emulator::Site site(Place place) const { return sites_[place & ~SITE]; }

 private:
  static constexpr Place SITE = 1u << 23;
  static constexpr int RECENT = 64;
  struct Entry {
    emulator::Site site;
    Place place;
  };

  Place number(emulator::Site site) {
    for (size_t i = 0; i < sites_.size(); i++)
      if (sites_[i].file == site.file && sites_[i].line == site.line) return SITE | Place(i);
    sites_.push_back(site);
    return SITE | static_cast<Place>(sites_.size() - 1);
  }

  std::vector<emulator::Site> sites_;
  Entry recent_[RECENT] = {};
};

enum : int32_t { READ = 0, WRITE = 1, STRONG = 2 };  // how an access uses memory; flags

// One end of a finding. Where nothing is known of it, the numbers are -1 and the place is empty.
struct End {
  int64_t thread = -1, block = -1, warp = -1;
  int32_t use = READ;
  int32_t line = 0;            // with `file`...
  const char* file = nullptr;
  uint64_t address = 0;        // ...or the return address, counted from the start of the library
};

struct Finding {
  char kind[32] = "";   // "race", "out of bounds", ...: checker.cpp says which
  char text[400] = "";  // of a fault of the runtime: what it says
  char array[80] = "";  // the array's name, empty where there is none near
  int32_t space = -1;   // emulator::Space, -1: none
  int32_t bytes = 0;    // of the access
  int64_t offset = 0;   // from the start of the array, bytes
  int64_t size = 0;     // of the array, bytes
  int64_t count = 0;    // how many accesses found it
  End here, other;
  uint64_t callers[24] = {};  // return addresses, from the innermost out, counted as End::address
};

// Findings of one kind at one pair of places are one, with a count.
class Findings {
 public:
  Places places;
  size_t most = 1000;  // different ones that are kept

  // Returns where to write the finding down, or null where it is there already.
  Finding* add(const char* kind, Place place, Place other = 0) {
    Key key{kind, uint64_t(place) << 32 | other};
    auto found = number_.find(key);
    if (found != number_.end()) {
      all[found->second].count++;
      return nullptr;
    }
    if (all.size() >= most) return nullptr;
    number_[key] = all.size();
    all.emplace_back();
    Finding& finding = all.back();
    strncpy(finding.kind, kind, sizeof finding.kind - 1);
    finding.count = 1;
    set_place(finding.here, place);
    if (other) set_place(finding.other, other);
    return &finding;
  }
  void clear() {
    all.clear();
    number_.clear();
  }

  std::vector<Finding> all;

 private:
  struct Key {
    const char* kind;  // a literal, the same one for one kind
    uint64_t places;
    bool operator==(const Key& k) const { return kind == k.kind && places == k.places; }
  };
  struct Hash {
    size_t operator()(const Key& k) const {
      return (k.places ^ reinterpret_cast<uintptr_t>(k.kind)) * 0x9E3779B97F4A7C15u >> 16;
    }
  };

  void set_place(End& end, Place place) {
    if (places.is_site(place)) {
      end.file = places.site(place).file;
      end.line = places.site(place).line;
    } else {
      end.address = place;
    }
  }

  std::unordered_map<Key, size_t, Hash> number_;
};

}  // namespace checker
