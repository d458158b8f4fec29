#include "vfs/replicate/spool.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cinttypes>
#include <optional>

#include "vfs/base/bytes.h"
#include "vfs/format/segment_reader.h"

namespace guildlite {
namespace {

// Collects what one batch says, without its images.
class BatchMetas final : public MetaVisitor {
 public:
  using OnTransactionFn = std::function<void(const Transaction&)>;
  using OnPageFn = std::function<void(const Transaction&, const PageEntry&)>;
  BatchMetas(const OnTransactionFn* transaction, const OnPageFn* page)
      : transaction_(transaction), page_(page) {}

  Status OnTransaction(const Transaction& t) override {
    last = t;
    if (transaction_) (*transaction_)(t);
    return Status::Ok();
  }
  Status OnPage(Pgno pgno, uint64_t hash, std::span<const std::byte>) override {
    if (page_) (*page_)(last, {pgno, hash});
    return Status::Ok();
  }

  Transaction last;

 private:
  const OnTransactionFn* transaction_;
  const OnPageFn* page_;
};

// A piece of a file, a chunk at a time: a spool file is as large as the transaction in it.
class FileSource : public BodySource {
 public:
  FileSource(const File& file, uint64_t offset, uint64_t size)
      : file_(file), at_(offset), end_(offset + size), chunk_(kChunkBytes) {}

  Result<std::span<const std::byte>> Next() override {
    const auto n =
        file_.ReadAt(at_, std::span(chunk_).first(std::min<uint64_t>(chunk_.size(), end_ - at_)));
    if (!n.ok()) return n.status();
    at_ += *n;
    return std::span<const std::byte>(chunk_).first(*n);
  }

 private:
  static constexpr size_t kChunkBytes = 256 << 10;
  const File& file_;
  uint64_t at_;
  const uint64_t end_;
  std::vector<std::byte> chunk_;
};

std::optional<uint64_t> ParseName(const std::string& name) {
  if (name.size() != 16 || name.find_first_not_of("0123456789abcdef") != std::string::npos) {
    return std::nullopt;
  }
  return std::strtoull(name.c_str(), nullptr, 16);
}

}  // namespace

std::string Spool::Name(uint64_t first) const {
  char b[17];
  std::snprintf(b, sizeof b, "%016" PRIx64, first);
  return directory_ + "/" + b;
}

Result<Txid> Spool::Recover(Txid table, Txid acknowledged,
                            const std::function<void(const Transaction&)>& transaction,
                            const std::function<void(const Transaction&, const PageEntry&)>& page) {
  acknowledged_ = acknowledged;
  table_ = table;
  auto names = ListDirectory(directory_);
  if (!names.ok()) return names.status();
  Txid end = table;
  std::optional<uint64_t> expected;  // first txid of the next batch
  bool gap = false;
  for (const std::string& name : *names) {
    const auto first = ParseName(name);
    if (!first) continue;
    const std::string path = Name(*first);
    if (gap) {
      GUILDLITE_RETURN_IF_ERROR(RemoveFile(path));
      continue;
    }
    auto file = File::Open(path, O_RDWR);
    if (!file.ok()) return file.status();
    const auto size = file->Size();
    if (!size.ok()) return size.status();
    FileSource whole(*file, 0, *size);
    auto batches = ScanBatches(whole);
    if (!batches.ok()) return batches.status();
    uint64_t offset = 0;
    FileInfo info{*first, Txid(), 0};
    for (const BatchSummary& summary : *batches) {
      if ((expected && summary.first_txid.value != *expected) ||
          (!expected && summary.first_txid.value > table.value + 1)) {
        gap = true;
        break;
      }
      expected = summary.last_txid.value + 1;
      const bool apply = summary.last_txid > table;
      BatchMetas visitor(apply ? &transaction : nullptr, apply ? &page : nullptr);
      FileSource source(*file, offset, summary.size);
      DecodeSettings settings;
      settings.page_size = summary.page_size;
      settings.images = false;
      settings.check_history = false;
      GUILDLITE_RETURN_IF_ERROR(DecodeBody(source, settings, visitor, path));
      if (apply) end = summary.last_txid;
      info.last = summary.last_txid;
      info.size = offset + summary.size;
      if (summary.last_txid > acknowledged) {
        SealedBatch batch;
        batch.first = summary.first_txid;
        batch.last = visitor.last;
        batch.page_size = summary.page_size;
        batch.size = summary.size;
        batch.file = *first;
        batch.offset = offset;
        pending_bytes_ += batch.size;
        queue_.push_back(std::move(batch));
      }
      offset += summary.size;
    }
    if (info.size == 0) {
      GUILDLITE_RETURN_IF_ERROR(RemoveFile(path));
      continue;
    }
    if (info.size < *size) {
      // A torn tail, or the batch a killed process was encoding: its frames are still in the WAL.
      GUILDLITE_RETURN_IF_ERROR(file->Truncate(info.size));
      gap = true;
    }
    file_bytes_ += info.size;
    files_.push_back(info);
  }
  return end;
}

Status Spool::Discard() {
  current_.Close();
  queue_.clear();
  files_.clear();
  unsaved_ = 0;
  pending_bytes_ = memory_bytes_ = file_bytes_ = partial_bytes_ = 0;
  acknowledged_ = table_ = Txid();  // what comes next may be numbered from anywhere
  auto names = ListDirectory(directory_);
  if (!names.ok()) {
    return names.status().tag() == Tag::kNotFound ? Status::Ok() : names.status();
  }
  for (const std::string& name : *names) {
    if (ParseName(name)) GUILDLITE_RETURN_IF_ERROR(RemoveFile(directory_ + "/" + name));
  }
  return Status::Ok();
}

Status Spool::OpenFor(uint64_t first) {
  if (current_.is_open() && !files_.empty() && files_.back().size < kFileSizeMax) {
    return Status::Ok();
  }
  current_.Close();
  auto file = File::Open(Name(first), O_RDWR | O_CREAT | O_TRUNC, 0644);
  if (!file.ok()) return file.status().Context("spool");
  current_ = std::move(*file);
  files_.push_back({first, Txid(), 0});
  return Status::Ok();
}

void Spool::Append(SealedBatch batch) {
  assert(queue_.empty() || batch.first == queue_.back().last.txid.Next());
  if (partial_bytes_ != 0) {
    // The front of it is in the file already; the rest joins it at the next WriteOut().
    batch.file = files_.back().first;
    batch.offset = files_.back().size - partial_bytes_;
    batch.size = partial_bytes_ + batch.bytes.size();
  } else {
    batch.size = batch.bytes.size();
  }
  pending_bytes_ += batch.size;
  memory_bytes_ += batch.bytes.size();
  queue_.push_back(std::move(batch));
  ++unsaved_;
  if (partial_bytes_ != 0) {
    // Contiguous in one file, before anything else is written there.
    SealedBatch& b = queue_.back();
    assert(unsaved_ == 1);
    const uint64_t at = files_.back().size;
    const Status status = current_.WriteAt(at, AsBytes(b.bytes));
    partial_bytes_ = 0;
    if (status.ok()) {
      files_.back().size += b.bytes.size();
      files_.back().last = b.last.txid;
      file_bytes_ += b.bytes.size();
      memory_bytes_ -= b.bytes.size();
      b.bytes = std::string();
      unsaved_ = 0;
    } else {
      // Nothing shorter than the whole can ship: read it back into memory, where WriteOut()
      // retries. What memory is not for is lost, says WriteOut().
      const uint64_t front_size = b.size - b.bytes.size();
      auto front = front_size <= kMemoryMax ? Read(b, 0, front_size)
                                            : Result<std::string>(Status(Tag::kLocalIo, ""));
      if (front.ok()) {
        memory_bytes_ += front->size();
        b.bytes.insert(0, *front);
        b.file = 0;
        files_.back().size -= front_size;  // or half a batch would hide what is written after it
        file_bytes_ -= front_size;
      }
    }
  }
  if (memory_bytes_ > kMemoryMax) (void)WriteOut();  // invariant 4; on error it waits for the gate
}

Status Spool::AppendPartial(Txid first, std::string_view bytes) {
  if (partial_bytes_ == 0) {
    GUILDLITE_RETURN_IF_ERROR(WriteOut());
    GUILDLITE_RETURN_IF_ERROR(OpenFor(first.value));
  }
  GUILDLITE_RETURN_IF_ERROR(current_.WriteAt(files_.back().size, AsBytes(bytes)));
  files_.back().size += bytes.size();
  file_bytes_ += bytes.size();
  partial_bytes_ += bytes.size();
  return Status::Ok();
}

Status Spool::WriteOut() {
  if (unsaved_ == 0) return Status::Ok();
  assert(partial_bytes_ == 0);
  const size_t from = queue_.size() - unsaved_;
  for (size_t i = from; i < queue_.size(); ++i) {
    if (queue_[i].bytes.size() != queue_[i].size) {
      return Status(Tag::kLocalIo, "the front of a batch was lost in " + directory_);
    }
  }
  GUILDLITE_RETURN_IF_ERROR(OpenFor(queue_[from].first.value));
  FileInfo& info = files_.back();
  std::string joined;
  std::string_view bytes = queue_[from].bytes;
  if (unsaved_ > 1) {
    for (size_t i = from; i < queue_.size(); ++i) joined += queue_[i].bytes;
    bytes = joined;
  }
  GUILDLITE_RETURN_IF_ERROR(current_.WriteAt(info.size, AsBytes(bytes)));
  for (size_t i = from; i < queue_.size(); ++i) {
    queue_[i].file = info.first;
    queue_[i].offset = info.size;
    info.size += queue_[i].bytes.size();
    file_bytes_ += queue_[i].bytes.size();
    info.last = queue_[i].last.txid;
  }
  unsaved_ = 0;
  DropDone();
  for (SealedBatch& b : queue_) {
    if (memory_bytes_ <= kMemoryMax) break;
    memory_bytes_ -= b.bytes.size();
    b.bytes = std::string();
  }
  return Status::Ok();
}

Status Spool::Sync() const {
  for (const FileInfo& info : files_) {
    auto file = File::Open(Name(info.first), O_RDWR);
    if (!file.ok()) return file.status();
    GUILDLITE_RETURN_IF_ERROR(file->SyncData());
  }
  return SyncDirectory(directory_);
}

Result<std::string> Spool::Read(const SealedBatch& batch, uint64_t offset, uint64_t length) const {
  if (batch.bytes.size() == batch.size) return batch.bytes.substr(offset, length);
  auto file = File::Open(Name(batch.file), O_RDONLY);
  if (!file.ok()) return file.status().Context("spool");
  std::string out(length, '\0');
  auto n = file->ReadAt(batch.offset + offset,
                        std::as_writable_bytes(std::span(out.data(), out.size())));
  if (!n.ok()) return n.status();
  if (*n != length) {
    return Status(Tag::kLocalIo,
                  "spool file " + file->path() + " is shorter than what was written");
  }
  return out;
}

std::span<const SealedBatch* const> Spool::pending() {
  pending_.clear();
  for (const SealedBatch& b : queue_) {
    if (b.last.txid > acknowledged_) pending_.push_back(&b);
  }
  return pending_;
}

void Spool::Acknowledge(Txid txid) {
  if (txid <= acknowledged_) return;
  for (const SealedBatch& b : queue_) {
    if (b.last.txid > acknowledged_ && b.last.txid <= txid) pending_bytes_ -= b.size;
  }
  acknowledged_ = txid;
  DropDone();
}

void Spool::DropDone() {
  while (!queue_.empty()) {
    const SealedBatch& front = queue_.front();
    const bool saved = unsaved_ < queue_.size();
    if (front.last.txid > acknowledged_ || (!saved && front.last.txid > table_)) break;
    if (!saved) --unsaved_;
    memory_bytes_ -= front.bytes.size();
    queue_.pop_front();
  }
}

Status Spool::TableFlushed(Txid table_header) {
  table_ = table_header;
  DropDone();
  while (!files_.empty()) {
    const FileInfo& info = files_.front();
    const bool is_current = files_.size() == 1 && current_.is_open();
    if (is_current && partial_bytes_ != 0) break;
    if (info.last > acknowledged_ || info.last > table_header || info.last == Txid()) break;
    if (is_current) current_.Close();
    GUILDLITE_RETURN_IF_ERROR(RemoveFile(Name(info.first)));
    file_bytes_ -= info.size;
    files_.pop_front();
  }
  return Status::Ok();
}

}  // namespace guildlite
