// FrameIndex: page number -> the last frame that holds it, of one generation of a WAL. Every page
// of a WAL is in it, and with checkpoints held off a WAL has no bound: 8 to 22 bytes a page.
//
// Open addressing, linear probing; nothing is ever taken out but everything.
//
// Not thread-safe.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "guildlite/types.h"

namespace guildlite {

class FrameIndex {
 public:
  bool empty() const { return used_ == 0; }
  // 0: none.
  uint32_t Get(Pgno pgno) const {
    return slots_.empty() ? 0 : slots_[At(slots_, pgno.value)].frame;
  }
  // REQUIRES: pgno and frame are not 0.
  void Set(Pgno pgno, uint32_t frame) {
    if (used_ + 1 > slots_.size() / 4 * 3) Grow();
    Slot& slot = slots_[At(slots_, pgno.value)];
    used_ += slot.pgno == 0 ? 1 : 0;
    slot = {pgno.value, frame};
  }
  void Clear() {
    // A WAL that was huge once need not be so again; the usual one keeps its memory.
    if (slots_.size() > kKeptSlots) std::vector<Slot>().swap(slots_);
    std::fill(slots_.begin(), slots_.end(), Slot());
    used_ = 0;
  }

 private:
  struct Slot {
    uint32_t pgno = 0;
    uint32_t frame = 0;
  };
  static constexpr size_t kKeptSlots = 8192;

  // Of the page, or the free one where it belongs.
  static size_t At(const std::vector<Slot>& slots, uint32_t pgno) {
    const size_t mask = slots.size() - 1;
    size_t i = (pgno * 0x9E3779B1u >> 7) & mask;
    while (slots[i].pgno != 0 && slots[i].pgno != pgno) i = (i + 1) & mask;
    return i;
  }
  void Grow() {
    std::vector<Slot> larger(std::max<size_t>(16, slots_.size() * 2));
    for (const Slot& slot : slots_) {
      if (slot.pgno != 0) larger[At(larger, slot.pgno)] = slot;
    }
    slots_ = std::move(larger);
  }

  std::vector<Slot> slots_;  // a power of two
  size_t used_ = 0;
};

}  // namespace guildlite
