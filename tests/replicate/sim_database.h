// A database in WAL mode as its files show it: the main file, the -wal, what the wal-index
// publishes, and a model of what was committed. Commits, checkpoints, resets and closes run the
// events of wal_events.h in SQLite's order; a *stranger's* do the same to the files and tell
// nobody.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/segment_spec.h"
#include "tests/support/wal_builder.h"
#include "vfs/base/bytes.h"
#include "vfs/base/file_io.h"
#include "vfs/capture/database_file.h"
#include "vfs/replicate/wal_events.h"
#include "vfs/restore/restorer.h"

namespace guildlite::testing {

inline void Must(const Status& status) {
  if (status.ok()) return;
  std::cerr << status.ToString() << std::endl;
  std::abort();
}
template <class T>
T Must(Result<T> result) {
  Must(result.status());
  return std::move(*result);
}

class SimDatabase {
 public:
  struct Events {
    std::function<bool()> write_lock = [] { return true; };  // false: refused
    std::function<bool(DiscardReason)> may_discard = [](DiscardReason) { return true; };
    std::function<void(std::span<const std::byte, kWalHeaderSize>)> header =
        [](std::span<const std::byte, kWalHeaderSize>) {};
    std::function<void()> write_unlock = [] {};
  };
  using Pages = std::map<uint32_t, uint64_t>;  // page number -> seed of its image

  // One page in the file, as journal_mode=WAL leaves a new database; a connection has it open.
  explicit SimDatabase(const std::string& path, uint32_t page_size = 512, uint64_t seed = 1)
      : path_(path), page_size_(page_size), random_(seed) {
    content_ = Page(1, 0);
    file_ = Must(File::Open(path_, O_RDWR | O_CREAT | O_TRUNC, 0644));
    Must(file_.WriteAt(0, AsBytes(content_)));
    contents_.push_back(content_);
    published_ = Published{};
  }

  // As though a database with this content had been put in the file's place, cleanly closed.
  void Become(const std::string& content) {
    if (wal_) DeleteWal();
    content_ = content;
    Must(file_.WriteAt(0, AsBytes(content_)));
    Must(file_.Truncate(content_.size()));
    contents_.push_back(content_);
  }

  Events events;

  const std::string& path() const { return path_; }
  std::string wal_path() const { return path_ + "-wal"; }
  uint32_t page_size() const { return page_size_; }
  uint32_t pages() const { return static_cast<uint32_t>(content_.size() / page_size_); }
  // nullopt: no connection. Any thread.
  std::optional<Published> published() const {
    const std::lock_guard lock(mutex_);
    return published_;
  }
  const std::string& content() const { return content_; }
  // After each commit, strangers' too; [0] is before the first.
  const std::vector<std::string>& contents() const { return contents_; }
  WalBuilder& wal() { return *wal_; }

  // False: refused by the write lock. Resets the WAL first if everything in it is checkpointed and
  // `restart` (walRestartLog()); a gate that says no lets the WAL grow instead.
  bool Commit(const Pages& pages, uint32_t database_pages, bool restart = true,
              bool stranger = false) {
    if (!stranger && !events.write_lock()) return false;
    if (restart && wal_ && published_->max_frame != 0 && backfilled_ == published_->max_frame &&
        (stranger || events.may_discard(DiscardReason::kReset))) {
      Restart();
    }
    Append(pages, database_pages, stranger);
    Publish(database_pages, pages);
    if (!stranger) events.write_unlock();
    return true;
  }
  bool Stranger(const Pages& pages, uint32_t database_pages, bool restart = true) {
    return Commit(pages, database_pages, restart, true);
  }
  // Frames on disk, the commit frame too, that are never published (hazard H11).
  void CommitAndRollBack(const Pages& pages, uint32_t database_pages) {
    if (!events.write_lock()) return;
    const WalMark before = wal_->mark();
    Append(pages, database_pages, false);
    wal_->Rewind(before);
    events.write_unlock();
  }
  // A few random pages, growing and shrinking up to `pages_max` pages.
  bool CommitRandom(std::mt19937_64& random, uint32_t pages_max = 30, bool stranger = false) {
    uint32_t size = pages();
    if (random() % 4 == 0) size = 1 + static_cast<uint32_t>(random() % pages_max);
    Pages changed;
    for (uint32_t p = pages() + 1; p <= size; ++p) changed[p] = random();
    const uint64_t edits = 1 + random() % 4;
    for (uint64_t i = 0; i < edits; ++i)
      changed[1 + static_cast<uint32_t>(random() % size)] = random();
    if (size < pages() && !changed.contains(1)) changed[1] = random();
    return Commit(changed, size, random() % 2 == 0, stranger);
  }

  // All of the WAL into the file. Tells nobody: a checkpoint takes no lock that is watched.
  void Checkpoint() {
    if (!wal_ || published_->max_frame == 0) return;
    Must(file_.WriteAt(0, AsBytes(content_)));
    Must(file_.Truncate(content_.size()));
    backfilled_ = published_->max_frame;
  }
  // The first `bytes` of the content only: a checkpoint in progress.
  void CheckpointPartly(size_t bytes) {
    Must(file_.WriteAt(0, AsBytes(content_).first(std::min(bytes, content_.size()))));
  }
  // PRAGMA wal_checkpoint(RESTART): checkpoint, and a new generation without a frame.
  bool CheckpointRestart(bool stranger = false) {
    if (!wal_ || published_->max_frame == 0) return true;
    if (!stranger && !events.write_lock()) return false;
    Checkpoint();
    const bool granted = stranger || events.may_discard(DiscardReason::kReset);
    if (granted) Restart();
    if (!stranger) events.write_unlock();
    return granted;
  }
  // The last connection: checkpoint, then the WAL is deleted. False: the gate kept it.
  bool Close(bool stranger = false) {
    if (wal_ && !stranger && !events.may_discard(DiscardReason::kClose)) {
      SetPublished(std::nullopt);
      return false;
    }
    if (wal_) {
      Checkpoint();
      DeleteWal();
    }
    SetPublished(std::nullopt);
    return true;
  }
  // The process dies: files stay. What is committed is what is in them.
  void Kill() {
    events = Events();
    SetPublished(std::nullopt);
  }
  // The first connection of a process that finds the files as they are.
  void Open() {
    if (published_) return;
    SetPublished(wal_ ? wal_->published() : Published{});
  }
  // Committed while the database was in rollback-journal mode: straight into the file. REQUIRES: no
  // WAL. A commit in that mode always changes page 1 (its change counter).
  void CommitInPlace(Pages pages, uint32_t database_pages) {
    if (!pages.contains(1)) pages[1] = random_();
    ApplyPages(pages, database_pages);
    Must(file_.WriteAt(0, AsBytes(content_)));
    Must(file_.Truncate(content_.size()));
  }

  std::string Page(uint32_t pgno, uint64_t seed) const {
    std::string page = MakePage(page_size_, seed ^ (uint64_t{pgno} << 40));
    if (pgno == 1) {
      page.replace(0, 16, std::string("SQLite format 3\0", 16));
      const uint32_t size = page_size_ == 65536 ? 1 : page_size_;
      page[16] = static_cast<char>(size >> 8);
      page[17] = static_cast<char>(size);
      page[18] = page[19] = 2;
      std::string free;
      PutBig32(&free, static_cast<uint32_t>(seed % 5));
      page.replace(36, 4, free);
      page[103] = 0;
      page[104] = 1;  // one table
    }
    return page;
  }

 private:
  void Restart() {
    wal_->Reset(wal_->mark().salt1 + 1, static_cast<uint32_t>(random_()));
    Published empty = wal_->published();
    empty.max_frame = 0;
    SetPublished(empty);
    backfilled_ = 0;
    header_owed_ = true;
  }

  void Append(const Pages& pages, uint32_t database_pages, bool stranger) {
    if (!wal_) {
      wal_ = std::make_unique<WalBuilder>(page_size_, false, static_cast<uint32_t>(random_()),
                                          static_cast<uint32_t>(random_()));
      wal_file_ = Must(File::Open(wal_path(), O_RDWR | O_CREAT | O_TRUNC, 0644));
      header_owed_ = true;
      backfilled_ = 0;
    }
    if (header_owed_) {
      const auto header = AsBytes(wal_->bytes()).first<kWalHeaderSize>();
      if (!stranger) events.header(header);
      Must(wal_file_.WriteAt(0, header));
      header_owed_ = false;
    }
    const size_t from = 32 + size_t{wal_->mark().frame} * (24 + page_size_);
    size_t left = pages.size();
    for (const auto& [pgno, seed] : pages) {
      wal_->Frame(pgno, --left == 0 ? database_pages : 0, Page(pgno, seed));
    }
    const size_t to = 32 + size_t{wal_->mark().frame} * (24 + page_size_);
    Must(wal_file_.WriteAt(from, AsBytes(wal_->bytes()).subspan(from, to - from)));
  }

  void Publish(uint32_t database_pages, const Pages& pages) {
    SetPublished(wal_->published());
    ApplyPages(pages, database_pages);
  }

  void SetPublished(const std::optional<Published>& published) {
    const std::lock_guard lock(mutex_);
    published_ = published;
  }

  void ApplyPages(const Pages& pages, uint32_t database_pages) {
    content_.resize(size_t{database_pages} * page_size_, '\0');
    for (const auto& [pgno, seed] : pages) {
      if (pgno <= database_pages) {
        content_.replace(size_t{pgno - 1} * page_size_, page_size_, Page(pgno, seed));
      }
    }
    contents_.push_back(content_);
  }

  void DeleteWal() {
    wal_.reset();
    wal_file_.Close();
    Must(RemoveFile(wal_path()));
    backfilled_ = 0;
    header_owed_ = false;
  }

  const std::string path_;
  const uint32_t page_size_;
  std::mt19937_64 random_;
  File file_;
  std::unique_ptr<WalBuilder> wal_;
  File wal_file_;
  bool header_owed_ = false;
  uint32_t backfilled_ = 0;
  mutable std::mutex mutex_;
  std::optional<Published> published_;  // mutex_
  std::string content_;
  std::vector<std::string> contents_;
};

// The main file through a descriptor; `before_read` may change the world or fail the read.
class SimDatabaseFile : public DatabaseFile {
 public:
  using Hook = std::function<Status(uint64_t offset, size_t size)>;
  explicit SimDatabaseFile(const std::string& path, Hook before_read = nullptr,
                           Hook after_read = nullptr)
      : file_(Must(File::Open(path, O_RDONLY))),
        before_read_(std::move(before_read)),
        after_read_(std::move(after_read)) {}
  Result<size_t> ReadAt(uint64_t offset, std::span<std::byte> out) override {
    if (before_read_) GUILDLITE_RETURN_IF_ERROR(before_read_(offset, out.size()));
    auto n = file_.ReadAt(offset, out);
    if (after_read_) GUILDLITE_RETURN_IF_ERROR(after_read_(offset, out.size()));
    return n;
  }
  Result<uint64_t> Size() override { return file_.Size(); }

 private:
  File file_;
  Hook before_read_;
  Hook after_read_;
};

// The database of `store` as of `at`, byte for byte.
inline Result<std::string> RestoredContent(ObjectStore& store, const std::string& directory,
                                           const std::string& at) {
  static int number = 0;
  const std::string path = directory + "/restored-" + std::to_string(++number);
  auto target = RestoreTarget::Parse(at);
  if (!target.ok()) return target.status();
  auto report = Restore(store, path, *target, {});
  if (!report.ok()) return report.status();
  auto content = ReadWholeFile(path);
  Must(RemoveFile(path));
  return content;
}

}  // namespace guildlite::testing
