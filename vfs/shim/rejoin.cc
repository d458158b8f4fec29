// The part of the Engine that brings a database back which is not what its store ends in
// (on_diverged=use_store): what it holds is saved under orphans/ and acknowledged, then the file is
// replaced by a restore, and whoever opened it goes on from there as any new owner does.
//
// Others must not go on with the old file, since its WAL and the new one's have the same name:
//
//   has it locked            (every WAL connection that read once) nothing is replaced
//   opens it meanwhile       with on_diverged=use_store waits for its turn, the flock of the folder
//                            app.db-guildlite, and then goes on with what it finds; BUSY
//                            when that takes longer than open_wait_ms
//   has it open, unlocked    with on_diverged=use_store is refused its first lock
//   (MainFile::Lock()) claims it meanwhile      finds the folder's lock taken, from before the
//   restore until after the
//                            rename
//
// A program without the extension, or without on_diverged=use_store, that has opened the file and
// not read it yet is not noticed: it must not be there.
//
// Until the rename that puts the restored file in place nothing that the database says has changed;
// each step may be the last, and the next open begins again.

#include <fcntl.h>
#include <sqlite3ext.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <utility>

#include "guildlite/clock.h"
#include "vfs/base/file_io.h"
#include "vfs/base/log.h"
#include "vfs/objects/manifest.h"
#include "vfs/replicate/local_image.h"
#include "vfs/replicate/sidecar.h"
#include "vfs/shim/adopt.h"
#include "vfs/shim/engine.h"
#include "vfs/shim/register.h"
#include "vfs/shim/shim_state.h"

#undef sqlite3_api  // through TheShim() alone

namespace guildlite {
namespace {

constexpr int64_t kTurnPollMs = 10;

// Of SQLite's own VFS, past the shim, with every other connection of any process locked out. It
// leaves the WAL as it is unless told.
class SoleConnection {
 public:
  SoleConnection() = default;
  ~SoleConnection() {
    if (db_ != nullptr) api_.close(db_);
  }
  SoleConnection(const SoleConnection&) = delete;
  SoleConnection& operator=(const SoleConnection&) = delete;

  // BUSY: others have it open.
  Status Open(const std::string& path) {
    int code = api_.open_v2(path.c_str(), &db_, SQLITE_OPEN_READWRITE, TheShim()->base.zName);
    if (code == SQLITE_OK) {
      // Its WAL is not deleted by name when it closes: the name may be another file's by then.
      int persist = 1;
      api_.file_control(db_, "main", SQLITE_FCNTL_PERSIST_WAL, &persist);
      code = api_.db_config(db_, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
    }
    for (const char* sql : {"PRAGMA locking_mode=EXCLUSIVE", "BEGIN EXCLUSIVE", "COMMIT"}) {
      if (code == SQLITE_OK) code = api_.exec(db_, sql, nullptr, nullptr, nullptr);
    }
    if (code == SQLITE_OK) return Status::Ok();
    return Status((code & 0xff) == SQLITE_BUSY ? Tag::kBusy : Tag::kLocalIo,
                  "open " + path + " alone: " + api_.errmsg(db_), (code & 0xff) == SQLITE_BUSY);
  }

  // All of the WAL into the file, and nothing left in it.
  Status EmptyWal() {
    const int code =
        api_.wal_checkpoint_v2(db_, "main", SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr);
    if (code == SQLITE_OK) return Status::Ok();
    return Status(Tag::kLocalIo, std::string("empty the WAL: ") + api_.errmsg(db_));
  }

 private:
  const sqlite3_api_routines& api_ = TheShim()->api;
  sqlite3* db_ = nullptr;
};

// Whether the log is this file's as far as its folder and the manifest tell: then it is resumed as
// ever, and nothing has to be compared.
bool IsResumed(const std::string& path, const std::string& url, const Manifest& m) {
  const auto state = Sidecar(path + "-guildlite").ReadState();
  if (!state.ok() || !*state) return false;
  const SidecarState& s = **state;
  const auto file = IdentityOf(path);
  return file.ok() && s.url == url && s.lineage == m.lineage && s.device == file->device &&
         s.inode == file->inode && !s.diverged && m.session != Session() &&
         (m.session == s.session || m.session == s.planned);
}

// Whoever could open the one can open the other. REQUIRES: nobody has `to` open.
Status TakeAccessOf(const std::string& from, const std::string& to) {
  struct stat wanted;
  if (::stat(from.c_str(), &wanted) != 0) return ErrnoStatus(errno, "look at", from);
  const auto file = File::Open(to, O_RDWR);
  if (!file.ok()) return file.status();
  struct stat now;
  if (::fstat(file->fd(), &now) != 0) return ErrnoStatus(errno, "look at", to);
  if ((now.st_uid != wanted.st_uid || now.st_gid != wanted.st_gid) &&
      ::fchown(file->fd(), wanted.st_uid, wanted.st_gid) != 0) {
    return ErrnoStatus(errno, "give the owner of the database to", to);
  }
  if (::fchmod(file->fd(), wanted.st_mode & 07777) != 0) {
    return ErrnoStatus(errno, "give the mode of the database to", to);
  }
  return file->Sync();
}

// One process at a time: the flock of the folder itself, which leaves nothing behind.
class Turn {
 public:
  Turn() = default;
  ~Turn() {
    // Also where a forked child has the descriptor.
    if (folder_.is_open()) ::flock(folder_.fd(), LOCK_UN);
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

  // BUSY: not by then.
  Status Await(const std::string& path, int64_t timeout_ms) {
    const std::string folder = path + "-guildlite";
    GUILDLITE_RETURN_IF_ERROR(MakeDirectory(folder));
    auto opened = File::Open(folder, O_RDONLY | O_DIRECTORY);
    if (!opened.ok()) return opened.status();
    const int64_t deadline = SystemClock().MonotonicMs() + timeout_ms;
    while (::flock(opened->fd(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK && errno != EINTR) return ErrnoStatus(errno, "lock", folder);
      if (SystemClock().MonotonicMs() >= deadline) {
        return Status(Tag::kBusy,
                      path +
                          " is being replaced by what its store ends in, by another process "
                          "(on_diverged=use_store); open it again later",
                      true);
      }
      waited_ = true;
      std::mutex mutex;
      std::condition_variable never;
      std::unique_lock lock(mutex);
      SystemClock().WaitFor(never, lock, kTurnPollMs);
    }
    folder_ = std::move(*opened);
    return Status::Ok();
  }
  bool waited() const { return waited_; }

 private:
  File folder_;
  bool waited_ = false;
};

}  // namespace

Result<bool> Engine::WantsRejoin(const std::string& path, const Options& options) {
  if (options.on_diverged != "use_store") return false;
  // The file might be all there is of another database.
  GUILDLITE_RETURN_IF_ERROR(CheckClash(path, options.url));
  auto store = stores_.Open(options.url, Stores::kReadingPatienceMs);
  if (!store.ok()) return store.status();
  const auto manifest = ReadManifest(**store);
  if (manifest.status().tag() == Tag::kNotFound) return false;
  if (!manifest.ok()) return manifest.status();
  return !IsResumed(path, options.url, manifest->manifest);
}

Status Engine::Rejoin(Node& node, const Options& options, bool* taken) {
  const std::string& path = node.path();
  *taken = false;
  auto wanted = WantsRejoin(path, options);
  if (!wanted.ok() || !*wanted) return wanted.status();
  node.ExpectReplacement();
  const auto before = IdentityOf(path);
  Turn turn;
  const Status got = turn.Await(path, options.open_wait_ms);
  *taken = got.tag() == Tag::kBusy;
  if (!got.ok()) return got;
  if (turn.waited()) {
    const auto now = IdentityOf(path);
    if (before.ok() && now.ok() && !now->SameFile(*before)) return Status::Ok();
    wanted = WantsRejoin(path, options);
    if (!wanted.ok() || !*wanted) return wanted.status();
  }
  return RejoinInTurn(node, options);
}

Status Engine::RejoinInTurn(Node& node, const Options& options) {
  const std::string& path = node.path();
  SoleConnection sole;
  GUILDLITE_RETURN_IF_ERROR(sole.Open(path));
  const auto published = PublishedByChain(node.wal_path());
  if (!published.ok()) return published.status();

  // It decides as at any open, and keeps what a refusal would leave behind.
  auto started = MakeReplicator(node, path, options, Asking::kEnvironment,
                                [p = *published](const volatile void*) { return p; });
  if (!started.ok()) return started.status();
  const std::shared_ptr<Replicator> replicator = started->replicator;
  const char region = 0;
  replicator->IndexMapped(&region, &region);
  const Status settled = replicator->WaitSettled(options.open_wait_ms + options.takeover_after_ms);
  // Of no other refusal is anything kept.
  const bool refused = settled.tag() == Tag::kFenced || settled.tag() == Tag::kDiverged;
  Status kept;
  if (refused) {
    // As long as it gets on: a large database takes as long as it takes.
    const auto progress = [&] {
      return started->counts->bytes_stored.load() + replicator->kept_pages();
    };
    for (;;) {
      const uint64_t before = progress();
      kept = replicator->WaitKept(options.open_wait_ms);
      if (kept.ok() || progress() == before) break;
    }
  }
  const std::string why = replicator->last_error();
  replicator->Close(options.close_timeout_ms);
  LetGo(replicator);
  if (!refused) return settled;
  if (!kept.ok()) return kept;
  // Whoever has taken it since Close() has the file that is here.
  Sidecar folder(path + "-guildlite");
  GUILDLITE_RETURN_IF_ERROR(folder.Lock("a rejoin"));

  const std::string restored = path + "-guildlite-restored";
  GUILDLITE_RETURN_IF_ERROR(RemoveFile(restored));
  auto store = stores_.Open(options.url, Stores::kReadingPatienceMs);
  if (!store.ok()) return store.status();
  RestoreSettings settings;
  settings.random = &SystemRandom();
  auto report = Restore(**store, restored, RestoreTarget(), settings);
  if (!report.ok()) return report.status().Context("restore " + path);
  GUILDLITE_RETURN_IF_ERROR(TakeAccessOf(path, restored));
  // SQLite would replay what is in the WAL onto the restored file.
  GUILDLITE_RETURN_IF_ERROR(sole.EmptyWal());
  if (::rename(restored.c_str(), path.c_str()) != 0) return ErrnoStatus(errno, "rename to", path);
  GUILDLITE_RETURN_IF_ERROR(SyncDirectory(DirectoryOf(path)));
  Log(LogLevel::kWarn, "REJOINED", path,
      "it was not what the store ends in (" + why + "); replaced by " +
          report->position.ToString() + " of " + options.url);
  return Status::Ok();
}

// Trouble on the way leaves the file as it was: the claim that follows says what it is. But what
// another process is about to replace must not be opened.
Status Engine::RejoinAtOpen(Node& node, const Options& options) {
  bool taken = false;
  const Status rejoined = Rejoin(node, options, &taken);
  if (taken) return Refused(node.path(), rejoined);
  if (rejoined.ok()) return rejoined;
  Log(LogLevel::kWarn, TagName(rejoined.tag()), node.path(),
      "on_diverged=use_store: the file is as it was: " + rejoined.message());
  return Status::Ok();
}

Status Engine::RejoinMain(sqlite3* db, const Options& options) {
  if (options.on_diverged != "use_store") return Status::Ok();
  const auto node = FindNode(db);
  if (!node) return Status::Ok();
  if (auto found = Find(db); found.ok()) {
    // Resumed by the open, and refused since: it would hold the folder.
    const Status settled =
        found->replicator->WaitSettled(options.open_wait_ms + options.takeover_after_ms);
    if (settled.tag() != Tag::kFenced && settled.tag() != Tag::kDiverged) return Status::Ok();
    found->replicator->Close(options.close_timeout_ms);
    node->Remove();
    LetGo(found->replicator);
  }
  bool taken = false;
  const Status replaced = ReplaceMain(db, [&] { return Rejoin(*node, options, &taken); });
  if (taken) return replaced;
  if (replaced.tag() == Tag::kRestoreNeeded) {
    Log(LogLevel::kWarn, TagName(replaced.tag()), node->path(),
        "on_diverged=use_store wants replication_start() as the first statement of the only "
        "connection; the file stays as it is");
    return Status::Ok();
  }
  if (!replaced.ok()) {
    Log(LogLevel::kWarn, TagName(replaced.tag()), node->path(),
        "on_diverged=use_store: the file is as it was: " + replaced.message());
  }
  return Status::Ok();
}

}  // namespace guildlite
