// Which pages a transaction, or a block, has had so far: proves "each page once" and "no base for a
// second version" on both sides of the format.
//
// Memory follows the pages seen, never a number somebody wrote down: a VACUUM of 100 GB costs a few
// MB, a forged database size nothing.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "guildlite/types.h"

namespace guildlite {

class PageSet {
 public:
  void Clear() {
    few_.clear();
    runs_.clear();
  }
  bool Contains(Pgno pgno) const {
    if (runs_.empty()) return std::find(few_.begin(), few_.end(), pgno.value) != few_.end();
    const auto run = runs_.find(pgno.value / 512);
    return run != runs_.end() && (run->second[pgno.value / 64 % 8] >> (pgno.value % 64) & 1) != 0;
  }
  // False: it was there already.
  bool Insert(Pgno pgno) {
    if (runs_.empty()) {
      if (Contains(pgno)) return false;
      if (few_.size() < kFewMax) {
        few_.push_back(pgno.value);
        return true;
      }
      for (const uint32_t page : few_) InsertInRun(page);
    }
    return InsertInRun(pgno.value);
  }

 private:
  static constexpr size_t kFewMax = 16;  // most transactions: no hashing, no allocation
  using Run = std::array<uint64_t, 8>;   // 512 neighbours

  bool InsertInRun(uint32_t page) {
    uint64_t& word = runs_[page / 512][page / 64 % 8];
    const uint64_t bit = uint64_t{1} << (page % 64);
    const bool fresh = (word & bit) == 0;
    word |= bit;
    return fresh;
  }

  std::vector<uint32_t> few_;
  std::unordered_map<uint32_t, Run> runs_;
};

}  // namespace guildlite
