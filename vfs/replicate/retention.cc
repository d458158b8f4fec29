#include "vfs/replicate/retention.h"

#include <algorithm>

namespace guildlite {
namespace {

constexpr size_t kNewestKept = 2;

struct SlotRange {
  Slot first;
  Slot end;
  bool Overlaps(Slot from, Slot last) const { return from < end && last >= first; }
};

}  // namespace

Retirement PlanRetirement(const Manifest& m, int64_t now_ms, int64_t window_ms) {
  Retirement r{.horizon = m.horizon, .snapshots = {}, .segments = {}, .slots = {}};
  // In the order they were made, which txids need not have once a history was rewound; the newest
  // first.
  std::vector<const SnapshotRecord*> newest;
  for (const SnapshotRecord& s : m.snapshots) {
    if (s.first_slot >= m.horizon && SurvivedItsEpoch(m, s)) newest.insert(newest.begin(), &s);
  }
  std::stable_sort(newest.begin(), newest.end(),
                   [](const auto* a, const auto* b) { return a->first_slot > b->first_slot; });
  size_t kept = std::min(kNewestKept, newest.size());
  // Inside the window, and the one its first points are restored from.
  while (window_ms > 0 && kept < newest.size() && newest[kept - 1]->time_ms > now_ms - window_ms) {
    ++kept;
  }
  if (kept == newest.size()) return r;
  // The log below that stays for the others; for these there is none.
  for (size_t i = kept; i < newest.size(); ++i) {
    const bool same = newest[i]->first_slot == newest[kept - 1]->first_slot;
    if (same && newest[i]->label.empty()) r.snapshots.push_back(*newest[i]);
  }

  const Slot wanted(std::max<uint64_t>(newest[kept - 1]->first_slot.value, 2) - 1);
  r.wants_join = wanted > m.floor;
  r.horizon = std::max(m.horizon, std::min(wanted, m.floor));
  if (r.horizon == m.horizon) return r;

  std::vector<SlotRange> needed;
  for (const SnapshotRecord& s : m.snapshots) {
    if (s.first_slot >= r.horizon) continue;
    if (s.label.empty()) {
      r.snapshots.push_back(s);
    } else if (s.first_slot < s.end_slot) {
      needed.push_back({s.first_slot, s.end_slot});
    }
  }
  const auto is_needed = [&](Slot first, Slot last) {
    return last >= r.horizon ||
           std::any_of(needed.begin(), needed.end(),
                       [&](const SlotRange& range) { return range.Overlaps(first, last); });
  };
  Slot slot = m.horizon;
  const auto own_objects_below = [&](Slot end) {
    for (; slot < end; slot = slot.Next()) {
      if (!is_needed(slot, slot)) r.slots.push_back(slot);
    }
  };
  for (const SegmentRecord& segment : m.segments) {
    if (segment.first_slot >= r.horizon) break;
    own_objects_below(segment.first_slot);
    slot = std::max(slot, segment.last_slot.Next());
    if (!is_needed(segment.first_slot, segment.last_slot)) r.segments.push_back(segment);
  }
  own_objects_below(r.horizon);
  return r;
}

}  // namespace guildlite
