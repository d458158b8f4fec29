// The file methods of the two files that matter: the main database and its WAL. They pass
// everything through and report, or veto, the few calls a replicator must know of.
//
// A commit as seen here (walIndexWriteHdr(), sqlite3WalFrames() of wal.c; pager_end_transaction()
// of pager.c):
//   ShmLock READn S -> ShmLock WRITE X -> [ShmLock READ1..4 X] -> [WAL header] -> frames
//   -> header in the wal-index -> unlock WRITE -> COMMIT_PHASETWO -> unlock READn
//
// Invariants:
//   1. A call SQLite ignores the result of (unlock, unmap, close) always reaches the base VFS.
//   2. BeforeWriteLock() is asked for write transactions only. The WRITE lock is also taken to
//      rebuild the wal-index (walIndexReadHdr(), by readers: no READ lock held yet) and by FULL,
//      RESTART and TRUNCATE checkpoints (CKPT held): refusing those would make a fenced database
//      unreadable.
//   3. WAL content goes only with leave: READ1..4 exclusive (walRestartLog(), walCheckpoint()), the
//      EXCLUSIVE lock on a WAL database (sqlite3WalClose() checkpoints and deletes under it), and,
//      where none of those was granted before, truncation to zero and the writing of a WAL header
//      (in locking_mode=EXCLUSIVE no shm lock is ever taken). Refusal is SQLITE_BUSY. Leave once
//      used to restart the index stays good until a commit of the new generation: asked again, a
//      refusal would fail a commit, while at the lock it only makes the WAL longer.
//   4. kClose is asked after the EXCLUSIVE lock is held, so that nobody can commit between the
//      answer and the deletion; refused, the lock goes back to what it was.
//   5. A commit without a shm WRITE lock of this connection is reported with the index of its
//      commit frame, as seen in passing: with a wal-index on the heap nothing else tells.
//   6. A write in rollback mode begins with the RESERVED lock (sqlite3PagerBegin()) and may be
//      refused there, and nowhere later.
//   7. A database without events costs one atomic load a call, and nothing allocates in a callback.
//
// They never look at page content and read nothing back, except the 32 bytes of a WAL header when
// the page size is needed to number frames, and frame headers when a WAL is adopted late.
#pragma once

#include <sqlite3.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "vfs/capture/wal_format.h"
#include "vfs/shim/node_registry.h"

namespace guildlite {

struct ShimState;

// What SQLite's sqlite3_file.pMethods points to, and the file behind it. A file we opened is an
// OpenedFile and finds its object there, whatever somebody else has put into pMethods since; an
// adopted one has no room for that and is found through the table.
class WrappedFile {
 public:
  enum class How { kOpened, kAdopted };
  struct Table {
    sqlite3_io_methods methods;
    WrappedFile* self;
  };

  WrappedFile(const WrappedFile&) = delete;
  WrappedFile& operator=(const WrappedFile&) = delete;

  const sqlite3_io_methods* methods() const { return &table_.methods; }
  sqlite3_file* real() const { return real_; }
  const sqlite3_io_methods& base() const { return *base_; }
  bool adopted() const { return how_ == How::kAdopted; }

 protected:
  WrappedFile(ShimState& shim, How how, sqlite3_file* real)
      : shim_(shim), how_(how), real_(real), base_(real->pMethods) {
    table_.self = this;
  }
  ~WrappedFile() = default;

  ShimState& shim_;
  const How how_;
  Table table_{};
  sqlite3_file* real_;
  const sqlite3_io_methods* base_;
};

// The memory SQLite reserves for a file of ours (szOsFile); the real file follows directly.
struct OpenedFile {
  sqlite3_file header;
  WrappedFile* self;
  sqlite3_file* real() { return reinterpret_cast<sqlite3_file*>(this + 1); }
};

class WalFile;

class MainFile final : public WrappedFile {
 public:
  // `name`: the pointer SQLite passed to xOpen; it stays valid while the file is open.
  static MainFile* Opened(ShimState& shim, std::shared_ptr<OpenNode> node, OpenedFile* file,
                          const char* name);
  // `db` is asked for its WAL file when that is opened later.
  static MainFile* Adopted(ShimState& shim, std::shared_ptr<OpenNode> node, sqlite3_file* file,
                           const char* name, sqlite3* db);

  OpenNode& node() const { return *node_; }
  std::shared_ptr<OpenNode> shared_node() const { return node_; }
  sqlite3* adopted_from() const { return db_; }
  // The cache is shared after all: `db` may be closed before the file is.
  void ForgetConnection() { db_ = nullptr; }
  WalEvents* events() const;
  bool has_wal() const { return wal_ != nullptr; }

  // Wraps the WAL the pager holds open, unless that is done or it holds a rollback journal. Adopted
  // files only.
  void AdoptWal();
  // From now on all calls go to another file, opened by `vfs` under the same name: the one in place
  // was replaced. REQUIRES: nothing locked or mapped.
  int Redirect(sqlite3_vfs& vfs);
  // Whether the connection holds, or may hold, a lock on the file or maps its wal-index.
  bool in_use() const { return lock_level_ != SQLITE_LOCK_NONE || region0_ != nullptr; }

  // --- methods
  int Close(sqlite3_file* outer);
  int Lock(int level);
  int Unlock(int level);
  int FileControl(int op, void* arg);
  int ShmMap(int region, int size, int extend, void volatile** out);
  int ShmLock(int offset, int n, int flags);
  int ShmUnmap(int delete_flag);

 private:
  friend class WalFile;

  MainFile(ShimState& shim, How how, std::shared_ptr<OpenNode> node, sqlite3_file* real,
           const char* name, sqlite3* db);

  int GrantShmLock(WalEvents& events, int offset, int n);
  bool BeginsWriteTransaction() const;
  bool HasMoved() const;  // the name is another file's by now, or nobody's
  bool HoldsExclusive(int slot) const { return (shm_exclusive_ >> slot & 1) != 0; }
  void LearnIndex();
  void NoteIndex(const volatile void* region0);
  void DropIndex();
  std::optional<Salts> LiveSalts() const;

  std::shared_ptr<OpenNode> node_;
  const char* name_;
  sqlite3* db_;  // adopted files only
  WalFile* wal_ = nullptr;
  const volatile void* region0_ = nullptr;
  int lock_level_ = SQLITE_LOCK_NONE;
  uint32_t shm_shared_ = 0;  // slots held, one bit each
  uint32_t shm_exclusive_ = 0;
  bool shm_locks_known_ = true;  // false: adopted, perhaps inside a read transaction
  bool blocking_locks_ = false;  // SQLITE_FCNTL_LOCK_TIMEOUT is set
  const WalEvents* reset_granted_by_ = nullptr;  // while READ1..4 are held
  std::optional<Salts> checkpoint_salts_;        // of the header the running checkpoint works by
  std::vector<std::max_align_t>
      redirected_;  // the file after Redirect(): SQLite's memory is then unused
};

class WalFile final : public WrappedFile {
 public:
  static WalFile* Opened(ShimState& shim, MainFile& main, OpenedFile* file);
  static WalFile* Adopted(ShimState& shim, MainFile& main, sqlite3_file* file);

  // --- methods
  int Close(sqlite3_file* outer);
  int Read(void* out, int size, sqlite3_int64 offset);
  int Write(const void* bytes, int size, sqlite3_int64 offset);
  int Truncate(sqlite3_int64 size);
  int Sync(int flags);

 private:
  friend class MainFile;
  WalFile(ShimState& shim, How how, MainFile& main, sqlite3_file* real);

  WalEvents* events() const { return main_ != nullptr ? main_->events() : nullptr; }
  int HeaderWrite(WalEvents& events, const void* bytes);
  void SeeFrameBytes(const void* bytes, int size, sqlite3_int64 offset);
  bool LearnPageSize();
  void FindLastCommit();
  int Failed(int code);

  MainFile* main_;
  uint32_t page_size_ = 0;  // 0: not known
  std::array<std::byte, kFrameHeaderSize> frame_header_{};
  // The commit frame written last, if by a transaction without a shm WRITE lock; taken by
  // COMMIT_PHASETWO.
  std::optional<uint32_t> unlocked_commit_frame_;
  bool close_granted_ = false;  // since the last write
};

// Our file among those that make up the main database of `db`, also below another shim; or null.
MainFile* FindMainFile(ShimState& shim, sqlite3* db);

}  // namespace guildlite
