#include "vfs/shim/primary_file.h"

#include <algorithm>
#include <cstring>

#include "vfs/base/bytes.h"
#include "vfs/base/log.h"
#include "vfs/shim/boundary.h"
#include "vfs/shim/register.h"
#include "vfs/shim/shim_state.h"
#include "vfs/shim/wal_index.h"

namespace guildlite {
namespace {

// Lock slots of a wal-index: WAL_WRITE_LOCK, WAL_CKPT_LOCK, WAL_READ_LOCK(i) of wal.c.
constexpr int kWriteLock = 0;
constexpr int kCheckpointLock = 1;
constexpr int kReadLock0 = 3;
constexpr int kReadLock1 = 4;
constexpr int kReadLocksAbove0 = 4;      // WAL_NREADER-1: all of them at once is a reset
constexpr uint32_t kAnyReadLock = 0xf8;  // slots 3..7
constexpr int kRegionSize = 32768;       // WALINDEX_PGSZ

// Asks a main file for its MainFile. Opcodes below 100 are SQLite's; shims pass on what they do not
// know, so this reaches ours below theirs.
constexpr int kFindMainFile = 0x676c6d66;
struct FindMainFileQuery {
  const ShimState* shim;  // another copy of this module has another one
  MainFile* found;
};

// A single READ lock taken exclusively only moves its read mark (walTryBeginRead(),
// walCheckpoint(), walIndexRecover()).
bool IsReset(int offset, int n) { return offset == kReadLock1 && n == kReadLocksAbove0; }

uint32_t Slots(int offset, int n) { return ((1u << n) - 1) << offset; }

bool MayDiscard(WalEvents& events, DiscardReason reason) {
  bool may = false;
  Shielded([&] { may = events.MayDiscardWal(reason); });
  return may;
}

WrappedFile& OfOpened(sqlite3_file* file) { return *reinterpret_cast<OpenedFile*>(file)->self; }
WrappedFile& OfAdopted(sqlite3_file* file) {
  return *reinterpret_cast<const WrappedFile::Table*>(file->pMethods)->self;
}

// The method table: what is not replaced goes to the base VFS.
template <WrappedFile& (*Of)(sqlite3_file*)>
struct Pass {
  static int Read(sqlite3_file* file, void* out, int size, sqlite3_int64 offset) {
    WrappedFile& f = Of(file);
    return f.base().xRead(f.real(), out, size, offset);
  }
  static int Write(sqlite3_file* file, const void* bytes, int size, sqlite3_int64 offset) {
    WrappedFile& f = Of(file);
    return f.base().xWrite(f.real(), bytes, size, offset);
  }
  static int Truncate(sqlite3_file* file, sqlite3_int64 size) {
    WrappedFile& f = Of(file);
    return f.base().xTruncate(f.real(), size);
  }
  static int Sync(sqlite3_file* file, int flags) {
    WrappedFile& f = Of(file);
    return f.base().xSync(f.real(), flags);
  }
  static int FileSize(sqlite3_file* file, sqlite3_int64* size) {
    WrappedFile& f = Of(file);
    return f.base().xFileSize(f.real(), size);
  }
  static int Lock(sqlite3_file* file, int level) {
    WrappedFile& f = Of(file);
    return f.base().xLock(f.real(), level);
  }
  static int Unlock(sqlite3_file* file, int level) {
    WrappedFile& f = Of(file);
    return f.base().xUnlock(f.real(), level);
  }
  static int CheckReservedLock(sqlite3_file* file, int* out) {
    WrappedFile& f = Of(file);
    return f.base().xCheckReservedLock(f.real(), out);
  }
  static int FileControl(sqlite3_file* file, int op, void* arg) {
    WrappedFile& f = Of(file);
    return f.base().xFileControl(f.real(), op, arg);
  }
  static int SectorSize(sqlite3_file* file) {
    WrappedFile& f = Of(file);
    return f.base().xSectorSize(f.real());
  }
  static int DeviceCharacteristics(sqlite3_file* file) {
    WrappedFile& f = Of(file);
    return f.base().xDeviceCharacteristics(f.real());
  }
  static int ShmMap(sqlite3_file* file, int region, int size, int extend, void volatile** out) {
    WrappedFile& f = Of(file);
    return f.base().xShmMap(f.real(), region, size, extend, out);
  }
  static int ShmLock(sqlite3_file* file, int offset, int n, int flags) {
    WrappedFile& f = Of(file);
    return f.base().xShmLock(f.real(), offset, n, flags);
  }
  static void ShmBarrier(sqlite3_file* file) {
    WrappedFile& f = Of(file);
    f.base().xShmBarrier(f.real());
  }
  static int ShmUnmap(sqlite3_file* file, int delete_flag) {
    WrappedFile& f = Of(file);
    return f.base().xShmUnmap(f.real(), delete_flag);
  }
  static int Fetch(sqlite3_file* file, sqlite3_int64 offset, int size, void** out) {
    WrappedFile& f = Of(file);
    return f.base().xFetch(f.real(), offset, size, out);
  }
  static int Unfetch(sqlite3_file* file, sqlite3_int64 offset, void* page) {
    WrappedFile& f = Of(file);
    return f.base().xUnfetch(f.real(), offset, page);
  }

  static constexpr sqlite3_io_methods kMethods = {
      .iVersion = 3,
      .xClose = nullptr,
      .xRead = Read,
      .xWrite = Write,
      .xTruncate = Truncate,
      .xSync = Sync,
      .xFileSize = FileSize,
      .xLock = Lock,
      .xUnlock = Unlock,
      .xCheckReservedLock = CheckReservedLock,
      .xFileControl = FileControl,
      .xSectorSize = SectorSize,
      .xDeviceCharacteristics = DeviceCharacteristics,
      .xShmMap = ShmMap,
      .xShmLock = ShmLock,
      .xShmBarrier = ShmBarrier,
      .xShmUnmap = ShmUnmap,
      .xFetch = Fetch,
      .xUnfetch = Unfetch,
  };
};

template <WrappedFile& (*Of)(sqlite3_file*)>
struct Main {
  static MainFile& Self(sqlite3_file* file) { return static_cast<MainFile&>(Of(file)); }
  static int Close(sqlite3_file* file) noexcept { return Self(file).Close(file); }
  static int Lock(sqlite3_file* file, int level) noexcept { return Self(file).Lock(level); }
  static int Unlock(sqlite3_file* file, int level) noexcept { return Self(file).Unlock(level); }
  static int FileControl(sqlite3_file* file, int op, void* arg) noexcept {
    return Guarded([&] { return Self(file).FileControl(op, arg); });
  }
  static int ShmMap(sqlite3_file* file, int region, int size, int extend,
                    void volatile** out) noexcept {
    return Guarded([&] { return Self(file).ShmMap(region, size, extend, out); });
  }
  static int ShmLock(sqlite3_file* file, int offset, int n, int flags) noexcept {
    return Guarded([&] { return Self(file).ShmLock(offset, n, flags); });
  }
  static int ShmUnmap(sqlite3_file* file, int delete_flag) noexcept {
    return Self(file).ShmUnmap(delete_flag);
  }

  static constexpr sqlite3_io_methods Methods() {
    sqlite3_io_methods methods = Pass<Of>::kMethods;
    methods.xClose = Close;
    methods.xLock = Lock;
    methods.xUnlock = Unlock;
    methods.xFileControl = FileControl;
    methods.xShmMap = ShmMap;
    methods.xShmLock = ShmLock;
    methods.xShmUnmap = ShmUnmap;
    return methods;
  }
};

template <WrappedFile& (*Of)(sqlite3_file*)>
struct Wal {
  static WalFile& Self(sqlite3_file* file) { return static_cast<WalFile&>(Of(file)); }
  static int Close(sqlite3_file* file) noexcept { return Self(file).Close(file); }
  static int Read(sqlite3_file* file, void* out, int size, sqlite3_int64 offset) noexcept {
    return Self(file).Read(out, size, offset);
  }
  static int Write(sqlite3_file* file, const void* bytes, int size, sqlite3_int64 offset) noexcept {
    return Guarded([&] { return Self(file).Write(bytes, size, offset); });
  }
  static int Truncate(sqlite3_file* file, sqlite3_int64 size) noexcept {
    return Guarded([&] { return Self(file).Truncate(size); });
  }
  static int Sync(sqlite3_file* file, int flags) noexcept { return Self(file).Sync(flags); }

  static constexpr sqlite3_io_methods Methods() {
    sqlite3_io_methods methods = Pass<Of>::kMethods;
    methods.xClose = Close;
    methods.xRead = Read;
    methods.xWrite = Write;
    methods.xTruncate = Truncate;
    methods.xSync = Sync;
    return methods;
  }
};

// A table never promises more than the file behind it: a version 3 table over a version 2 file
// would make SQLite call an xFetch that is not there.
sqlite3_io_methods Limited(sqlite3_io_methods ours, const sqlite3_io_methods& base) {
  ours.iVersion = std::min(ours.iVersion, base.iVersion);
  if (base.xSectorSize == nullptr) ours.xSectorSize = nullptr;
  if (base.iVersion < 2 || base.xShmMap == nullptr) {
    ours.xShmMap = nullptr;
    ours.xShmLock = nullptr;
    ours.xShmBarrier = nullptr;
    ours.xShmUnmap = nullptr;
  }
  if (base.iVersion < 3) {
    ours.xFetch = nullptr;
    ours.xUnfetch = nullptr;
  }
  return ours;
}

}  // namespace

// ---------------------------------------------------------------------------------------- MainFile

MainFile::MainFile(ShimState& shim, How how, std::shared_ptr<OpenNode> node, sqlite3_file* real,
                   const char* name, sqlite3* db)
    : WrappedFile(shim, how, real),
      node_(std::move(node)),
      name_(name),
      db_(db),
      shm_locks_known_(how == How::kOpened) {
  table_.methods =
      Limited(adopted() ? Main<OfAdopted>::Methods() : Main<OfOpened>::Methods(), base());
  if (!adopted()) return;
  // What the pager did before us. SQLITE_FCNTL_LOCKSTATE is answered by the VFSes of SQLite itself;
  // where it is not known, the worst guess is only that a refused EXCLUSIVE lock falls back to
  // SHARED.
  int level = SQLITE_LOCK_SHARED;
  if (base().xFileControl(real, SQLITE_FCNTL_LOCKSTATE, &level) == SQLITE_OK) lock_level_ = level;
}

MainFile* MainFile::Opened(ShimState& shim, std::shared_ptr<OpenNode> node, OpenedFile* file,
                           const char* name) {
  auto* main = new MainFile(shim, How::kOpened, std::move(node), file->real(), name, nullptr);
  shim.nodes.AddMain(name, main);
  file->self = main;
  file->header.pMethods = main->methods();
  return main;
}

MainFile* MainFile::Adopted(ShimState& shim, std::shared_ptr<OpenNode> node, sqlite3_file* file,
                            const char* name, sqlite3* db) {
  auto* main = new MainFile(shim, How::kAdopted, std::move(node), file, name, db);
  file->pMethods = main->methods();
  return main;
}

WalEvents* MainFile::events() const {
  WalEvents* const events = node_->current_events();
  return events != nullptr && InForkedChild() ? nullptr : events;
}

void MainFile::AdoptWal() {
  if (wal_ != nullptr || db_ == nullptr) return;
  sqlite3_file* file = nullptr;
  if (shim_.api.file_control(db_, nullptr, SQLITE_FCNTL_JOURNAL_POINTER, &file) != SQLITE_OK ||
      file == nullptr || file->pMethods == nullptr) {
    return;
  }
  // sqlite3PagerJrnlFile() gives the rollback journal while no WAL is open. With shm locks in use
  // it is the WAL; without (locking_mode=EXCLUSIVE) the magic tells, once there is a header.
  if (region0_ == nullptr) {
    std::array<unsigned char, 4> magic{};
    if (file->pMethods->xRead(file, magic.data(), magic.size(), 0) != SQLITE_OK ||
        (LoadBig32(magic.data()) & ~1u) != kWalMagic) {
      return;
    }
  }
  wal_ = WalFile::Adopted(shim_, *this, file);
}

int MainFile::Redirect(sqlite3_vfs& vfs) {
  std::vector<std::max_align_t> memory(
      static_cast<size_t>(vfs.szOsFile) / sizeof(std::max_align_t) + 1);
  auto* const file = reinterpret_cast<sqlite3_file*>(memory.data());
  int flags = 0;
  const int code =
      vfs.xOpen(&vfs, name_, file, SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_READWRITE, &flags);
  if (code != SQLITE_OK) {
    if (file->pMethods != nullptr) file->pMethods->xClose(file);
    return code;
  }
  // Of an adopted file, the very one SQLite holds.
  sqlite3_file* const before = real_;
  if (adopted()) before->pMethods = base_;
  base_->xClose(before);
  redirected_ = std::move(memory);
  real_ = file;
  base_ = file->pMethods;
  table_.methods =
      Limited(adopted() ? Main<OfAdopted>::Methods() : Main<OfOpened>::Methods(), base());
  if (adopted()) before->pMethods = methods();
  return SQLITE_OK;
}

int MainFile::Close(sqlite3_file* outer) {
  if (wal_ != nullptr) wal_->main_ = nullptr;
  if (adopted() && real_ == outer) outer->pMethods = base_;
  if (InForkedChild()) {
    // The registry's mutex may be held by a thread that does not exist here, and the node belongs
    // to the parent: both stay as they are.
    return base_->xClose(real_);
  }
  DropIndex();
  if (!adopted()) shim_.nodes.RemoveMain(name_);
  const bool last = shim_.nodes.Leave(*node_);
  if (last) Shielded([&] { shim_.host.LastClosing(*node_); });
  const int code = base_->xClose(real_);
  if (last) shim_.nodes.Gone(*node_);
  delete this;
  return code;
}

int MainFile::Lock(int level) {
  const int before = lock_level_;
  if (level == SQLITE_LOCK_RESERVED) {
    if (WalEvents* const events = this->events()) {
      const int refused = Guarded([&] { return WriteLockCode(events->BeforeRollbackWrite()); });
      if (refused != SQLITE_OK) return refused;
    }
  }
  const int code = base_->xLock(real_, level);
  if (code != SQLITE_OK) return code;
  if (before == SQLITE_LOCK_NONE && node_->replaceable() && HasMoved()) {
    // It would go on with the new file's WAL. Whoever replaces the file has every lock of it, so
    // that with one of them in hand the answer holds.
    base_->xUnlock(real_, SQLITE_LOCK_NONE);
    Shielded([&] {
      Log(LogLevel::kWarn, "REPLACED", node_->path(),
          "the file was replaced after this connection had opened it: close it and open it again");
    });
    return SQLITE_CANTOPEN;
  }
  lock_level_ = std::max(lock_level_, level);
  if (level != SQLITE_LOCK_EXCLUSIVE || (wal_ == nullptr && region0_ == nullptr)) return code;
  WalEvents* const events = this->events();
  if (events == nullptr) return code;
  if (MayDiscard(*events, DiscardReason::kClose)) {
    if (wal_ != nullptr) wal_->close_granted_ = true;
    return code;
  }
  // sqlite3WalClose() of a connection in locking_mode=EXCLUSIVE asks for what it holds already.
  if (before < SQLITE_LOCK_EXCLUSIVE) Unlock(SQLITE_LOCK_SHARED);
  return SQLITE_BUSY;
}

bool MainFile::HasMoved() const {
  int moved = 0;
  return base_->xFileControl(real_, SQLITE_FCNTL_HAS_MOVED, &moved) == SQLITE_OK && moved != 0;
}

int MainFile::Unlock(int level) {
  if (lock_level_ == SQLITE_LOCK_EXCLUSIVE && level < SQLITE_LOCK_EXCLUSIVE) {
    if (WalEvents* const events = this->events()) Shielded([&] { events->LeavingExclusive(); });
  }
  const int code = base_->xUnlock(real_, level);
  if (code == SQLITE_OK) lock_level_ = std::min(lock_level_, level);
  return code;
}

int MainFile::FileControl(int op, void* arg) {
  if (op == kFindMainFile) {
    auto* const query = static_cast<FindMainFileQuery*>(arg);
    if (query->shim == &shim_) {
      query->found = this;
      return SQLITE_OK;
    }
  }
  // walEnableBlocking() of wal.c; the base VFS answers with the old value in the same place.
  if (op == SQLITE_FCNTL_LOCK_TIMEOUT) blocking_locks_ = *static_cast<const int*>(arg) != 0;
  const int code = base_->xFileControl(real_, op, arg);
  if (op == SQLITE_FCNTL_VFSNAME && code == SQLITE_OK) {
    char** const name = static_cast<char**>(arg);
    *name = shim_.api.mprintf("%s/%z", shim_.vfs.zName, *name);
  } else if (op == SQLITE_FCNTL_COMMIT_PHASETWO) {
    WalEvents* const events = this->events();
    if (events == nullptr) return code;
    // locking_mode=EXCLUSIVE takes no shm lock that would have brought a late WAL to our notice.
    if (adopted() && wal_ == nullptr && lock_level_ == SQLITE_LOCK_EXCLUSIVE) {
      AdoptWal();
      if (wal_ != nullptr) wal_->FindLastCommit();
    }
    std::optional<uint32_t> frame;
    if (wal_ != nullptr) frame = std::exchange(wal_->unlocked_commit_frame_, std::nullopt);
    const int ours =
        Guarded([&] { return CommitCode(events->Committed(frame)); }, SQLITE_IOERR_FSYNC);
    if (ours != SQLITE_OK) return ours;
  }
  return code;
}

int MainFile::ShmMap(int region, int size, int extend, void volatile** out) {
  // The first call for an index (wal.c keeps what it was given): no lock of it can be held yet.
  if (region == 0 && region0_ == nullptr) shm_locks_known_ = true;
  const int code = base_->xShmMap(real_, region, size, extend, out);
  // READONLY: mapped, of a -shm this process may not write.
  if (region == 0 && (code == SQLITE_OK || code == SQLITE_READONLY) && *out != nullptr) {
    NoteIndex(*out);
  }
  return code;
}

void MainFile::NoteIndex(const volatile void* region0) {
  if (region0_ == region0 || InForkedChild()) return;
  DropIndex();
  region0_ = region0;
  node_->Mapped(this, region0);
}

void MainFile::DropIndex() {
  if (region0_ == nullptr || InForkedChild()) return;
  region0_ = nullptr;
  Shielded([&] { node_->Unmapping(this); });
}

int MainFile::ShmUnmap(int delete_flag) {
  DropIndex();
  shm_shared_ = 0;
  shm_exclusive_ = 0;
  checkpoint_salts_.reset();
  return base_->xShmUnmap(real_, delete_flag);
}

// Adopted: SQLite mapped the index before us. It takes shm locks only of an index it has mapped or
// is about to create, and region 0 stays where it is (unixShmMap() keeps apRegion[]).
void MainFile::LearnIndex() {
  if (region0_ == nullptr) {
    void volatile* region0 = nullptr;
    const int code = base_->xShmMap(real_, 0, kRegionSize, 0, &region0);
    if ((code == SQLITE_OK || code == SQLITE_READONLY) && region0 != nullptr) NoteIndex(region0);
  }
  if (region0_ != nullptr && wal_ == nullptr) AdoptWal();
}

bool MainFile::BeginsWriteTransaction() const {
  if (HoldsExclusive(kCheckpointLock)) return false;
  return blocking_locks_ || !shm_locks_known_ || (shm_shared_ & kAnyReadLock) != 0;
}

int MainFile::ShmLock(int offset, int n, int flags) {
  const uint32_t slots = Slots(offset, n);
  const bool exclusive = (flags & SQLITE_SHM_EXCLUSIVE) != 0;
  WalEvents* const events = this->events();

  if ((flags & SQLITE_SHM_UNLOCK) != 0) {
    if (exclusive && offset == kWriteLock && n == 1) {
      if (events != nullptr) {
        Shielded([&] { events->BeforeWriteUnlock(); });
        // walIndexReadHdr() rebuilt the index for a checkpoint: the header it goes by is this one.
        if (HoldsExclusive(kCheckpointLock)) checkpoint_salts_ = LiveSalts();
      }
    } else if (exclusive && IsReset(offset, n) && reset_granted_by_ != nullptr) {
      // Whoever writes the header of the generation that this lock has begun needs no leave any
      // more.
      node_->NoteGranted(std::exchange(reset_granted_by_, nullptr), LiveSalts());
    }
    if (!exclusive) shm_locks_known_ = true;
    shm_shared_ &= ~slots;
    shm_exclusive_ &= ~slots;
    return base_->xShmLock(real_, offset, n, flags);
  }

  if (adopted() && (region0_ == nullptr || wal_ == nullptr)) LearnIndex();
  if (!exclusive) {
    const int code = base_->xShmLock(real_, offset, n, flags);
    if (code == SQLITE_OK) {
      shm_shared_ |= slots;
      shm_locks_known_ = true;
    }
    return code;
  }
  if (events != nullptr) return GrantShmLock(*events, offset, n);
  const int code = base_->xShmLock(real_, offset, n, flags);
  if (code == SQLITE_OK) shm_exclusive_ |= slots;
  return code;
}

// An exclusive lock on a replicated database.
int MainFile::GrantShmLock(WalEvents& events, int offset, int n) {
  const bool reset = IsReset(offset, n);
  if (offset == kWriteLock && n == 1 && BeginsWriteTransaction()) {
    const int code = Guarded([&] { return WriteLockCode(events.BeforeWriteLock()); }, SQLITE_IOERR);
    if (code != SQLITE_OK) return code;
  }
  // The caller holds the WRITE lock, so what is committed now is all there will be.
  if (reset && !MayDiscard(events, DiscardReason::kReset)) return SQLITE_BUSY;

  const int code = base_->xShmLock(real_, offset, n, SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE);
  if (code != SQLITE_OK) return code;
  shm_exclusive_ |= Slots(offset, n);
  if (reset) reset_granted_by_ = &events;
  if (offset == kCheckpointLock) Shielded([&] { events.CheckpointBegins(); });

  // The WAL-reset bug: a checkpoint that read the header, and then is overtaken by a commit that
  // resets the WAL, copies by the old header and marks frames as backfilled that nobody copied.
  // SQLite's own fix compares the salts after READ0 is locked; here the same, one floor lower. BUSY
  // there ends a checkpoint quietly (walCheckpoint()). A checkpoint that also takes the WRITE lock
  // reads its header under it.
  if (!shim_.guard_resets || region0_ == nullptr || n != 1) return code;
  if (offset == kCheckpointLock || (offset == kWriteLock && HoldsExclusive(kCheckpointLock))) {
    checkpoint_salts_ = LiveSalts();
  } else if (offset == kReadLock0 && HoldsExclusive(kCheckpointLock)) {
    const std::optional<Salts> now = LiveSalts();
    if (!now || now != checkpoint_salts_) {
      base_->xShmLock(real_, offset, n, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
      shm_exclusive_ &= ~Slots(offset, n);
      return SQLITE_BUSY;
    }
  }
  return code;
}

std::optional<Salts> MainFile::LiveSalts() const {
  if (region0_ == nullptr) return std::nullopt;
  const std::optional<Published> published = ReadPublished(region0_, nullptr);
  if (!published) return std::nullopt;
  return Salts{published->salt1, published->salt2};
}

// ----------------------------------------------------------------------------------------- WalFile

WalFile::WalFile(ShimState& shim, How how, MainFile& main, sqlite3_file* real)
    : WrappedFile(shim, how, real), main_(&main) {
  table_.methods =
      Limited(adopted() ? Wal<OfAdopted>::Methods() : Wal<OfOpened>::Methods(), base());
}

WalFile* WalFile::Opened(ShimState& shim, MainFile& main, OpenedFile* file) {
  auto* wal = new WalFile(shim, How::kOpened, main, file->real());
  main.wal_ = wal;
  file->self = wal;
  file->header.pMethods = wal->methods();
  return wal;
}

WalFile* WalFile::Adopted(ShimState& shim, MainFile& main, sqlite3_file* file) {
  auto* wal = new WalFile(shim, How::kAdopted, main, file);
  file->pMethods = wal->methods();
  return wal;
}

int WalFile::Close(sqlite3_file* outer) {
  if (main_ != nullptr) main_->wal_ = nullptr;
  if (adopted()) outer->pMethods = base_;
  const int code = base_->xClose(real_);
  delete this;
  return code;
}

int WalFile::Read(void* out, int size, sqlite3_int64 offset) {
  return Failed(base_->xRead(real_, out, size, offset));
}

int WalFile::Sync(int flags) { return Failed(base_->xSync(real_, flags)); }

int WalFile::Truncate(sqlite3_int64 size) {
  // To zero: a TRUNCATE checkpoint, under the lock of its reset, for which leave was given (in
  // locking_mode=EXCLUSIVE there is none: it reports the BUSY); or the last close with
  // SQLITE_FCNTL_PERSIST_WAL, which ignores it. Both have checkpointed everything, so a WAL that
  // stays is merely long. To anything else: walLimitSize() after the first commit of a generation,
  // at or above the last frame; what goes is of generations whose reset was granted.
  WalEvents* const events = this->events();
  if (size == 0 && events != nullptr && !main_->HoldsExclusive(kReadLock1) &&
      !MayDiscard(*events, DiscardReason::kTruncate)) {
    return SQLITE_BUSY;
  }
  return base_->xTruncate(real_, size);
}

int WalFile::Write(const void* bytes, int size, sqlite3_int64 offset) {
  WalEvents* const events = this->events();
  if (events == nullptr) return base_->xWrite(real_, bytes, size, offset);
  if (std::exchange(close_granted_, false)) Shielded([&] { events->CloseAbandoned(); });
  if (offset == 0 && size == kWalHeaderSize) return HeaderWrite(*events, bytes);
  const int code = Failed(base_->xWrite(real_, bytes, size, offset));
  if (code == SQLITE_OK && !main_->HoldsExclusive(kWriteLock)) SeeFrameBytes(bytes, size, offset);
  return code;
}

int WalFile::HeaderWrite(WalEvents& events, const void* bytes) {
  if (!main_->HoldsExclusive(kWriteLock)) {
    const int code =
        Guarded([&] { return WriteLockCode(events.BeforeExclusiveWrite()); }, SQLITE_IOERR);
    if (code != SQLITE_OK) return Failed(code);
  }
  const std::optional<Salts> live = main_->LiveSalts();
  if (!live || live != main_->node().granted_generation()) {
    // locking_mode=EXCLUSIVE, or somebody unknown to us restarted the index and wrote nothing. The
    // index stays restarted; a BUSY here rolls back and the next writer comes here again.
    sqlite3_int64 size = 0;
    const int code = base_->xFileSize(real_, &size);
    if (code != SQLITE_OK) return Failed(code);
    if (size > 0 && !MayDiscard(events, DiscardReason::kLoneReset)) return Failed(SQLITE_BUSY);
  }
  const auto* const header = static_cast<const std::byte*>(bytes);
  page_size_ = LoadBig32(header + 8);
  Shielded([&] {
    events.WalHeaderWriting(std::span<const std::byte, kWalHeaderSize>(header, kWalHeaderSize));
  });
  return Failed(base_->xWrite(real_, bytes, kWalHeaderSize, 0));
}

// Frame headers arrive as 24 bytes of their own, but a write is split where the padding of a commit
// crosses the sync point (walWriteToLog()).
void WalFile::SeeFrameBytes(const void* bytes, int size, sqlite3_int64 offset) {
  if (offset < static_cast<sqlite3_int64>(kWalHeaderSize) || !LearnPageSize()) return;
  const uint64_t frame_size = kFrameHeaderSize + page_size_;
  const uint64_t from_first = static_cast<uint64_t>(offset) - kWalHeaderSize;
  const uint64_t at = from_first % frame_size;
  if (at >= kFrameHeaderSize) return;
  const size_t count = std::min<size_t>(static_cast<size_t>(size), kFrameHeaderSize - at);
  std::memcpy(frame_header_.data() + at, bytes, count);
  if (at + count < kFrameHeaderSize) return;
  if (FrameHeader::Decode(frame_header_).commit_pages != 0) {
    unlocked_commit_frame_ = static_cast<uint32_t>(from_first / frame_size) + 1;
  }
}

bool WalFile::LearnPageSize() {
  if (page_size_ != 0) return true;
  std::array<std::byte, kWalHeaderSize> bytes;
  if (base_->xRead(real_, bytes.data(), bytes.size(), 0) != SQLITE_OK) return false;
  const std::optional<WalHeader> header = WalHeader::Decode(bytes);
  if (header) page_size_ = header->page_size;
  return header.has_value();
}

// Adopted in the middle: the commit that led here went by unseen. Its frame is the last commit
// frame of the generation in the file.
void WalFile::FindLastCommit() {
  std::array<std::byte, kWalHeaderSize> bytes;
  if (base_->xRead(real_, bytes.data(), bytes.size(), 0) != SQLITE_OK) return;
  const std::optional<WalHeader> header = WalHeader::Decode(bytes);
  if (!header) return;
  page_size_ = header->page_size;
  for (uint32_t frame = 1;; ++frame) {
    const auto offset = static_cast<sqlite3_int64>(FrameOffset(frame, page_size_));
    if (base_->xRead(real_, frame_header_.data(), kFrameHeaderSize, offset) != SQLITE_OK) return;
    const FrameHeader read = FrameHeader::Decode(frame_header_);
    if (read.salt1 != header->salt1 || read.salt2 != header->salt2) return;
    if (read.commit_pages != 0) unlocked_commit_frame_ = frame;
  }
}

// A commit that fails after its commit frame was written is rolled back and its frames are reused
// (sqlite3WalUndo()): it must not be reported with a later, empty commit.
int WalFile::Failed(int code) {
  if (code != SQLITE_OK) unlocked_commit_frame_.reset();
  return code;
}

// ----------------------------------------------------------------------------------------

MainFile* FindMainFile(ShimState& shim, sqlite3* db) {
  FindMainFileQuery query{.shim = &shim, .found = nullptr};
  if (shim.api.file_control(db, nullptr, kFindMainFile, &query) != SQLITE_OK) return nullptr;
  return query.found;
}

}  // namespace guildlite
