// Log objects -> one segment: their batches, one after the other, not a byte changed.
//
// Joined are neighbours only: DATA objects of one epoch, in consecutive slots, none with parts.
// What settles something (FENCE, VOID, UNDO, HEAL_BEGIN, HEAL_END) stays an object of its own, so
// a segment means what a DATA object with all these transactions would mean.
//
// Not thread-safe. Does no I/O. Holds the segment's body.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "vfs/format/segment_reader.h"

namespace guildlite {

class SegmentMerge {
 public:
  // Whether an object can be joined with others at all; a large one need not be.
  static bool Joinable(const ObjectHeader& header, uint64_t object_bytes, uint64_t bytes_max);

  // Whether a joinable object continues the ones added.
  bool Continues(const ObjectHeader& header) const;
  // REQUIRES: Joinable(); Continues(), or nothing was added.
  void Add(const ObjectView& object);

  uint64_t objects() const { return objects_; }
  uint64_t body_bytes() const { return body_.size(); }
  const ObjectHeader& header() const { return header_; }  // REQUIRES: objects() != 0
  // Of the last object added: what the slot after it names as its predecessor.
  uint64_t last_object_hash() const { return last_object_hash_; }

  // The segment, written by `session`, with its index; empty again afterwards. CHAIN_BROKEN: what
  // was added does not decode.
  Result<std::string> Finish(Session session);

 private:
  ObjectHeader header_;
  std::string body_;
  uint64_t objects_ = 0;
  uint64_t last_object_hash_ = 0;
};

}  // namespace guildlite
