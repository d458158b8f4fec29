// What of a log may go: a pure decision over the manifest.
//
// Kept are the two newest snapshots and, with a window, every snapshot made inside it and the one
// before it; the log from the oldest of these on, and one slot more, which says what state it went
// on from. Of snapshots that begin at one slot (an idle database, a cron job) the newest are these
// two. A labelled snapshot stays for ever, below that with what it needs to be restored as of
// its own point. Fences are not touched here or anywhere.
#pragma once

#include <cstdint>
#include <vector>

#include "vfs/objects/manifest.h"

namespace guildlite {

struct Retirement {
  Slot horizon;  // of the manifest after it; nothing below is kept for its own sake
  std::vector<SnapshotRecord> snapshots;  // to go
  std::vector<SegmentRecord> segments;
  // Slots in [the old horizon, the new) that no segment covers and nothing needs: the log objects
  // there are to go, but for FENCEs.
  std::vector<Slot> slots;
  // The horizon would be higher if the floor were: join first.
  bool wants_join = false;

  bool empty(const Manifest& manifest) const {
    return horizon == manifest.horizon && snapshots.empty() && segments.empty();
  }
};

// `window_ms`: how far back every point stays restorable, whatever the number of snapshots.
Retirement PlanRetirement(const Manifest& manifest, int64_t now_ms, int64_t window_ms);

}  // namespace guildlite
