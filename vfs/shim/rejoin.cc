// The part of the Engine that brings a database back which is not what its store ends in
// (on_diverged=use_store): what it holds is saved under orphans/ and acknowledged, then the file is
// replaced by a restore, and whoever opened it goes on from there as any new owner does.
//
// Until the rename that puts the restored file in place nothing that the database says has changed;
// each step may be the last, and the next open begins again.

#include <fcntl.h>
#include <sqlite3ext.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
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

}  // namespace

Result<bool> Engine::Rejoin(Node& node, const Options& options) {
  const std::string& path = node.path();
  if (options.on_diverged != "use_store") return false;
  // The file might be all there is of another database.
  GUILDLITE_RETURN_IF_ERROR(CheckClash(path, options.url));
  {
    auto store = stores_.Open(options.url, Stores::kReadingPatienceMs);
    if (!store.ok()) return store.status();
    const auto manifest = ReadManifest(**store);
    if (manifest.status().tag() == Tag::kNotFound) return false;
    if (!manifest.ok()) return manifest.status();
    if (IsResumed(path, options.url, manifest->manifest)) return false;
  }
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
  if (!refused) return settled.ok() ? Result<bool>(false) : Result<bool>(settled);
  if (!kept.ok()) return kept;

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
  return true;
}

// Trouble on the way leaves the file as it was: the claim that follows says what it is.
void Engine::RejoinAtOpen(Node& node, const Options& options) {
  const auto rejoined = Rejoin(node, options);
  if (rejoined.ok()) return;
  Log(LogLevel::kWarn, TagName(rejoined.status().tag()), node.path(),
      "on_diverged=use_store: the file is as it was: " + rejoined.status().message());
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
  const Status replaced = ReplaceMain(db, [&] { return Rejoin(*node, options).status(); });
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
