#include "vfs/capture/page_table.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"

namespace guildlite {
namespace {

// Local to one machine and rebuilt when in doubt, so entries are in native byte order.
constexpr uint32_t kMagic = 0x474c5054;  // "GLPT"
constexpr uint32_t kVersion = 1;
constexpr uint64_t kHeaderSize = 4096;

std::string EncodeHeader(const CapturedState& s) {
  std::string h;
  PutBig32(&h, kMagic);
  PutBig32(&h, kVersion);
  PutBig64(&h, s.txid.value);
  for (const uint32_t v : {s.mark.salt1, s.mark.salt2, s.mark.frame, s.mark.cksum1, s.mark.cksum2,
                           s.page_size, s.database_pages, s.free_pages}) {
    PutBig32(&h, v);
  }
  PutBig32(&h, (s.mark_valid ? 1u : 0u) | (s.rolling_known ? 2u : 0u));
  PutBig64(&h, s.history_hash);
  PutBig64(&h, s.rolling_checksum);
  PutBig64(&h, static_cast<uint64_t>(s.time_ms));
  PutBig64(&h, Hash64(AsBytes(h)));
  return h;
}
constexpr size_t kHeaderBytes = 4 + 4 + 8 + 8 * 4 + 4 + 8 + 8 + 8 + 8;

}  // namespace

void PageTable::Set(Pgno pgno, uint64_t hash) {
  const uint32_t i = pgno.value - 1;
  assert(i < hashes_.size());
  const bool lock_page = page_size_ != 0 && pgno == LockPage(page_size_);
  assert(!lock_page);
  if (lock_page) return;
  uint64_t& entry = hashes_[i];
  if (entry == hash) return;
  if (entry == 0) --unknown_;
  if (hash == 0) ++unknown_;
  sum_ += hash - entry;
  entry = hash;
  if (!dirty_[i]) {
    dirty_[i] = true;
    dirty_list_.push_back(i);
  }
}

void PageTable::Resize(uint32_t pages, uint32_t page_size) {
  page_size_ = page_size;
  const auto is_lock = [&](uint32_t i) { return i + 1 == LockPage(page_size).value; };
  for (uint32_t i = pages; i < hashes_.size(); ++i) {
    sum_ -= hashes_[i];
    if (hashes_[i] == 0 && !is_lock(i)) --unknown_;
  }
  for (uint32_t i = this->pages(); i < pages; ++i) {
    if (!is_lock(i)) ++unknown_;
  }
  const auto old = this->pages();
  hashes_.resize(pages, 0);
  dirty_.resize(pages, false);
  for (uint32_t i = old; i < pages; ++i) {
    // The file may hold entries of an earlier, longer table there.
    dirty_[i] = true;
    dirty_list_.push_back(i);
  }
}

Status PageTable::Flush(const File& file, const CapturedState& state, bool sync) {
  std::sort(dirty_list_.begin(), dirty_list_.end());
  for (size_t from = 0; from < dirty_list_.size();) {
    const uint32_t first = dirty_list_[from];
    if (first >= hashes_.size()) break;
    size_t to = from + 1;
    uint32_t last = first;
    // One write for entries close together: rewriting a few unchanged ones is cheaper than a call.
    while (to < dirty_list_.size() && dirty_list_[to] < hashes_.size() &&
           dirty_list_[to] - last <= 64) {
      last = dirty_list_[to++];
    }
    const auto run = std::as_bytes(std::span(hashes_.data() + first, last - first + 1));
    GUILDLITE_RETURN_IF_ERROR(file.WriteAt(kHeaderSize + uint64_t{first} * 8, run));
    from = to;
  }
  if (sync) GUILDLITE_RETURN_IF_ERROR(file.SyncData());
  GUILDLITE_RETURN_IF_ERROR(file.WriteAt(0, AsBytes(EncodeHeader(state))));
  if (sync) GUILDLITE_RETURN_IF_ERROR(file.SyncData());
  for (const uint32_t i : dirty_list_) {
    if (i < dirty_.size()) dirty_[i] = false;
  }
  dirty_list_.clear();
  return Status::Ok();
}

Result<CapturedState> PageTable::Load(const File& file) {
  std::string head(kHeaderBytes, '\0');
  auto n = file.ReadAt(0, std::as_writable_bytes(std::span(head.data(), head.size())));
  if (!n.ok()) return n.status();
  Cursor c(AsBytes(std::string_view(head).substr(0, *n)));
  CapturedState s;
  const uint32_t magic = c.Big32();
  const uint32_t version = c.Big32();
  s.txid = Txid(c.Big64());
  for (uint32_t* v : {&s.mark.salt1, &s.mark.salt2, &s.mark.frame, &s.mark.cksum1, &s.mark.cksum2,
                      &s.page_size, &s.database_pages, &s.free_pages}) {
    *v = c.Big32();
  }
  const uint32_t flags = c.Big32();
  s.mark_valid = (flags & 1) != 0;
  s.rolling_known = (flags & 2) != 0;
  s.history_hash = c.Big64();
  s.rolling_checksum = c.Big64();
  s.time_ms = static_cast<int64_t>(c.Big64());
  const size_t hashed = c.offset();
  const uint64_t checksum = c.Big64();
  if (c.failed() || magic != kMagic || version != kVersion ||
      checksum != Hash64(AsBytes(head).first(hashed)) || !IsValidPageSize(s.page_size)) {
    return Status(Tag::kNotFound, "no usable page table in " + file.path());
  }
  hashes_.assign(s.database_pages, 0);
  auto got = file.ReadAt(kHeaderSize, std::as_writable_bytes(std::span(hashes_)));
  if (!got.ok()) return got.status();
  page_size_ = s.page_size;
  dirty_.assign(hashes_.size(), false);
  dirty_list_.clear();
  sum_ = 0;
  unknown_ = 0;
  const Pgno lock_page = LockPage(page_size_);
  for (size_t i = 0; i < hashes_.size(); ++i) {
    if (i + 1 == lock_page.value) {
      hashes_[i] = 0;
      continue;
    }
    sum_ += hashes_[i];
    if (hashes_[i] == 0) ++unknown_;
  }
  return s;
}

}  // namespace guildlite
