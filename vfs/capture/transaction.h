// The noun that travels: what one COMMIT wrote.
//
// Invariants of a transaction, whoever made it (tailer, heal, decoder):
//   1. Every page number is at most database_pages and none is the lock page.
//   2. Every page number occurs once: of several versions in one commit the last wins.
//   3. Pages are in commit order, the order of their (last) frames: neighbours in a b-tree
//      operation stay neighbours, which is what the compressor lives on.
//   4. txid is one more than its predecessor's.
#pragma once

#include <cstdint>
#include <vector>

#include "guildlite/types.h"

namespace guildlite {

struct PageEntry {
  Pgno pgno;
  uint64_t hash = 0;  // PageHash of the image
  bool operator==(const PageEntry&) const = default;
};

struct Transaction {
  Txid txid;
  WalMark mark;                   // of its commit frame; a heal's: of the transaction before it
  int64_t time_ms = 0;            // commit time, unix ms; never less than the predecessor's
  bool time_estimated = false;    // found at open or after a gap
  bool heal = false;              // differences found by a scan, not something one COMMIT wrote
  uint32_t database_pages = 0;    // size of the database after it
  uint32_t free_pages = 0;        // freelist length, page 1 offset 36; carried forward
  uint64_t history_hash = 0;      // after it
  uint64_t rolling_checksum = 0;  // after it; 0 and meaningless unless rolling_known
  bool rolling_known = false;     // unknown: not a restore point
  bool operator==(const Transaction&) const = default;
};

}  // namespace guildlite
