// The bytes of every object of the log and of every snapshot: one format, version 1. FORMAT.md is
// its byte table; this file holds the constants and plain structs that writer and reader share.
//
//   object = header | inline body | index | trailer
//   body   = batch*, cut into parts (objects of their own) and the inline body
//   batch  = batch header | block* | end mark
//   block  = meta (transaction headers; page numbers, hashes, base or not; zstd where smaller)
//          | images (one zstd frame, less its header, whose prefix is the bases)
//
// Nothing that follows from other bytes of an object is written: a one-row transaction is 340
// bytes, of which 200 are its pages.
//
// The meta is readable without any base: the spool is re-read, transactions are listed and page
// indexes are built without touching an image. (Not taken: headers inside the images' frame, a few
// bytes smaller, but then nothing can be said about a block whose bases are gone.)
//
// A log object's batches are byte-identical to the sealed batches of the spool, and joining copies
// them unchanged. A snapshot is one batch of one transaction whose blocks have no base pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "guildlite/object_store.h"
#include "guildlite/types.h"
#include "vfs/capture/transaction.h"

namespace guildlite {

inline constexpr uint16_t kFormatVersion = 1;
inline constexpr uint32_t kBlockPagesMax = 256;
inline constexpr uint32_t kBlockBytesMax = 1 << 20;  // of page images; one page at least
inline constexpr uint32_t kSnapshotChunkPages = 64;

// What a reader accepts; a writer may grow up to here without a new version. 16 MiB of images and
// as much of bases make 2^25 bytes: the largest window a decoder has to allow for.
inline constexpr uint32_t kBlockBytesLimit = 16 << 20;
inline constexpr uint32_t kBlockPartsMax = 1024;         // parts of transactions in one block
inline constexpr uint32_t kBlockMetaBytesMax = 1 << 20;  // 32768 pages of 14 bytes, and the parts
inline constexpr uint32_t kPartNameBytesMax = 1024;      // the longest key of S3
inline constexpr uint32_t kHeaderSizeMax = 64 << 20;     // half a million parts

// Marks on the wire.
inline constexpr uint32_t kObjectMagic = 0x474c4f42;  // "GLOB"
inline constexpr size_t kCheckSize = 4;
constexpr uint32_t Check(uint64_t hash64) { return static_cast<uint32_t>(hash64 >> 32); }
inline constexpr size_t kTrailerSize = 8;  // Hash64 of the whole object
inline constexpr uint8_t kBatchMark = 'B';
inline constexpr uint8_t kBlockMark = 'K';
inline constexpr uint8_t kPackedBlockMark = 'Z';  // its meta is a zstd frame
inline constexpr uint8_t kEndMark = 'E';
inline constexpr uint8_t kBatchVersion = 1;  // its own: a spool has no object header around a batch

enum HeaderFlag : uint8_t {
  kHeaderRollingKnown = 1,
  kHeaderStateInside = 2,  // the state is that of the last transaction of the body, and left out
  kHeaderMark = 4,         // the mark follows: it is not all zero
  kHeaderMore = 8,         // the fields that are seldom anything but their defaults follow
  kHeaderFlagsKnown = 15,
};
enum PartFlag : uint8_t {
  kPartBegins = 1,  // the transaction header follows
  kPartEnds = 2,
  kPartTimeEstimated = 4,  // this and the rest but the last: only with kPartBegins
  kPartHeal = 8,
  kPartRollingKnown = 16,
  kPartMarkAbsent = 32,  // the mark is all zero and left out
  kPartOtherSalts = 64,  // two salts follow: not those of the last mark in the batch
  kPartLast = 128,       // of its block
};

enum class ObjectKind : uint8_t {
  kData = 1,       // batches of transactions
  kFence = 2,      // an epoch begins; no body
  kVoid = 3,       // a slot settled as empty; no body
  kUndo = 4,       // the transactions named by its txid range never happened; no body
  kHealBegin = 5,  // from here to the next kHealEnd nothing is a restore point; no body
  kHealEnd = 6,
  kSnapshot = 7,  // pages as of first_txid, usable from last_txid
  kSegment = 8,   // batches of several log slots, copied unchanged
};

// The kinds that only settle something have neither inline body nor parts.
constexpr bool HasBody(ObjectKind kind) {
  return kind == ObjectKind::kData || kind == ObjectKind::kSnapshot ||
         kind == ObjectKind::kSegment || kind == ObjectKind::kHealEnd;
}

enum class Codec : uint8_t { kZstdPrefix = 1 };

// A piece of the body kept in an object of its own, in order, before the inline body.
struct BodyPart {
  std::string name;  // below parts/ or the snapshot's folder
  uint64_t size = 0;
  uint64_t hash = 0;  // Hash64 of its bytes
  bool operator==(const BodyPart&) const = default;
};

struct ObjectHeader {
  ObjectKind kind = ObjectKind::kData;
  Lineage lineage;
  Epoch epoch;
  Session session;              // 0 for kData: its epoch's FENCE says whose it is
  Slot slot;                    // 0 for a snapshot
  Slot last_slot;               // kSegment: the last slot it covers; else equal to slot
  Txid first_txid;              // kData, kSegment: of its transactions; kSnapshot: as of (S)
  Txid last_txid;               // kSnapshot: usable from (E); others without a body: the tip's txid
  int64_t time_ms = 0;          // of last_txid; a FENCE's: when it was made
  uint32_t page_size = 0;       // 0 where no page is inside and none is known yet
  uint32_t database_pages = 0;  // after last_txid
  WalMark mark;                 // of last_txid
  uint64_t history_hash = 0;    // after last_txid
  uint64_t rolling_checksum = 0;  // after last_txid; written as 0 unless rolling_known
  bool rolling_known = false;
  uint64_t previous_hash = 0;  // ObjectHash of the object at slot-1; 0 for slot 1 and snapshots
  uint32_t key_id = 0;         // 0: not encrypted
  Codec codec = Codec::kZstdPrefix;
  Txid continues_from;  // kFence of a rewind: the history goes on from here; else == last_txid
  std::vector<BodyPart> parts;
  // From DecodeHeader alone: txids, time, page size, database pages, mark and both hashes are those
  // of the body's last transaction, and not known before OpenObject has looked there.
  bool state_inside = false;
  bool operator==(const ObjectHeader&) const = default;
};

// One entry a block of the body, in order. Written for snapshots and segments (a reader of single
// pages wants it); log objects leave it out.
struct IndexEntry {
  uint64_t offset = 0;  // of the block in the body (BatchWriter: in its batch)
  uint32_t size = 0;    // of the block
  Pgno first_pgno;      // lowest page in it
  uint32_t pages = 0;
  Txid last_txid;  // of the last transaction that has a part in it
  bool operator==(const IndexEntry&) const = default;
};

}  // namespace guildlite
