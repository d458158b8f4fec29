// Objects -> transactions and pages, verified. The strict counterpart of segment_writer: any byte
// may be wrong, and every wrong byte is an error (CHAIN_BROKEN) that names where it was found.
// Length before read, checksum before use, version before meaning (FORMAT_TOO_NEW).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "guildlite/status.h"
#include "vfs/format/segment_format.h"

namespace guildlite {

struct ObjectView {
  ObjectHeader header;
  std::span<const std::byte> inline_body;  // into the bytes given
  std::vector<IndexEntry> index;
  uint64_t object_hash = 0;  // ObjectHash of the whole
};

// Checks header, lengths, index and trailer of a whole object; `name` is for messages.
// `bytes` must outlive the view. WRONG_KEY: the object is encrypted, and this version has no keys.
Result<ObjectView> OpenObject(std::string_view bytes, std::string_view name);

// Header alone, from the first kHeaderReadBytes (or fewer, if the object is shorter) of an object.
// Only a header with a long list of parts is longer; HeaderLength tells how much to read then.
// `state_inside` says that a kData object's txids and state are not in it.
inline constexpr uint64_t kHeaderReadBytes = 4096;
Result<uint64_t> HeaderLength(std::string_view first_bytes, std::string_view name);
Result<ObjectHeader> DecodeHeader(std::string_view first_bytes, std::string_view name);

// The body as a sequence of bytes, so that parts can be fetched one after the other.
class BodySource {
 public:
  virtual ~BodySource() = default;
  // The next bytes, at least one, empty at the end; valid until the next call.
  virtual Result<std::span<const std::byte>> Next() = 0;
};

// A BodySource over bytes in memory.
std::unique_ptr<BodySource> BytesSource(std::span<const std::byte> bytes);

class BatchVisitor {
 public:
  virtual ~BatchVisitor() = default;
  // Fills `out` (page_size) with the page as of right before the block. Only pages marked as having
  // a base are asked for, once a block, before any page of the block is delivered.
  virtual Status ReadBase(Pgno pgno, std::span<std::byte> out) = 0;
  virtual Status OnTransaction(const Transaction& transaction) = 0;
  // The hash is verified against the image. `image` is empty when settings.images is false.
  virtual Status OnPage(Pgno pgno, uint64_t hash, std::span<const std::byte> image) = 0;
  // After the last page of the transaction begun last.
  virtual Status OnTransactionEnd(const Transaction& transaction) = 0;
  // After the last page of each block.
  virtual void OnBlock(const IndexEntry& block) { (void)block; }
  // Asked before each transaction and each block: true stops here, without error (the point in time
  // is reached).
  virtual bool Done() { return false; }
};

// Wants nothing of the pages: for bodies that are read without images.
class MetaVisitor : public BatchVisitor {
 public:
  Status ReadBase(Pgno, std::span<std::byte>) override {
    return Status(Tag::kChainBroken, "a base was asked for without images");
  }
  Status OnTransaction(const Transaction&) override { return Status::Ok(); }
  Status OnPage(Pgno, uint64_t, std::span<const std::byte>) override { return Status::Ok(); }
  Status OnTransactionEnd(const Transaction&) override { return Status::Ok(); }
};

struct DecodeSettings {
  uint32_t page_size = 0;  // 0: whatever the first batch says
  bool images = true;      // false: metas only, no base is read, nothing is decompressed but metas
  bool check_history = true;  // recompute the history hash of each transaction (not for snapshots)
  uint64_t history_before = 0;  // with check_history: after the transaction before the first
};
// Decodes all batches of a body, in order. A page is delivered only after its own hash was
// verified, but the hash of its batch comes last: after an error nothing delivered may be kept,
// unless the bytes were verified before (OpenObject, BodyPart.hash). Stopped by Done(), the rest is
// not looked at.
Status DecodeBody(BodySource& source, const DecodeSettings& settings, BatchVisitor& visitor,
                  std::string_view name);

// Sets txids and state of a header to those of the body's last transaction: what OpenObject does
// for a header with state_inside. Reads metas only.
Status FillState(std::span<const std::byte> body, std::string_view name, ObjectHeader* header);

// The index that a body has, without its images: blocks in order, offsets in the whole body.
Result<std::vector<IndexEntry>> IndexBody(BodySource& source, std::string_view name);

struct BatchSummary {
  uint64_t size = 0;  // encoded bytes of the batch
  uint32_t page_size = 0;
  Txid first_txid;
  Txid last_txid;
};
// Frames a concatenation of sealed batches (a spool file): one summary per whole batch, and where
// the last whole one ends. A torn tail is not an error: it just is not in the list. The list ends
// at the first batch that is not whole or does not match its hash; bytes beyond the sum of the
// sizes are not to be trusted. Memory is a record of the batch, not the batch. FORMAT_TOO_NEW: a
// batch of a later version is in the way.
Result<std::vector<BatchSummary>> ScanBatches(BodySource& source);

}  // namespace guildlite
