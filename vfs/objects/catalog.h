// What exists in the log: slots are dense, so reading on from a known slot until the next one is
// missing finds the tip without a LIST. Below the manifest's floor the log is read from segments,
// where there are some; at and above it from its own objects.
//
//   1. A 404 is the tip only if a manifest read begun after it shows floor <= that slot (hazard H2:
//      otherwise the slot may have been deleted under us and the answer would be old data,
//      verified).
//   2. Every object is whole, of this lineage, in its own place, names its predecessor by hash, and
//      is of no older epoch than it. What is not is CHAIN_BROKEN and names the key.
//   3. Slots are asked for ahead of their turn (read_ahead.h), but judged in order. A slot is
//   written
//      only once the one before it is there, so a 404 beside a later slot that was found is no tip:
//      the slot is read again. Still missing, it was retired, or it is a hole.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "guildlite/object_store.h"
#include "vfs/format/segment_format.h"
#include "vfs/objects/manifest.h"

namespace guildlite {

// A log object, or the segment that took the place of several.
struct LogEntry {
  std::string key;
  ObjectHeader header;       // slots header.slot .. header.last_slot
  uint64_t object_hash = 0;  // of the whole object
  uint64_t follow_hash = 0;  // what slot last_slot+1 names as previous_hash
  uint64_t size = 0;
  std::string bytes;  // the whole object, if kept (small, and within the walk's budget)
};

struct LogWalk {
  // Dense: the first covers `from` (a segment may begin before it), each follows the one before.
  std::vector<LogEntry> entries;
  Slot next;            // the first missing slot: the tip is next-1. With `until`: that
  ManifestAt manifest;  // as read after the 404; with `until` reached: empty
  // With `look_beyond`: a slot after `next` that the log reached, so that `next` is a hole.
  std::optional<Slot> beyond;
};

struct WalkSettings {
  // What slot `from` names as its predecessor, if known: then it is checked too.
  std::optional<uint64_t> previous_hash;
  // Objects are kept in LogEntry::bytes as long as all kept ones fit; the first that does not, and
  // every later one, is read again by whoever wants it.
  uint64_t keep_bytes_max = 64 << 20;
  // Stop before this slot.
  std::optional<Slot> until;
  // Ask for the slot after the missing one too, in any case; a hole is no error then. (A run of
  // slots that are lost up to the last one looks like an older store.)
  bool look_beyond = false;
};

// Follows the log of `manifest` (read before) from `from` (>= 1) to its tip: one GET per object,
// the 404, one GET of the manifest, and what was asked for beyond the tip (fewer than there are
// objects). kNotFound: what was asked for was joined or retired meanwhile (or the manifest
// is gone): read the manifest and plan again. CHAIN_BROKEN: a slot below the floor, or before one
// that was seen, is missing and the manifest does not say why. With `look_beyond` and without
// `until` that is `beyond` instead: what was found before it is whole.
Result<LogWalk> WalkLog(ObjectStore& store, const Manifest& manifest, Slot from,
                        const WalkSettings& settings = {});

// The header of an object, without the rest: one ranged GET, or a second where a long list of parts
// makes the header longer than kHeaderReadBytes. Of a kData object see ObjectHeader::state_inside.
Result<ObjectHeader> ReadHeader(ObjectStore& store, const std::string& key);

// The segment that holds `slot`, or nullptr.
const SegmentRecord* SegmentOver(const Manifest& manifest, Slot slot);

// The last slot that a manifest read before a walk names beyond the walk's `next`: it was reached,
// so what lies between is lost. Nothing newer may have been written meanwhile: the log only grows.
std::optional<Slot> SlotBeyond(const Manifest& manifest, Slot next);

// Whether the log is to be found elsewhere than `planned` said.
bool LogMoved(const Manifest& planned, const Manifest& now);

}  // namespace guildlite
