// A loadable extension that the suite's testfixture loads after guildlite: the witness of what is
// replicated while SQLite's tests run. It lays itself over guildlite's xOpen and xClose and
//
//   1. at the first open of a database whose file is not the one its sidecar knows (the test has
//      deleted it, or put another in its place), removes sidecar and store: a test begins anew
//      without a word to anybody, a user's database does not, and guildlite would rightly bring
//      back, or refuse, what the test has just thrown away. What crashed, was changed in place or
//      written by another process is left for guildlite to find out about.
//   2. after the last close of a database in WAL mode restores its replica and compares it with the
//      file, byte by byte.
//
// It reads files and the store with guildlite_core only, never through SQLite, whose faults are the
// tests' to inject. What it saw goes to the file SUITE_REPORT, a line each time:
//   "equal", "differs", "unproven" (no restore), "skipped", with path and reason; "behind" in place
//   of the second and third where guildlite has recorded no clean close: it has warned, what the
//   store lacks is on the disk, and the next open compares.

#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT1

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <mutex>
#include <string>

#include "guildlite/clock.h"
#include "guildlite/options.h"
#include "vfs/base/file_io.h"
#include "vfs/objects/local_store.h"
#include "vfs/replicate/sidecar.h"
#include "vfs/restore/restorer.h"

namespace guildlite {
namespace {

constexpr std::string_view kScheme = "file://";
constexpr size_t kReadVersionOffset = 19;  // 2: WAL. sqlite.org/fileformat2.html

// SQLite's handle and the methods that were there; what pMethods points to while it is open.
struct Watched {
  sqlite3_io_methods methods;
  const sqlite3_io_methods* real;
  std::string path;
};

int (*g_open)(sqlite3_vfs*, const char*, sqlite3_file*, int, int*) = nullptr;
std::mutex g_mutex;
std::map<std::string, int> g_files;  // open files by path; g_mutex

std::string SidecarOf(const std::string& path) { return path + "-guildlite"; }

// Where the environment replicates `path` to; empty: nowhere.
std::string StoreOf(const std::string& path) {
  const auto url = UrlFromEnvironment(ProcessEnvironment(), path);
  if (!url.ok() || !*url || !(*url)->starts_with(kScheme)) return "";
  return (*url)->substr(kScheme.size());
}

void Report(const char* verdict, const std::string& path, const std::string& why) {
  const char* const file = getenv("SUITE_REPORT");
  if (!file) return;
  const std::string line = std::string(verdict) + " " + BaseName(path) + " " + why + "\n";
  const auto out = File::Open(file, O_WRONLY | O_APPEND | O_CREAT, 0644);
  if (out.ok() && ::write(out->fd(), line.data(), line.size()) < 0) perror(file);
}

bool OwnedElsewhere(const std::string& path) {
  const auto lock = File::Open(SidecarOf(path) + "/lock", O_RDWR);
  return lock.ok() && ::flock(lock->fd(), LOCK_EX | LOCK_NB) != 0;
}

bool IsTheOneReplicated(const std::string& path) {
  const auto identity = IdentityOf(path);
  const auto state = Sidecar(SidecarOf(path)).ReadState();
  return identity.ok() && identity->size > 0 && state.ok() && *state &&
         (*state)->device == identity->device && (*state)->inode == identity->inode;
}

void BeginAnewIfReplaced(const std::string& path, const std::string& store) {
  if (OwnedElsewhere(path) || IsTheOneReplicated(path)) return;
  std::error_code ignored;
  std::filesystem::remove_all(SidecarOf(path), ignored);
  std::filesystem::remove_all(store, ignored);
}

// Whether guildlite itself says that the store has all of the file as it is now.
bool ClosedClean(const std::string& path) {
  const auto identity = IdentityOf(path);
  const auto clean = Sidecar(SidecarOf(path)).ReadClean();
  return identity.ok() && clean && clean->device == identity->device &&
         clean->inode == identity->inode && clean->size == identity->size &&
         clean->ctime_ns == identity->ctime_ns;
}

// What there is to look at after a mismatch, in the folder SUITE_KEEP.
void Keep(const std::string& path, const std::string& store, const std::string& replica) {
  const char* const folder = getenv("SUITE_KEEP");
  if (!folder) return;
  const std::filesystem::path to = std::filesystem::path(folder) / BaseName(path);
  constexpr auto kAll = std::filesystem::copy_options::recursive;
  std::error_code ignored;
  std::filesystem::create_directories(to, ignored);
  std::filesystem::copy(path, to / "database", kAll, ignored);
  std::filesystem::copy(replica, to / "replica", kAll, ignored);
  std::filesystem::copy(SidecarOf(path), to / "sidecar", kAll, ignored);
  std::filesystem::copy(store, to / "store", kAll, ignored);
}

void Verify(const std::string& path, const std::string& store_root) {
  if (OwnedElsewhere(path)) return Report("skipped", path, "open in another process");
  if (!IsTheOneReplicated(path)) return Report("skipped", path, "deleted, replaced or empty");
  const auto wal = IdentityOf(path + "-wal");
  if (wal.ok() && wal->size > 0) return Report("skipped", path, "its WAL stays");
  const auto content = ReadWholeFile(path);
  if (!content.ok()) return Report("skipped", path, content.status().ToString());
  if (content->size() <= kReadVersionOffset || (*content)[kReadVersionOffset] != 2) {
    return Report("skipped", path, "not in WAL mode");
  }
  LocalStore store(store_root, SystemClock(), SystemRandom());
  const std::string replica = store_root + "-replica";
  const auto restored = Restore(store, replica, RestoreTarget(), RestoreSettings());
  const bool clean = ClosedClean(path);
  if (!restored.ok()) {
    return Report(clean ? "unproven" : "behind", path, restored.status().ToString());
  }
  const auto back = ReadWholeFile(replica);
  if (clean && back.ok() && *back != *content) Keep(path, store_root, replica);
  ::unlink(replica.c_str());
  if (!back.ok()) return Report("unproven", path, back.status().ToString());
  if (*back == *content) {
    return Report("equal", path, "txid " + std::to_string(restored->position.txid.value));
  }
  size_t at = 0;
  while (at < back->size() && at < content->size() && (*back)[at] == (*content)[at]) ++at;
  Report(clean ? "differs" : "behind", path,
         "at byte " + std::to_string(at) + ", sizes " + std::to_string(content->size()) + " and " +
             std::to_string(back->size()));
}

int Close(sqlite3_file* file) {
  auto* const watched = const_cast<Watched*>(reinterpret_cast<const Watched*>(file->pMethods));
  const std::string path = watched->path;
  file->pMethods = watched->real;
  delete watched;
  const int code = file->pMethods->xClose(file);
  bool last = false;
  {
    const std::lock_guard lock(g_mutex);
    last = --g_files[path] == 0;
  }
  if (last) Verify(path, StoreOf(path));
  return code;
}

int Open(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags, int* out_flags) {
  const std::string path = name && (flags & SQLITE_OPEN_MAIN_DB) != 0 ? name : "";
  const std::string store = path.empty() ? "" : StoreOf(path);
  if (store.empty()) return g_open(vfs, name, file, flags, out_flags);
  {
    const std::lock_guard lock(g_mutex);
    if (g_files[path] == 0) BeginAnewIfReplaced(path, store);
  }
  const int code = g_open(vfs, name, file, flags, out_flags);
  if (file->pMethods == nullptr) return code;
  auto* const watched = new Watched{*file->pMethods, file->pMethods, path};
  watched->methods.xClose = Close;
  file->pMethods = &watched->methods;
  const std::lock_guard lock(g_mutex);
  ++g_files[path];
  return code;
}

}  // namespace
}  // namespace guildlite

extern "C" __attribute__((visibility("default"))) int sqlite3_extension_init(
    sqlite3*, char** error_message, const sqlite3_api_routines* api) {
  SQLITE_EXTENSION_INIT2(api)
  sqlite3_vfs* const vfs = sqlite3_vfs_find("guildlite");
  if (!vfs) {
    *error_message = sqlite3_mprintf("guildlite is not loaded");
    return SQLITE_ERROR;
  }
  if (vfs->xOpen != guildlite::Open) {
    guildlite::g_open = vfs->xOpen;
    vfs->xOpen = guildlite::Open;
  }
  return SQLITE_OK_LOAD_PERMANENTLY;
}
