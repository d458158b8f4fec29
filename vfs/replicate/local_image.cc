#include "vfs/replicate/local_image.h"

#include <fcntl.h>

#include <algorithm>
#include <array>

#include "vfs/base/bytes.h"

namespace guildlite {

Result<std::unique_ptr<LocalImage>> LocalImage::Open(DatabaseFile& database,
                                                     const std::string& wal_path,
                                                     const Published& published) {
  std::unique_ptr<LocalImage> image(new LocalImage(database));
  if (published.max_frame != 0) {
    auto wal = File::Open(wal_path, O_RDONLY);
    if (!wal.ok()) return wal.status();
    image->wal_ = *std::move(wal);
    image->tailer_.emplace(image->wal_);
    const auto header = image->tailer_->ReadHeader();
    if (!header.ok() || header->salt1 != published.salt1 || header->salt2 != published.salt2) {
      return Status(Tag::kBusy, "the WAL is being reset", true);
    }
    image->page_size_ = header->page_size;
    for (WalMark at = WalTailer::Start(*header); at.frame < published.max_frame;) {
      const auto next = image->tailer_->Next(at, published);
      if (!next.ok()) return next.status();
      if (next->end == WalTailer::End::kOtherGeneration) {
        return Status(Tag::kBusy, "the WAL is being reset", true);
      }
      if (next->end != WalTailer::End::kTransaction) break;
      for (const FrameRef& ref : next->transaction.pages) image->frames_.Set(ref.pgno, ref.frame);
      image->pages_ = next->transaction.database_pages;
      at = next->transaction.end;
    }
  }
  if (image->pages_ != 0) return image;
  const auto size = database.Size();
  if (!size.ok()) return size.status();
  std::array<std::byte, 18> head;
  const auto n = database.ReadAt(0, head);
  if (!n.ok()) return n.status();
  if (*n != head.size()) return image;
  // "The Database Header" of sqlite.org/fileformat2.html.
  const uint32_t page_size = LoadBig16(head.data() + 16);
  image->page_size_ = page_size == 1 ? 65536 : page_size;
  if (!IsValidPageSize(image->page_size_)) {
    return Status(Tag::kLocalIo, "the file is not a SQLite database");
  }
  image->pages_ = static_cast<uint32_t>(*size / image->page_size_);
  return image;
}

Status LocalImage::Read(Pgno pgno, std::span<std::byte> out) {
  if (const uint32_t frame = frames_.Get(pgno); frame != 0) {
    return tailer_->ReadPage(frame, page_size_, out);
  }
  const auto n = database_.ReadAt(uint64_t{pgno.value - 1} * page_size_, out);
  if (!n.ok()) return n.status();
  std::fill(out.begin() + static_cast<ptrdiff_t>(*n), out.end(), std::byte{0});
  return Status::Ok();
}

Result<Published> PublishedByChain(const std::string& wal_path) {
  Published published;
  auto wal = File::Open(wal_path, O_RDONLY);
  if (wal.status().tag() == Tag::kNotFound) return published;
  if (!wal.ok()) return wal.status();
  WalTailer tailer(*wal);
  const auto header = tailer.ReadHeader();
  if (header.status().tag() == Tag::kNotFound || header.status().tag() == Tag::kChainBroken) {
    return published;
  }
  if (!header.ok()) return header.status();
  published.salt1 = header->salt1;
  published.salt2 = header->salt2;
  WalMark at = WalTailer::Start(*header);
  for (;;) {
    const auto next = tailer.Next(at, std::nullopt);
    if (!next.ok()) return next.status();
    at = next->mark;
    if (next->end != WalTailer::End::kTransaction) break;
    at = next->transaction.end;
    published.database_pages = next->transaction.database_pages;
  }
  if (published.database_pages != 0) published.max_frame = at.frame;
  published.cksum1 = at.cksum1;
  published.cksum2 = at.cksum2;
  return published;
}

}  // namespace guildlite
