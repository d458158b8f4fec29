#include "vfs/capture/wal_tailer.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "vfs/base/checksum.h"

namespace guildlite {

namespace {

// One pread: the system call (0.4 us) vanishes beside copying and summing 256 KiB (90 us), and the
// bytes are still in the second-level cache when they are summed. More buys nothing, and every open
// database has one.
constexpr size_t kChunkBytes = 256 << 10;
// Without a bound nothing may be kept (invariant 5), so the first read of each transaction is small
// and doubles from there: a recovery of many small transactions reads each byte a few times,
// not 64.
constexpr size_t kFirstUnboundedBytes = 16 << 10;

WalMark MarkAt(const WalHeader& header, uint32_t frame, WalChecksum checksum) {
  return {header.salt1, header.salt2, frame, checksum.s0, checksum.s1};
}

bool HasSalts(const FrameHeader& frame, const WalHeader& header) {
  return frame.salt1 == header.salt1 && frame.salt2 == header.salt2;
}

// As walEncodeFrame() leaves it while a re-checksum pass is owed.
bool IsUnsealed(const FrameHeader& frame) {
  return frame.salt1 == 0 && frame.salt2 == 0 && frame.checksum == WalChecksum{};
}

}  // namespace

// The frames of one transaction while they are read.
class WalTailer::Scan {
 public:
  explicit Scan(uint32_t page_size) : page_size_(page_size) {}

  bool empty() const { return pages_.empty(); }

  void Add(Pgno pgno, uint32_t frame, std::span<const std::byte> page) {
    if (!pages_.empty() && pgno <= pages_.back().pgno) ascending_ = false;
    pages_.push_back({pgno, frame, PageHash(pgno, page)});
    if (pages_.size() * page_size_ <= kInlineBytesMax) {
      images_.insert(images_.end(), page.begin(), page.end());
    } else if (!images_.empty()) {
      std::vector<std::byte>().swap(images_);
    }
  }

  // Invariants 1 to 3 of vfs/capture/transaction.h.
  WalTransaction Finish(const WalMark& end, uint32_t database_pages) && {
    const Pgno lock_page = LockPage(page_size_);
    const auto is_dropped = [&](const FrameRef& p) {
      return p.pgno.value > database_pages || p.pgno == lock_page;
    };
    // SQLite writes a commit in ascending page order; only a spill or a shrink needs more.
    if (!ascending_ || std::any_of(pages_.begin(), pages_.end(), is_dropped)) {
      const uint32_t first_frame = pages_.front().frame;
      std::erase_if(pages_, is_dropped);
      KeepLastVersions();
      // Images are in frame order from first_frame: a kept one moves towards the front or stays.
      if (!images_.empty()) {
        for (size_t i = 0; i < pages_.size(); ++i) {
          const size_t from = pages_[i].frame - first_frame;
          if (from != i) {
            std::memcpy(&images_[i * page_size_], &images_[from * page_size_], page_size_);
          }
        }
        images_.resize(pages_.size() * page_size_);
      }
    }
    return {end, database_pages, std::move(pages_), std::move(images_)};
  }

 private:
  // Two sorts in place rather than a map: a transaction of the size of the database then needs
  // nothing beyond its page list.
  void KeepLastVersions() {
    std::sort(pages_.begin(), pages_.end(), [](const FrameRef& a, const FrameRef& b) {
      return a.pgno != b.pgno ? a.pgno < b.pgno : a.frame > b.frame;
    });
    pages_.erase(std::unique(pages_.begin(), pages_.end(),
                             [](const FrameRef& a, const FrameRef& b) { return a.pgno == b.pgno; }),
                 pages_.end());
    std::sort(pages_.begin(), pages_.end(),
              [](const FrameRef& a, const FrameRef& b) { return a.frame < b.frame; });
  }

  uint32_t page_size_;
  bool ascending_ = true;
  std::vector<FrameRef> pages_;
  std::vector<std::byte> images_;
};

Result<WalHeader> WalTailer::ReadHeader() const {
  std::byte bytes[kWalHeaderSize];
  auto n = wal_.ReadAt(0, bytes);
  if (!n.ok()) return n.status();
  if (*n < kWalHeaderSize) {
    return Status(Tag::kNotFound, "read WAL header of " + wal_.path() + ": the file is too short");
  }
  if (auto header = WalHeader::Decode(bytes)) return *header;
  return Status(Tag::kChainBroken, "read WAL header of " + wal_.path() + ": not a valid header");
}

WalMark WalTailer::Start(const WalHeader& header) { return MarkAt(header, 0, header.checksum); }

Result<bool> WalTailer::Contains(const WalMark& mark) const {
  auto header = ReadHeader();
  if (!header.ok()) {
    if (header.status().tag() == Tag::kLocalIo) return header.status();
    return false;
  }
  if (!mark.SameGeneration(Start(*header))) return false;
  return ContainsFrame(*header, mark);
}

Result<bool> WalTailer::ContainsFrame(const WalHeader& header, const WalMark& mark) const {
  if (mark.frame == 0) return mark == Start(header);
  std::byte bytes[kFrameHeaderSize];
  auto n = wal_.ReadAt(FrameOffset(mark.frame, header.page_size), bytes);
  if (!n.ok()) return n.status();
  if (*n < kFrameHeaderSize) return false;
  const FrameHeader frame = FrameHeader::Decode(bytes);
  if (HasSalts(frame, header) && MarkAt(header, mark.frame, frame.checksum) == mark) return true;
  return IsUnsealed(frame) && frame.commit_pages != 0;
}

Result<bool> WalTailer::SameGeneration(const WalMark& from) {
  auto header = ReadHeader();
  if (!header.ok() && header.status().tag() == Tag::kLocalIo) return header.status();
  const bool known = header_ && header.ok() && *header_ == *header;
  if (!known) {  // kept bytes belong to the header they were read under (invariant 5)
    DropBuffer();
    commit_ = {};
  }
  // Equal salts in an unequal header: not the file these frames came from, whatever it is.
  const bool contradicts = header_ && !known && from.SameGeneration(Start(*header_));
  header_.reset();
  if (!header.ok() || contradicts || !from.SameGeneration(Start(*header))) return false;
  header_ = *header;
  return true;
}

void WalTailer::DropBuffer() {
  first_ = 0;
  count_ = 0;
  buffer_bound_ = 0;
}

Result<std::span<const std::byte>> WalTailer::FrameAt(uint32_t frame, uint32_t last) {
  const size_t frame_size = kFrameHeaderSize + header_->page_size;
  if (frame < first_ || frame - first_ >= count_) {
    DropBuffer();
    const uint64_t wanted = std::min<uint64_t>(std::max<size_t>(read_ahead_ / frame_size, 1),
                                               uint64_t{last} - frame + 1);
    read_ahead_ = std::min(read_ahead_ * 2, kChunkBytes);
    if (buffer_.size() < wanted * frame_size) buffer_.resize(wanted * frame_size);
    auto n = wal_.ReadAt(FrameOffset(frame, header_->page_size),
                         std::span(buffer_.data(), wanted * frame_size));
    if (!n.ok()) return n.status();
    first_ = frame;
    count_ = static_cast<uint32_t>(*n / frame_size);
    buffer_bound_ = last;
    if (count_ == 0) return std::span<const std::byte>();
  }
  return std::span<const std::byte>(&buffer_[(frame - first_) * frame_size], frame_size);
}

bool WalTailer::Repeats(const FrameHeader& header, std::span<const std::byte> page) const {
  return header.pgno == commit_.pgno && header.commit_pages == commit_.commit_pages &&
         commit_.page.size() == page.size() &&
         std::memcmp(commit_.page.data(), page.data(), page.size()) == 0;
}

Status WalTailer::LoadCommitFrame(const WalMark& mark) {
  if (commit_.mark == mark && !commit_.page.empty()) return Status::Ok();
  commit_ = {};
  std::vector<std::byte> bytes(kFrameHeaderSize + header_->page_size);
  auto n = wal_.ReadAt(FrameOffset(mark.frame, header_->page_size), bytes);
  if (!n.ok()) return n.status();
  if (*n < bytes.size()) return Status::Ok();  // nothing repeats an empty page
  const auto header = FrameHeader::Decode(std::span(bytes).first<kFrameHeaderSize>());
  bytes.erase(bytes.begin(), bytes.begin() + kFrameHeaderSize);
  commit_ = {mark, header.pgno, header.commit_pages, std::move(bytes)};
  return Status::Ok();
}

Result<WalTailer::Outcome> WalTailer::Next(const WalMark& from,
                                           const std::optional<Published>& bound) {
  const Outcome other_generation{.end = End::kOtherGeneration, .transaction = {}, .mark = from};
  if (bound) {
    if (bound->salt1 != from.salt1 || bound->salt2 != from.salt2) return other_generation;
    if (bound->max_frame <= from.frame) {
      return Outcome{.end = End::kBound, .transaction = {}, .mark = from};
    }
  }
  // Invariant 5.
  if (!bound || bound->max_frame < buffer_bound_) DropBuffer();
  read_ahead_ = bound ? kChunkBytes : kFirstUnboundedBytes;
  // Invariant 6: with a bound, the header known from before will do until something looks wrong.
  if (!bound || !header_ || !from.SameGeneration(Start(*header_))) {
    auto same = SameGeneration(from);
    if (!same.ok()) return same.status();
    if (!*same) return other_generation;
  }

  const WalHeader header = *header_;
  const uint32_t last = bound ? bound->max_frame : std::numeric_limits<uint32_t>::max();
  WalMark start = from;  // moves past repeats
  WalMark end;           // of the commit frame, once found: then only its repeats are looked for
  bool committed = false;
  bool by_position = false;
  WalChecksum chain{from.cksum1, from.cksum2};
  Scan scan(header.page_size);

  for (uint64_t next = uint64_t{from.frame} + 1; next <= last; ++next) {
    const auto index = static_cast<uint32_t>(next);
    auto bytes = FrameAt(index, last);
    if (!bytes.ok()) return bytes.status();
    const bool whole = !bytes->empty();
    const auto page = whole ? bytes->subspan(kFrameHeaderSize) : *bytes;
    const auto frame =
        whole ? FrameHeader::Decode(bytes->first<kFrameHeaderSize>()) : FrameHeader{};
    if (committed && !(whole && Repeats(frame, page))) break;

    bool valid = false;  // walDecodeFrame() in wal.c
    if (HasSalts(frame, header) && frame.pgno.value != 0) {
      chain =
          ChainFrame(chain, header.big_endian_checksums, bytes->first<kFrameHeaderSize>(), page);
      valid = chain == frame.checksum;
    }
    if (!valid) {
      if (!bound) break;
      if (!by_position) {
        // Invariant 2: the file must still hold what `from` names. That it is still of this
        // generation is asked at the end, of everything read until then.
        auto contained = ContainsFrame(header, from);
        if (!contained.ok()) return contained.status();
        if (!*contained) return other_generation;
        by_position = true;
      }
      const bool foreign = !HasSalts(frame, header) && !IsUnsealed(frame);
      if (!whole || frame.pgno.value == 0 || foreign) {
        return Unpublishable(from, index, whole ? "is no frame of this WAL" : "is missing");
      }
      chain = frame.checksum;
    }
    if (by_position && index == last) chain = {bound->cksum1, bound->cksum2};

    const WalMark here = MarkAt(header, index, chain);
    if (committed) {
      end = commit_.mark = here;
      continue;
    }
    if (frame.commit_pages != 0 && scan.empty() && start.frame > 0) {
      if (Status s = LoadCommitFrame(start); !s.ok()) return s;
      if (Repeats(frame, page)) {
        start = commit_.mark = here;
        continue;
      }
    }
    scan.Add(frame.pgno, index, page);
    if (frame.commit_pages != 0) {
      committed = true;
      end = commit_.mark = here;
      commit_.pgno = frame.pgno;
      commit_.commit_pages = frame.commit_pages;
      commit_.page.assign(page.begin(), page.end());
    }
  }

  if (by_position || !(bound || committed)) {  // invariant 6
    auto same = SameGeneration(from);
    if (!same.ok()) return same.status();
    if (!*same) return other_generation;
  }
  if (committed) {
    if (by_position) ++chain_breaks_;
    const uint32_t database_pages = commit_.commit_pages;
    return Outcome{End::kTransaction, std::move(scan).Finish(end, database_pages), end};
  }
  if (!bound) return Outcome{End::kChainEnd, {}, start};
  if (!scan.empty()) return Unpublishable(from, last, "does not commit");
  return Outcome{End::kBound, {}, start};
}

// A published frame that cannot be one: either the file went on to another generation meanwhile, or
// something other than SQLite wrote to it.
Result<WalTailer::Outcome> WalTailer::Unpublishable(const WalMark& from, uint32_t frame,
                                                    std::string_view what) {
  auto same = SameGeneration(from);
  if (!same.ok()) return same.status();
  if (!*same) return Outcome{End::kOtherGeneration, {}, from};
  DropBuffer();  // the next call shall look at the file again
  return Status(Tag::kLocalIo, "read " + wal_.path() + ": published frame " +
                                   std::to_string(frame) + " " + std::string(what));
}

Status WalTailer::ReadPage(uint32_t frame, uint32_t page_size, std::span<std::byte> out) const {
  assert(frame > 0 && out.size() == page_size);
  auto n = wal_.ReadAt(FrameOffset(frame, page_size) + kFrameHeaderSize, out);
  if (!n.ok()) return n.status();
  if (*n < out.size()) {
    return Status(Tag::kLocalIo,
                  "read " + wal_.path() + ": frame " + std::to_string(frame) + " is gone");
  }
  return Status::Ok();
}

}  // namespace guildlite
