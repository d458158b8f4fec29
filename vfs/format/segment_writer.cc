#include "vfs/format/segment_writer.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <utility>

#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"
#include "vfs/format/page_codec.h"
#include "vfs/format/page_set.h"
#include "vfs/format/segment_reader.h"

namespace guildlite {
namespace {

uint8_t PageSizeLog(uint32_t page_size) {
  return page_size == 0 ? 0 : static_cast<uint8_t>(std::countr_zero(page_size));
}

// Differences of numbers of any size: modulo 2^64, so that every value survives.
void PutDelta(std::string* out, uint64_t value, uint64_t reference) {
  PutVarint(out, ZigZag(static_cast<int64_t>(value - reference)));
}

struct PageRecord {
  Pgno pgno;
  uint64_t hash = 0;
  bool has_base = false;
};

// What of a transaction is in one block.
struct Part {
  Txid txid;
  std::string header;  // empty unless it begins here
  uint8_t flags = 0;
  std::vector<PageRecord> pages;
};

}  // namespace

struct BatchWriter::Impl {
  explicit Impl(const Settings& s) : settings(s), encoder(s.level) {
    assert(IsValidPageSize(s.page_size));
    assert(s.block_pages_max > 0);
    assert(s.block_bytes_max >= s.page_size && s.block_bytes_max <= kBlockBytesLimit);
  }

  // Whether the next page, or the end of a transaction without pages, needs another block.
  bool BlockFull(bool page) const {
    return (!part_open && parts.size() >= kBlockPartsMax) ||
           (page && (block_pages >= settings.block_pages_max ||
                     images.size() + settings.page_size > settings.block_bytes_max));
  }
  // The block has room for what comes next, and its last part is one of the open transaction.
  void MakeRoom(bool page);
  void CloseBlock();
  std::string EncodeMeta() const;

  const Settings settings;
  PageEncoder encoder;

  // The batch.
  std::string out;  // finished, not yet taken
  uint64_t taken = 0;
  RunningHash hash;  // of the bytes taken
  std::vector<IndexEntry> index;
  uint32_t salt1 = 0, salt2 = 0;  // of the last mark that was not all zero; at first the header's
  Transaction last;               // what the next transaction header is a difference to

  // The transaction being added.
  bool in_transaction = false;
  bool part_open = false;
  bool begun_part_written = false;
  uint8_t begin_flags = 0;
  std::string begin_header;
  PageSet pages_seen;

  // The block being filled.
  std::vector<Part> parts;
  std::vector<std::byte> images;
  std::vector<std::byte> prefix;
  PageSet block_pgnos;
  uint32_t block_pages = 0;
};

void BatchWriter::Impl::MakeRoom(bool page) {
  if (BlockFull(page)) CloseBlock();
  if (part_open) return;
  Part part;
  part.txid = last.txid;
  if (!begun_part_written) {
    part.flags = begin_flags;
    part.header = std::move(begin_header);
    begun_part_written = true;
  }
  parts.push_back(std::move(part));
  part_open = true;
}

std::string BatchWriter::Impl::EncodeMeta() const {
  std::string meta;
  uint32_t previous = 0;
  for (const Part& part : parts) {
    meta.push_back(static_cast<char>(part.flags | (&part == &parts.back() ? kPartLast : 0)));
    meta.append(part.header);
    PutVarint(&meta, part.pages.size());
    for (const PageRecord& page : part.pages) {
      const int64_t delta = int64_t{page.pgno.value} - int64_t{previous};
      PutVarint(&meta, ZigZag(delta) << 1 | (page.has_base ? 1 : 0));
      previous = page.pgno.value;
    }
    for (const PageRecord& page : part.pages) PutBig64(&meta, page.hash);
  }
  assert(meta.size() <= kBlockMetaBytesMax);
  return meta;
}

void BatchWriter::Impl::CloseBlock() {
  if (parts.empty()) return;
  IndexEntry entry;
  entry.offset = taken + out.size();
  entry.pages = block_pages;
  entry.last_txid = parts.back().txid;
  for (const Part& part : parts) {
    for (const PageRecord& page : part.pages) {
      if (entry.first_pgno.value == 0 || page.pgno < entry.first_pgno) entry.first_pgno = page.pgno;
    }
  }

  const std::string meta = EncodeMeta();
  const std::optional<std::string> packed = encoder.EncodeMeta(meta);
  std::string frame;
  if (block_pages > 0) {
    // One byte to spare keeps the prefix from ending where another buffer begins, whatever the
    // allocator does: see EncodeImages.
    prefix.reserve(prefix.size() + 1);
    encoder.EncodeImages(prefix, images, &frame);
  }
  out.push_back(static_cast<char>(packed ? kPackedBlockMark : kBlockMark));
  PutVarint(&out, meta.size());
  if (packed) PutVarint(&out, packed->size());
  PutVarint(&out, frame.size());
  out.append(packed ? *packed : meta);
  out.append(frame);

  entry.size = static_cast<uint32_t>(taken + out.size() - entry.offset);
  index.push_back(entry);
  parts.clear();
  images.clear();
  prefix.clear();
  block_pgnos.Clear();
  block_pages = 0;
  part_open = false;
}

BatchWriter::BatchWriter(const Settings& settings) : impl_(std::make_unique<Impl>(settings)) {}
BatchWriter::~BatchWriter() = default;

bool BatchWriter::BlockHas(Pgno pgno) const {
  return !impl_->BlockFull(/*page=*/true) && impl_->block_pgnos.Contains(pgno);
}

void BatchWriter::BeginTransaction(const Transaction& transaction) {
  Impl& w = *impl_;
  const Transaction& t = transaction;
  assert(!w.in_transaction);
  if (empty()) {
    first_ = t.txid;
    w.index.clear();
    w.last = Transaction{.txid = Txid(t.txid.value - 1), .time_ms = t.time_ms};
    w.salt1 = t.mark.salt1;
    w.salt2 = t.mark.salt2;
    w.out.push_back(static_cast<char>(kBatchMark));
    // From 512 to 65536: 1 to 8.
    w.out.push_back(
        static_cast<char>(kBatchVersion << 4 | (PageSizeLog(w.settings.page_size) - 8)));
    PutBig32(&w.out, w.salt1);
    PutBig32(&w.out, w.salt2);
    PutVarint(&w.out, t.txid.value);
    PutVarint(&w.out, ZigZag(t.time_ms));
  }
  assert(t.txid == w.last.txid.Next());
  assert(t.time_ms >= w.last.time_ms);

  w.begin_header.clear();
  std::string* const h = &w.begin_header;
  uint8_t flags = kPartBegins;
  if (t.time_estimated) flags |= kPartTimeEstimated;
  if (t.heal) flags |= kPartHeal;
  if (t.rolling_known) flags |= kPartRollingKnown;
  if (!empty())
    PutVarint(h, static_cast<uint64_t>(t.time_ms) - static_cast<uint64_t>(w.last.time_ms));
  WalMark mark = w.last.mark;
  if (t.mark == WalMark{}) {
    flags |= kPartMarkAbsent;
  } else {
    if (t.mark.salt1 != w.salt1 || t.mark.salt2 != w.salt2) {
      flags |= kPartOtherSalts;
      w.salt1 = t.mark.salt1;
      w.salt2 = t.mark.salt2;
      PutBig32(h, w.salt1);
      PutBig32(h, w.salt2);
    }
    PutDelta(h, t.mark.frame, mark.frame);
    PutBig32(h, t.mark.cksum1);
    PutBig32(h, t.mark.cksum2);
    mark = t.mark;
  }
  PutDelta(h, t.database_pages, w.last.database_pages);
  PutDelta(h, t.free_pages, w.last.free_pages);
  PutBig64(h, t.history_hash);
  if (t.rolling_known) PutBig64(h, t.rolling_checksum);

  w.begin_flags = flags;
  w.begun_part_written = false;
  w.part_open = false;
  w.in_transaction = true;
  w.pages_seen.Clear();
  w.last = t;
  w.last.mark = mark;
  ++transactions_;
}

void BatchWriter::AddPage(Pgno pgno, uint64_t hash, std::span<const std::byte> image,
                          const std::function<bool(std::span<std::byte>)>& read_base) {
  Impl& w = *impl_;
  const uint32_t page_size = w.settings.page_size;
  assert(w.in_transaction);
  assert(image.size() == page_size);
  assert(pgno.value >= 1 && pgno.value <= w.last.database_pages && pgno != LockPage(page_size));
  assert(hash == PageHash(pgno, image));
  [[maybe_unused]] const bool first_in_transaction = w.pages_seen.Insert(pgno);
  assert(first_in_transaction);

  w.MakeRoom(/*page=*/true);
  PageRecord record{pgno, hash, false};
  if (w.block_pgnos.Insert(pgno) && read_base) {
    const size_t before = w.prefix.size();
    w.prefix.resize(before + page_size);
    record.has_base = read_base(std::span(w.prefix).subspan(before));
    if (!record.has_base) w.prefix.resize(before);
  }
  w.parts.back().pages.push_back(record);
  w.images.insert(w.images.end(), image.begin(), image.end());
  ++w.block_pages;
}

void BatchWriter::EndTransaction() {
  Impl& w = *impl_;
  assert(w.in_transaction);
  if (!w.part_open) w.MakeRoom(/*page=*/false);  // it has no pages
  w.parts.back().flags |= kPartEnds;
  w.part_open = false;
  w.in_transaction = false;
}

uint64_t BatchWriter::encoded_bytes() const { return impl_->taken + impl_->out.size(); }

std::string BatchWriter::TakeEncoded() {
  impl_->hash.Update(AsBytes(impl_->out));
  impl_->taken += impl_->out.size();
  return std::exchange(impl_->out, {});
}

std::string BatchWriter::Seal() {
  Impl& w = *impl_;
  assert(!w.in_transaction && !empty());
  w.CloseBlock();
  w.out.push_back(static_cast<char>(kEndMark));
  PutVarint(&w.out, transactions_);
  w.hash.Update(AsBytes(w.out));
  PutBig32(&w.out, Check(w.hash.Digest()));
  w.hash.Reset();
  w.taken = 0;
  transactions_ = 0;
  first_ = Txid();
  return std::exchange(w.out, {});
}

const std::vector<IndexEntry>& BatchWriter::index() const { return impl_->index; }

namespace {

// Whether the header says nothing about the state that its body does not say as well.
bool StateIsInside(const ObjectHeader& h, std::string_view body) {
  if (h.kind != ObjectKind::kData) return false;
  ObjectHeader inside = h;
  return FillState(AsBytes(body), "the body of an object", &inside).ok() && inside == h;
}

void PutMark(std::string* out, const WalMark& mark) {
  PutBig32(out, mark.salt1);
  PutBig32(out, mark.salt2);
  PutVarint(out, mark.frame);
  PutBig32(out, mark.cksum1);
  PutBig32(out, mark.cksum2);
}

std::string EncodeIndex(const std::vector<IndexEntry>& index) {
  std::string out;
  if (index.empty()) return out;
  PutVarint(&out, index.size());
  IndexEntry last;
  for (const IndexEntry& entry : index) {
    assert(entry.offset >= last.offset + last.size);
    PutVarint(&out, entry.offset - (last.offset + last.size));
    PutVarint(&out, entry.size);
    PutDelta(&out, entry.first_pgno.value, last.first_pgno.value);
    PutVarint(&out, entry.pages);
    PutDelta(&out, entry.last_txid.value, last.last_txid.value);
    last = entry;
  }
  return out;
}

}  // namespace

std::string EncodeObject(const ObjectHeader& header, std::string_view inline_body,
                         const std::vector<IndexEntry>& index) {
  const ObjectHeader& h = header;
  assert(h.page_size == 0 || IsValidPageSize(h.page_size));
  assert(HasBody(h.kind) || (inline_body.empty() && h.parts.empty() && index.empty()));
  assert(!h.state_inside);
  const std::string index_bytes = EncodeIndex(index);
  const bool more = h.last_slot != h.slot || h.continues_from != h.last_txid || h.key_id != 0 ||
                    !h.parts.empty() || !index.empty();
  const bool inside = !more && StateIsInside(h, inline_body);
  uint8_t flags = 0;
  if (inside) {
    flags |= kHeaderStateInside;
  } else {
    if (h.rolling_known) flags |= kHeaderRollingKnown;
    if (h.mark != WalMark()) flags |= kHeaderMark;
  }
  if (more) flags |= kHeaderMore;

  std::string fields;
  fields.push_back(static_cast<char>(static_cast<int>(h.codec) << 4 | static_cast<int>(h.kind)));
  fields.push_back(static_cast<char>(flags));
  PutBig64(&fields, h.lineage.value);
  if (h.kind != ObjectKind::kData) PutBig64(&fields, h.session.value);
  PutBig64(&fields, h.previous_hash);
  PutVarint(&fields, h.epoch.value);
  PutVarint(&fields, h.slot.value);
  if (!inside) {
    fields.push_back(static_cast<char>(PageSizeLog(h.page_size)));
    PutVarint(&fields, h.first_txid.value);
    PutDelta(&fields, h.last_txid.value, h.first_txid.value);
    PutVarint(&fields, ZigZag(h.time_ms));
    PutVarint(&fields, h.database_pages);
    if (h.mark != WalMark()) PutMark(&fields, h.mark);
    PutBig64(&fields, h.history_hash);
    if (h.rolling_known) PutBig64(&fields, h.rolling_checksum);
  }
  if (more) {
    PutDelta(&fields, h.last_slot.value, h.slot.value);
    PutDelta(&fields, h.continues_from.value, h.last_txid.value);
    PutVarint(&fields, h.key_id);
    PutVarint(&fields, index_bytes.size());
    PutVarint(&fields, h.parts.size());
    for (const BodyPart& part : h.parts) {
      assert(!part.name.empty() && part.name.size() <= kPartNameBytesMax && part.size > 0);
      PutVarint(&fields, part.name.size());
      fields.append(part.name);
      PutVarint(&fields, part.size);
      PutBig64(&fields, part.hash);
    }
  }

  std::string out;
  out.reserve(32 + fields.size() + inline_body.size() + index_bytes.size());
  PutBig32(&out, kObjectMagic);
  out.push_back(static_cast<char>(kFormatVersion));
  PutVarint(&out, fields.size() + kCheckSize);
  out.append(fields);
  PutBig32(&out, Check(Hash64(AsBytes(out))));
  out.append(inline_body);
  out.append(index_bytes);
  PutBig64(&out, Hash64(AsBytes(out)));
  return out;
}

uint64_t ObjectHash(std::string_view object) {
  assert(object.size() >= kTrailerSize);
  return LoadBig64(object.data() + object.size() - kTrailerSize);
}

}  // namespace guildlite
