#include "vfs/format/segment_reader.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"
#include "vfs/format/page_codec.h"
#include "vfs/format/page_set.h"

namespace guildlite {
namespace {

using Span = std::span<const std::byte>;

constexpr uint64_t kU32Max = 0xffffffffu;

std::string Text(std::string_view s) { return std::string(s); }
std::string Text(uint64_t n) { return std::to_string(n); }

Status Broken(std::string_view name, const std::string& what) {
  return {Tag::kChainBroken, Text(name) + ": " + what};
}

Status TooNew(std::string_view name, const std::string& what) {
  return {Tag::kFormatTooNew,
          Text(name) + ": " + what + "; it was written by a newer guildlite: upgrade this one"};
}

uint64_t Delta(Cursor& c, uint64_t reference) {
  return reference + static_cast<uint64_t>(c.SignedVarint());
}

// Numbers of the file that become uint32_t: the first one that does not fit is remembered.
class Narrow {
 public:
  uint32_t U32(uint64_t value, const char* field) {
    if (value > kU32Max && failed_ == nullptr) failed_ = field;
    return static_cast<uint32_t>(value);
  }
  const char* failed() const { return failed_; }

 private:
  const char* failed_ = nullptr;
};

// 0 means none; anything else but 9..16 is no page size.
std::optional<uint32_t> PageSizeOf(uint8_t log) {
  if (log == 0) return 0;
  if (log < 9 || log > 16) return std::nullopt;
  return uint32_t{1} << log;
}

}  // namespace

// ---- Objects ----------------------------------------------------------------------------------

Result<uint64_t> HeaderLength(std::string_view first_bytes, std::string_view name) {
  Cursor c(AsBytes(first_bytes));
  const uint32_t magic = c.Big32();
  const uint8_t version = c.U8();
  if (c.failed()) {
    return Broken(name, "header: cut short, " + Text(first_bytes.size()) + " bytes are there");
  }
  if (magic != kObjectMagic) return Broken(name, "header magic: this is no guildlite object");
  if (version > kFormatVersion) {
    return TooNew(
        name, "header version: format " + Text(version) + ", known up to " + Text(kFormatVersion));
  }
  if (version == 0) return Broken(name, "header version: 0");
  const uint64_t length = c.Varint();
  if (c.failed() || length <= kCheckSize || length > kHeaderSizeMax) {
    return Broken(name, "header length: " + Text(length) + " after " + Text(first_bytes.size()) +
                            " bytes that are there");
  }
  return c.offset() + length;
}

namespace {

WalMark ReadMark(Cursor& c, Narrow* narrow) {
  WalMark mark;
  mark.salt1 = c.Big32();
  mark.salt2 = c.Big32();
  mark.frame = narrow->U32(c.Varint(), "mark frame");
  mark.cksum1 = c.Big32();
  mark.cksum2 = c.Big32();
  return mark;
}

struct DecodedHeader {
  ObjectHeader header;
  uint64_t length = 0;
  uint64_t index_length = 0;
};

Result<DecodedHeader> ParseHeader(std::string_view first_bytes, std::string_view name) {
  const Result<uint64_t> length = HeaderLength(first_bytes, name);
  if (!length.ok()) return length.status();
  if (*length > first_bytes.size()) {
    return Broken(name, "header length: " + Text(*length) + ", only " + Text(first_bytes.size()) +
                            " bytes are there");
  }
  const Span checked = AsBytes(first_bytes.substr(0, *length - kCheckSize));
  if (LoadBig32(first_bytes.data() + checked.size()) != Check(Hash64(checked))) {
    return Broken(name, "header checksum: does not match");
  }

  Cursor c(checked);
  c.Take(5);  // magic, version
  c.Varint();
  Narrow narrow;
  DecodedHeader decoded{.length = *length};
  ObjectHeader& h = decoded.header;
  const uint8_t codec_and_kind = c.U8();
  const uint8_t flags = c.U8();
  // What the checksum vouches for and we do not know can only come from a later writer.
  const uint8_t kind = codec_and_kind & 15;
  const uint8_t codec = codec_and_kind >> 4;
  if (kind < static_cast<uint8_t>(ObjectKind::kData) ||
      kind > static_cast<uint8_t>(ObjectKind::kSegment)) {
    return TooNew(name, "header kind: " + Text(kind) + " is unknown");
  }
  if ((flags & ~kHeaderFlagsKnown) != 0) {
    return TooNew(name, "header flags: " + Text(flags) + " has unknown bits");
  }
  if (codec != static_cast<uint8_t>(Codec::kZstdPrefix)) {
    return TooNew(name, "header codec: " + Text(codec) + " is unknown");
  }
  h.kind = static_cast<ObjectKind>(kind);
  h.codec = static_cast<Codec>(codec);
  h.state_inside = (flags & kHeaderStateInside) != 0;
  h.rolling_known = (flags & kHeaderRollingKnown) != 0;
  if (h.state_inside && (flags != kHeaderStateInside || h.kind != ObjectKind::kData)) {
    return Broken(name, "header flags: " + Text(flags) + " for kind " + Text(kind));
  }
  h.lineage = Lineage(c.Big64());
  if (h.kind != ObjectKind::kData) h.session = Session(c.Big64());
  h.previous_hash = c.Big64();
  h.epoch = Epoch(narrow.U32(c.Varint(), "epoch"));
  h.slot = h.last_slot = Slot(c.Varint());
  if (!h.state_inside) {
    const uint8_t page_size_log = c.U8();
    const std::optional<uint32_t> page_size = PageSizeOf(page_size_log);
    if (!page_size) {
      return Broken(name, "header page size: 2^" + Text(page_size_log) + " is none");
    }
    h.page_size = *page_size;
    h.first_txid = Txid(c.Varint());
    h.last_txid = h.continues_from = Txid(Delta(c, h.first_txid.value));
    h.time_ms = c.SignedVarint();
    h.database_pages = narrow.U32(c.Varint(), "database pages");
    if ((flags & kHeaderMark) != 0) h.mark = ReadMark(c, &narrow);
    h.history_hash = c.Big64();
    if (h.rolling_known) h.rolling_checksum = c.Big64();
  }
  uint64_t part_count = 0;
  if ((flags & kHeaderMore) != 0) {
    h.last_slot = Slot(Delta(c, h.slot.value));
    h.continues_from = Txid(Delta(c, h.last_txid.value));
    h.key_id = narrow.U32(c.Varint(), "key id");
    decoded.index_length = c.Varint();
    part_count = c.Varint();
  }
  if (c.failed()) return Broken(name, "header: ends inside its fields");
  if (narrow.failed() != nullptr) {
    return Broken(name, "header " + Text(narrow.failed()) + ": more than 32 bits");
  }
  // A part takes at least 11 bytes: a count that cannot be there reserves nothing.
  if (part_count > c.remaining() / 11) {
    return Broken(name, "header parts: " + Text(part_count) + " of them do not fit");
  }
  h.parts.reserve(part_count);
  uint64_t total = 0;
  for (uint64_t i = 0; i < part_count; ++i) {
    BodyPart part;
    const uint64_t name_size = c.Varint();
    if (name_size == 0 || name_size > kPartNameBytesMax) {
      return Broken(name, "header part " + Text(i) + ": a name of " + Text(name_size) + " bytes");
    }
    part.name = AsText(c.Take(name_size));
    part.size = c.Varint();
    part.hash = c.Big64();
    if (c.failed()) return Broken(name, "header part " + Text(i) + ": cut short");
    total += part.size;
    if (part.size == 0 || total < part.size) {
      return Broken(name, "header part " + Text(i) + ": a size of " + Text(part.size));
    }
    h.parts.push_back(std::move(part));
  }
  if (c.remaining() != 0) {
    return Broken(name, "header: " + Text(c.remaining()) + " bytes after its last field");
  }
  if (!HasBody(h.kind) && !h.parts.empty()) {
    return Broken(name, "header parts: an object of kind " + Text(kind) + " has none");
  }
  return decoded;
}

}  // namespace

Result<ObjectHeader> DecodeHeader(std::string_view first_bytes, std::string_view name) {
  Result<DecodedHeader> decoded = ParseHeader(first_bytes, name);
  if (!decoded.ok()) return decoded.status();
  return std::move(decoded->header);
}

namespace {

Result<std::vector<IndexEntry>> DecodeIndex(Span bytes, uint64_t body_size, std::string_view name) {
  std::vector<IndexEntry> index;
  if (bytes.empty()) return index;
  Cursor c(bytes);
  const uint64_t count = c.Varint();
  if (count == 0 || count > c.remaining() / 5) {
    return Broken(name, "index: " + Text(count) + " entries in " + Text(bytes.size()) + " bytes");
  }
  index.reserve(count);
  IndexEntry last;
  for (uint64_t i = 0; i < count; ++i) {
    const std::string where = "index entry " + Text(i) + ": ";
    Narrow narrow;
    IndexEntry e;
    const uint64_t start = last.offset + last.size;  // <= body_size
    const uint64_t gap = c.Varint();
    e.size = narrow.U32(c.Varint(), "size");
    e.first_pgno = Pgno(narrow.U32(Delta(c, last.first_pgno.value), "first page"));
    e.pages = narrow.U32(c.Varint(), "pages");
    e.last_txid = Txid(Delta(c, last.last_txid.value));
    if (c.failed()) return Broken(name, where + "cut short");
    if (narrow.failed() != nullptr) {
      return Broken(name, where + Text(narrow.failed()) + " has more than 32 bits");
    }
    if (gap > body_size - start || e.size > body_size - start - gap) {
      return Broken(name,
                    where + "the block ends beyond the body of " + Text(body_size) + " bytes");
    }
    e.offset = start + gap;
    index.push_back(e);
    last = e;
  }
  if (c.remaining() != 0) {
    return Broken(name, "index: " + Text(c.remaining()) + " bytes after its last entry");
  }
  return index;
}

}  // namespace

Result<ObjectView> OpenObject(std::string_view bytes, std::string_view name) {
  Result<DecodedHeader> decoded = ParseHeader(bytes, name);
  if (!decoded.ok()) return decoded.status();
  ObjectHeader& header = decoded->header;
  const size_t after_header = bytes.size() - decoded->length;
  if (after_header < kTrailerSize || decoded->index_length > after_header - kTrailerSize) {
    return Broken(name, "trailer: cut short, " + Text(after_header) + " bytes follow the header");
  }
  const size_t trailer = bytes.size() - kTrailerSize;
  const uint64_t hash = LoadBig64(bytes.data() + trailer);
  if (hash != Hash64(AsBytes(bytes.substr(0, trailer)))) {
    return Broken(name,
                  "trailer checksum: does not match header, body and index, or is not at "
                  "the end of the " +
                      Text(bytes.size()) + " bytes that are there");
  }
  const size_t index_length = decoded->index_length;
  const size_t body_length = trailer - decoded->length - index_length;
  if (!HasBody(header.kind) && (body_length > 0 || index_length > 0)) {
    return Broken(
        name, "body: an object of kind " + Text(static_cast<uint64_t>(header.kind)) + " has none");
  }
  if (header.key_id != 0) {
    return Status(Tag::kWrongKey, Text(name) + ": encrypted with key " + Text(header.key_id) +
                                      ", and none is given");
  }
  uint64_t body_size = body_length;
  for (const BodyPart& part : header.parts) body_size += part.size;
  Result<std::vector<IndexEntry>> index =
      DecodeIndex(AsBytes(bytes.substr(trailer - index_length, index_length)), body_size, name);
  if (!index.ok()) return index.status();

  ObjectView view;
  view.inline_body = AsBytes(bytes.substr(decoded->length, body_length));
  if (header.state_inside) {
    GUILDLITE_RETURN_IF_ERROR(FillState(view.inline_body, name, &header));
    header.state_inside = false;
  }
  view.header = std::move(header);
  view.index = *std::move(index);
  view.object_hash = hash;
  return view;
}

// ---- Bodies -----------------------------------------------------------------------------------

namespace {

class BytesBodySource final : public BodySource {
 public:
  explicit BytesBodySource(Span bytes) : bytes_(bytes) {}
  Result<Span> Next() override { return std::exchange(bytes_, {}); }

 private:
  Span bytes_;
};

// A BodySource as a sequence of records; every byte taken goes into the batch's hash.
class BodyStream {
 public:
  explicit BodyStream(BodySource& source) : source_(source) {}

  RunningHash& hash() { return hash_; }
  uint64_t offset() const { return offset_; }

  Result<bool> AtEnd() {
    GUILDLITE_RETURN_IF_ERROR(Fill());
    return chunk_.empty();
  }

  // Exactly n bytes, valid until the next call. Nothing, without an error, when the body ends
  // before: the caller knows what was expected there.
  Result<std::optional<Span>> Take(size_t n) {
    GUILDLITE_RETURN_IF_ERROR(Fill());
    if (n <= chunk_.size()) return std::optional<Span>(Advance(n));
    gathered_.clear();
    while (gathered_.size() < n) {
      GUILDLITE_RETURN_IF_ERROR(Fill());
      if (chunk_.empty()) return std::optional<Span>();
      const Span piece = Advance(std::min(n - gathered_.size(), chunk_.size()));
      gathered_.insert(gathered_.end(), piece.begin(), piece.end());
    }
    return std::optional<Span>(Span(gathered_));
  }

  Result<std::optional<uint64_t>> Varint() {
    std::byte bytes[10];
    for (size_t n = 0; n < sizeof bytes;) {
      const Result<std::optional<Span>> next = Take(1);
      if (!next.ok()) return next.status();
      if (!*next) break;
      bytes[n++] = (**next)[0];
      if (static_cast<uint8_t>(bytes[n - 1]) < 0x80) {
        Cursor c(Span(bytes, n));
        const uint64_t value = c.Varint();
        if (c.failed()) break;
        return std::optional<uint64_t>(value);
      }
    }
    return std::optional<uint64_t>();
  }

 private:
  Status Fill() {
    if (!chunk_.empty() || ended_) return Status::Ok();
    const Result<Span> next = source_.Next();
    if (!next.ok()) return next.status();
    chunk_ = *next;
    ended_ = chunk_.empty();
    return Status::Ok();
  }

  Span Advance(size_t n) {
    const Span piece = chunk_.first(n);
    chunk_ = chunk_.subspan(n);
    offset_ += n;
    hash_.Update(piece);
    return piece;
  }

  BodySource& source_;
  Span chunk_;
  bool ended_ = false;
  std::vector<std::byte> gathered_;
  uint64_t offset_ = 0;
  RunningHash hash_;
};

struct PageRecord {
  Pgno pgno;
  uint64_t hash = 0;
  bool has_base = false;
};

// What of one transaction is in one block.
struct Part {
  bool begins = false;
  bool ends = false;
  Transaction transaction;
  size_t first_page = 0;  // in BlockMeta::pages
  size_t pages = 0;
};

struct BlockMeta {
  std::vector<Part> parts;
  std::vector<PageRecord> pages;
};

class BodyDecoder {
 public:
  BodyDecoder(BodySource& source, const DecodeSettings& settings, BatchVisitor& visitor,
              std::string_view name)
      : stream_(source), settings_(settings), visitor_(visitor), name_(name) {}

  Status Run() {
    while (!stopped_) {
      if (batch_ > 0 && visitor_.Done()) break;  // or the source would fetch a part for nothing
      const Result<bool> at_end = stream_.AtEnd();
      if (!at_end.ok()) return at_end.status();
      if (*at_end) return Status::Ok();
      GUILDLITE_RETURN_IF_ERROR(DecodeBatch());
      ++batch_;
    }
    return Status::Ok();
  }

 private:
  std::string Where() const {
    std::string where = "batch " + Text(batch_);
    if (in_block_) where += " block " + Text(block_);
    return where + " (up to body offset " + Text(stream_.offset()) + ")";
  }
  Status Damaged(const std::string& what) const { return Broken(name_, Where() + ": " + what); }
  Status DamagedIn(const Part& part, const std::string& what) const {
    return Damaged("transaction " + Text(part.transaction.txid.value) + ": " + what);
  }

  Result<Span> Take(size_t n, const char* what) {
    Result<std::optional<Span>> bytes = stream_.Take(n);
    if (!bytes.ok()) return bytes.status();
    if (!*bytes) return Damaged(Text(what) + ": cut short");
    return **bytes;
  }
  Result<uint64_t> TakeVarint(const char* what) {
    const Result<std::optional<uint64_t>> value = stream_.Varint();
    if (!value.ok()) return value.status();
    if (!*value) return Damaged(Text(what) + ": not a number");
    return **value;
  }

  Status DecodeBatch();
  Status DecodeBlock(bool packed);
  Status DecodeEnd();
  Status ParseMeta(Span bytes, BlockMeta* meta);
  Status ParseTransaction(Cursor& c, uint8_t flags, Transaction* transaction);
  Status DecodeImages(const BlockMeta& meta, Span frame);
  Status Deliver(const BlockMeta& meta);

  BodyStream stream_;
  const DecodeSettings& settings_;
  BatchVisitor& visitor_;
  const std::string_view name_;
  PageDecoder decoder_;
  bool stopped_ = false;

  uint64_t batch_ = 0;
  uint32_t page_size_ = 0;
  uint64_t batch_transactions_ = 0;
  uint32_t salt1_ = 0, salt2_ = 0;
  std::optional<Txid> last_txid_;  // parsed; the next transaction's is one more
  // As parsed, which is ahead of what was delivered. `mark` is the last one that was not absent.
  Transaction last_;
  bool transaction_open_ = false;
  PageSet transaction_pages_;

  uint64_t block_ = 0;
  bool in_block_ = false;
  std::vector<std::byte> meta_bytes_, prefix_, images_;

  // As delivered.
  std::optional<HistoryHash> history_;
  uint64_t history_before_ = 0;
  Transaction delivered_;

 public:
  void set_history_before(uint64_t hash) { history_before_ = hash; }
};

Status BodyDecoder::DecodeBatch() {
  in_block_ = false;
  block_ = 0;
  batch_transactions_ = 0;
  stream_.hash().Reset();
  const Result<Span> head = Take(10, "batch header");
  if (!head.ok()) return head.status();
  Cursor c(*head);
  if (c.U8() != kBatchMark) return Damaged("batch header: no batch begins here");
  const uint8_t version_and_size = c.U8();
  const uint8_t version = version_and_size >> 4;
  if (version > kBatchVersion) {
    return TooNew(name_, Where() + ": batch version " + Text(version) + ", known up to " +
                             Text(kBatchVersion));
  }
  if (version == 0) return Damaged("batch header: version 0");
  const std::optional<uint32_t> page_size = PageSizeOf(8 + (version_and_size & 15));
  if (!page_size) return Damaged("batch header: no page size");
  if (page_size_ == 0) page_size_ = settings_.page_size == 0 ? *page_size : settings_.page_size;
  if (*page_size != page_size_) {
    return Damaged("batch header: page size " + Text(*page_size) + " instead of " +
                   Text(page_size_));
  }
  salt1_ = c.Big32();
  salt2_ = c.Big32();
  const Result<uint64_t> first_txid = TakeVarint("batch header first txid");
  if (!first_txid.ok()) return first_txid.status();
  const Result<uint64_t> time = TakeVarint("batch header time");
  if (!time.ok()) return time.status();
  if (last_txid_ && last_txid_->Next() != Txid(*first_txid)) {
    return Damaged("batch header: begins with transaction " + Text(*first_txid) + " after " +
                   Text(last_txid_->value));
  }
  last_ = Transaction{.txid = Txid(*first_txid - 1), .time_ms = UnZigZag(*time)};

  for (;;) {
    in_block_ = false;
    const Result<Span> mark = Take(1, "block or end mark");
    if (!mark.ok()) return mark.status();
    const uint8_t record = static_cast<uint8_t>((*mark)[0]);
    if (record == kEndMark) return DecodeEnd();
    if (record != kBlockMark && record != kPackedBlockMark) {
      return Damaged("neither a block nor the end of the batch follows");
    }
    in_block_ = true;
    GUILDLITE_RETURN_IF_ERROR(DecodeBlock(record == kPackedBlockMark));
    if (stopped_) return Status::Ok();
    ++block_;
  }
}

Status BodyDecoder::DecodeEnd() {
  const Result<uint64_t> count = TakeVarint("end mark transaction count");
  if (!count.ok()) return count.status();
  const uint64_t digest = stream_.hash().Digest();
  const Result<Span> hash = Take(kCheckSize, "end mark hash");
  if (!hash.ok()) return hash.status();
  if (LoadBig32(hash->data()) != Check(digest)) {
    return Damaged("end mark hash: does not match the batch");
  }
  if (transaction_open_) {
    return Damaged("end mark: transaction " + Text(last_.txid.value) + " has no end");
  }
  if (*count == 0 || *count != batch_transactions_) {
    return Damaged("end mark: " + Text(*count) + " transactions, found " +
                   Text(batch_transactions_) + " up to " + Text(last_.txid.value));
  }
  return Status::Ok();
}

Status BodyDecoder::DecodeBlock(bool packed) {
  if (visitor_.Done()) {
    stopped_ = true;
    return Status::Ok();
  }
  const uint64_t begin = stream_.offset() - 1;  // its mark
  const Result<uint64_t> raw = TakeVarint("meta length");
  if (!raw.ok()) return raw.status();
  Result<uint64_t> stored = *raw;
  if (packed) stored = TakeVarint("stored meta length");
  if (!stored.ok()) return stored.status();
  const Result<uint64_t> frame_length = TakeVarint("images length");
  if (!frame_length.ok()) return frame_length.status();
  if (*raw == 0 || *raw > kBlockMetaBytesMax || *stored > *raw) {
    return Damaged("meta length: " + Text(*stored) + " bytes for " + Text(*raw) + ", at most " +
                   Text(kBlockMetaBytesMax));
  }
  const Result<Span> meta_stored = Take(*stored, "meta");
  if (!meta_stored.ok()) return meta_stored.status();
  Span meta_bytes = *meta_stored;
  if (packed) {
    meta_bytes_.resize(*raw);
    if (!decoder_.DecodeMeta(meta_bytes, meta_bytes_)) return Damaged("meta: does not decompress");
    meta_bytes = meta_bytes_;
  }
  BlockMeta meta;
  GUILDLITE_RETURN_IF_ERROR(ParseMeta(meta_bytes, &meta));

  // ParseMeta has bounded the pages, so this bounds the frame.
  const size_t images_size = meta.pages.size() * page_size_;
  if ((*frame_length == 0) != meta.pages.empty() ||
      *frame_length > PageDecoder::FrameSizeMax(images_size)) {
    return Damaged("images length: " + Text(*frame_length) + " bytes for " +
                   Text(meta.pages.size()) + " pages");
  }
  const Result<Span> frame = Take(*frame_length, "images");
  if (!frame.ok()) return frame.status();
  if (settings_.images && !meta.pages.empty()) {
    GUILDLITE_RETURN_IF_ERROR(DecodeImages(meta, *frame));
  }
  IndexEntry entry{.offset = begin, .size = static_cast<uint32_t>(stream_.offset() - begin)};
  for (const PageRecord& page : meta.pages) {
    if (entry.pages++ == 0 || page.pgno < entry.first_pgno) entry.first_pgno = page.pgno;
  }
  entry.last_txid = last_.txid;
  GUILDLITE_RETURN_IF_ERROR(Deliver(meta));
  visitor_.OnBlock(entry);
  return Status::Ok();
}

Status BodyDecoder::ParseTransaction(Cursor& c, uint8_t flags, Transaction* transaction) {
  Narrow narrow;
  Transaction t;
  t.txid = last_.txid.Next();
  t.time_estimated = (flags & kPartTimeEstimated) != 0;
  t.heal = (flags & kPartHeal) != 0;
  t.rolling_known = (flags & kPartRollingKnown) != 0;
  const uint64_t elapsed = batch_transactions_ == 0 ? 0 : c.Varint();
  WalMark mark = last_.mark;
  if ((flags & kPartMarkAbsent) == 0) {
    if ((flags & kPartOtherSalts) != 0) {
      salt1_ = c.Big32();
      salt2_ = c.Big32();
    }
    mark.salt1 = salt1_;
    mark.salt2 = salt2_;
    mark.frame = narrow.U32(Delta(c, mark.frame), "mark frame");
    mark.cksum1 = c.Big32();
    mark.cksum2 = c.Big32();
    t.mark = mark;
  }
  t.database_pages = narrow.U32(Delta(c, last_.database_pages), "database pages");
  t.free_pages = narrow.U32(Delta(c, last_.free_pages), "free pages");
  t.history_hash = c.Big64();
  if (t.rolling_known) t.rolling_checksum = c.Big64();
  const Part at{.begins = true, .transaction = t};
  if (c.failed()) return DamagedIn(at, "header cut short");
  if (narrow.failed() != nullptr) {
    return DamagedIn(at, Text(narrow.failed()) + " has more than 32 bits");
  }
  // Both differences modulo 2^64: the distance from last_.time_ms to the largest time is exact.
  if (elapsed > static_cast<uint64_t>(INT64_MAX) - static_cast<uint64_t>(last_.time_ms)) {
    return DamagedIn(at, "time beyond all times");
  }
  t.time_ms = static_cast<int64_t>(static_cast<uint64_t>(last_.time_ms) + elapsed);
  last_ = t;
  last_.mark = mark;
  *transaction = t;
  return Status::Ok();
}

Status BodyDecoder::ParseMeta(Span bytes, BlockMeta* meta) {
  Cursor c(bytes);
  const uint32_t pages_max = kBlockBytesLimit / page_size_;
  const Pgno lock_page = LockPage(page_size_);
  PageSet in_block;
  uint32_t previous = 0;
  for (bool last = false; !last;) {
    const uint8_t flags = c.U8();
    last = (flags & kPartLast) != 0;
    Part part;
    part.begins = (flags & kPartBegins) != 0;
    part.ends = (flags & kPartEnds) != 0;
    const std::string where = "meta part " + Text(meta->parts.size()) + ": ";
    if (c.failed()) return Damaged(where + "cut short");
    if (meta->parts.size() == kBlockPartsMax) return Damaged(where + "more parts than a block has");
    if (part.begins == transaction_open_) {
      return Damaged(where +
                     (part.begins ? "a transaction begins inside transaction "
                                  : "nothing to continue after transaction ") +
                     Text(last_.txid.value));
    }
    if ((!part.begins && (flags & ~(kPartEnds | kPartLast)) != 0) ||
        ((flags & kPartMarkAbsent) != 0 && (flags & kPartOtherSalts) != 0)) {
      return Damaged(where + "flags " + Text(flags));
    }
    if (part.begins) {
      GUILDLITE_RETURN_IF_ERROR(ParseTransaction(c, flags, &part.transaction));
      last_txid_ = last_.txid;
      ++batch_transactions_;
      transaction_pages_.Clear();
    } else {
      part.transaction = last_;
    }
    const uint64_t pages = c.Varint();
    part.first_page = meta->pages.size();
    part.pages = pages;
    // A page takes at least 9 bytes: a count that cannot be there reserves nothing.
    if (c.failed() || pages > c.remaining() / 9 || pages > pages_max - part.first_page) {
      return DamagedIn(part, Text(pages) + " pages do not fit into its block");
    }
    meta->pages.resize(part.first_page + pages);
    const std::span<PageRecord> records = std::span(meta->pages).subspan(part.first_page);
    for (PageRecord& record : records) {
      const uint64_t coded = c.Varint();
      record.has_base = (coded & 1) != 0;
      const uint64_t number = uint64_t{previous} + static_cast<uint64_t>(UnZigZag(coded >> 1));
      if (c.failed()) return DamagedIn(part, "page numbers cut short");
      if (number == 0 || number > part.transaction.database_pages) {
        return DamagedIn(part, "page " + Text(number) + " of a database of " +
                                   Text(part.transaction.database_pages) + " pages");
      }
      previous = static_cast<uint32_t>(number);
      record.pgno = Pgno(previous);
      if (record.pgno == lock_page) {
        return DamagedIn(part, "page " + Text(number) + " is the lock page");
      }
      if (!transaction_pages_.Insert(record.pgno)) {
        return DamagedIn(part, "page " + Text(number) + " comes twice");
      }
      if (!in_block.Insert(record.pgno) && record.has_base) {
        return DamagedIn(
            part, "page " + Text(number) + " has a base although the block has a version of it");
      }
    }
    for (PageRecord& record : records) record.hash = c.Big64();
    if (c.failed()) return DamagedIn(part, "page hashes cut short");
    transaction_open_ = !part.ends;
    meta->parts.push_back(part);
  }
  if (c.remaining() != 0) {
    return Damaged("meta: " + Text(c.remaining()) + " bytes after its last part");
  }
  return Status::Ok();
}

Status BodyDecoder::DecodeImages(const BlockMeta& meta, Span frame) {
  prefix_.clear();
  for (const PageRecord& page : meta.pages) {
    if (!page.has_base) continue;
    const size_t before = prefix_.size();
    prefix_.resize(before + page_size_);
    GUILDLITE_RETURN_IF_ERROR(
        visitor_.ReadBase(page.pgno, std::span(prefix_).subspan(before, page_size_)));
  }
  images_.resize(meta.pages.size() * page_size_);
  if (!decoder_.DecodeImages(frame, prefix_, images_)) {
    return DamagedIn(meta.parts.front(),
                     "images: do not decompress: damaged, or a base is not the version before");
  }
  for (const Part& part : meta.parts) {
    for (size_t i = part.first_page; i < part.first_page + part.pages; ++i) {
      const PageRecord& page = meta.pages[i];
      if (PageHash(page.pgno, Span(images_).subspan(i * page_size_, page_size_)) != page.hash) {
        return DamagedIn(part, "page " + Text(page.pgno.value) +
                                   ": does not match its hash: damaged, or a base is not the "
                                   "version before");
      }
    }
  }
  return Status::Ok();
}

Status BodyDecoder::Deliver(const BlockMeta& meta) {
  for (const Part& part : meta.parts) {
    if (part.begins) {
      if (visitor_.Done()) {
        stopped_ = true;
        return Status::Ok();
      }
      delivered_ = part.transaction;
      if (settings_.check_history) {
        history_.emplace(history_before_, delivered_.txid, delivered_.database_pages);
      }
      GUILDLITE_RETURN_IF_ERROR(visitor_.OnTransaction(delivered_));
    }
    for (size_t i = part.first_page; i < part.first_page + part.pages; ++i) {
      const PageRecord& page = meta.pages[i];
      Span image;
      if (settings_.images) image = Span(images_).subspan(i * page_size_, page_size_);
      if (history_) history_->Add(page.pgno, page.hash);
      GUILDLITE_RETURN_IF_ERROR(visitor_.OnPage(page.pgno, page.hash, image));
    }
    if (!part.ends) continue;
    if (history_) {
      history_before_ = history_->Finish();
      history_.reset();
      if (history_before_ != delivered_.history_hash) {
        return DamagedIn(part, "its history hash does not follow from its predecessor's");
      }
    }
    GUILDLITE_RETURN_IF_ERROR(visitor_.OnTransactionEnd(delivered_));
  }
  return Status::Ok();
}

}  // namespace

std::unique_ptr<BodySource> BytesSource(std::span<const std::byte> bytes) {
  return std::make_unique<BytesBodySource>(bytes);
}

Status DecodeBody(BodySource& source, const DecodeSettings& settings, BatchVisitor& visitor,
                  std::string_view name) {
  assert(settings.page_size == 0 || IsValidPageSize(settings.page_size));
  BodyDecoder decoder(source, settings, visitor, name);
  decoder.set_history_before(settings.history_before);
  return decoder.Run();
}

namespace {

class IndexVisitor final : public MetaVisitor {
 public:
  void OnBlock(const IndexEntry& block) override { index.push_back(block); }
  std::vector<IndexEntry> index;
};

// The first txid and the last transaction of a body.
class EndsVisitor final : public MetaVisitor {
 public:
  Status OnTransaction(const Transaction& transaction) override {
    if (!first) first = transaction.txid;
    last = transaction;
    return Status::Ok();
  }

  std::optional<Txid> first;
  Transaction last;
};

}  // namespace

Status FillState(std::span<const std::byte> body, std::string_view name, ObjectHeader* header) {
  EndsVisitor ends;
  GUILDLITE_RETURN_IF_ERROR(
      DecodeBody(*BytesSource(body), {.images = false, .check_history = false}, ends, name));
  if (!ends.first) return Broken(name, "body: empty, and the header leaves the state to it");
  ObjectHeader& h = *header;
  h.first_txid = *ends.first;
  h.last_txid = h.continues_from = ends.last.txid;
  h.time_ms = ends.last.time_ms;
  h.page_size = uint32_t{1} << (8 + (static_cast<uint8_t>(body[1]) & 15));
  h.database_pages = ends.last.database_pages;
  h.mark = ends.last.mark;
  h.history_hash = ends.last.history_hash;
  h.rolling_checksum = ends.last.rolling_checksum;
  h.rolling_known = ends.last.rolling_known;
  return Status::Ok();
}

Result<std::vector<IndexEntry>> IndexBody(BodySource& source, std::string_view name) {
  IndexVisitor visitor;
  GUILDLITE_RETURN_IF_ERROR(
      DecodeBody(source, {.images = false, .check_history = false}, visitor, name));
  return std::move(visitor.index);
}

// ---- Spool files ------------------------------------------------------------------------------

Result<std::vector<BatchSummary>> ScanBatches(BodySource& source) {
  std::vector<BatchSummary> batches;
  BodyStream stream(source);
  Status failed;  // of the source
  bool cut = false;
  const auto take = [&](uint64_t n) -> Span {
    if (cut) return {};
    auto bytes = stream.Take(n);
    if (!bytes.ok()) failed = bytes.status();
    cut = !bytes.ok() || !*bytes;
    return cut ? Span() : **bytes;
  };
  const auto varint = [&]() -> uint64_t {
    if (cut) return 0;
    auto value = stream.Varint();
    if (!value.ok()) failed = value.status();
    cut = !value.ok() || !*value;
    return cut ? 0 : **value;
  };
  for (;;) {
    const uint64_t start = stream.offset();
    stream.hash().Reset();
    const Span head = take(2 + 8);  // mark, version and page size, salts
    if (cut) break;
    BatchSummary batch;
    if (static_cast<uint8_t>(head[0]) != kBatchMark) break;
    const uint8_t version_and_size = static_cast<uint8_t>(head[1]);
    const uint8_t version = version_and_size >> 4;
    if (version > kBatchVersion) {
      return TooNew("spool offset " + Text(start),
                    "batch version " + Text(version) + ", known up to " + Text(kBatchVersion));
    }
    const std::optional<uint32_t> page_size = PageSizeOf(8 + (version_and_size & 15));
    if (version == 0 || !page_size) break;
    batch.page_size = *page_size;
    batch.first_txid = Txid(varint());
    varint();  // time
    const auto is_block = [](Span record) {
      const uint8_t mark = static_cast<uint8_t>(record[0]);
      return mark == kBlockMark || mark == kPackedBlockMark;
    };
    Span record = take(1);
    for (; !cut && is_block(record); record = take(1)) {
      const bool packed = static_cast<uint8_t>(record[0]) == kPackedBlockMark;
      uint64_t size = varint();
      if (packed) size = varint();
      size += varint();
      while (size > 0 && !cut) {  // in pieces: nothing has vouched for the size yet
        const uint64_t piece = std::min<uint64_t>(size, 1 << 16);
        take(piece);
        size -= piece;
      }
    }
    if (cut || static_cast<uint8_t>(record[0]) != kEndMark) break;
    const uint64_t count = varint();
    const uint32_t digest = Check(stream.hash().Digest());
    const Span check = take(4);
    if (cut || LoadBig32(check.data()) != digest) break;
    if (count == 0) break;
    batch.last_txid = Txid(batch.first_txid.value + (count - 1));
    batch.size = stream.offset() - start;
    batches.push_back(batch);
  }
  if (!failed.ok()) return failed;
  return batches;
}

}  // namespace guildlite
