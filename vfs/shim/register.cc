#include "vfs/shim/register.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <string>
#include <string_view>
#include <type_traits>

#include "vfs/shim/boundary.h"
#include "vfs/shim/primary_file.h"
#include "vfs/shim/shim_state.h"

namespace guildlite {
namespace {

constexpr char kVfsName[] = "guildlite";
// sqlite3_create_filename() is of 3.32.0; sqlite3_filename_database() of 3.31.0.
constexpr int kOldestVersion = 3032000;

std::mutex g_register_mutex;
std::atomic<ShimState*> g_shim{nullptr};
std::atomic<bool> g_in_forked_child{false};
pid_t g_owner = 0;  // set before g_shim

ShimState& Of(sqlite3_vfs* vfs) { return *static_cast<ShimState*>(vfs->pAppData); }

bool HasWalResetBug(int version) {
  if (version < 3007000 || version >= 3051003) return false;
  const bool fixed_in_3_44 = version >= 3044006 && version < 3045000;
  const bool fixed_in_3_50 = version >= 3050007 && version < 3051000;
  return !fixed_in_3_44 && !fixed_in_3_50;
}

// ------------------------------------------------------------------------------------------- xOpen

// A real file in `file`'s memory; on failure nothing is open and header.pMethods is 0, so that
// SQLite does not call xClose (sqlite3OsClose() of os.c).
int OpenReal(ShimState& shim, const char* name, OpenedFile* file, int flags, int* out_flags) {
  sqlite3_file* const real = file->real();
  real->pMethods = nullptr;
  const int code = shim.base.xOpen(&shim.base, name, real, flags, out_flags);
  if (code != SQLITE_OK && real->pMethods != nullptr) {
    real->pMethods->xClose(real);
    real->pMethods = nullptr;
  }
  return code;
}

bool Exists(ShimState& shim, const char* name) {
  int exists = 0;
  return shim.base.xAccess(&shim.base, name, SQLITE_ACCESS_EXISTS, &exists) == SQLITE_OK &&
         exists != 0;
}

// The last file of a node is gone without ever having been wrapped.
void Abandon(ShimState& shim, OpenNode& node, bool first_opened) {
  if (!shim.nodes.Leave(node)) {
    shim.nodes.Settle(node);  // the host keeps a connection it opened inside FirstOpened()
    return;
  }
  if (first_opened) Shielded([&] { shim.host.LastClosing(node); });
  shim.nodes.Gone(node);
}

// FirstOpened() may put a file in place of none or of an empty one, and may refuse. A missing file
// is therefore not created before it was asked; an existing one is opened first, so that a path
// that cannot be opened never reaches the host, and opened again when it is no longer the same
// file.
int OpenFirst(ShimState& shim, OpenNode& node, const char* name, OpenedFile* file, int flags,
              int* out_flags) {
  const bool existed = Exists(shim, name);
  if (existed) {
    const int code = OpenReal(shim, name, file, flags, out_flags);
    if (code != SQLITE_OK) {
      Abandon(shim, node, false);
      return code;
    }
    shim.nodes.Identify(node);
    if ((*out_flags & SQLITE_OPEN_READWRITE) != 0) node.set_writable();
  } else if ((flags & SQLITE_OPEN_READWRITE) != 0) {
    node.set_writable();
  }
  node.NoteFirst();

  const int refused =
      Guarded([&] { return OpenCode(shim.host.FirstOpened(node)); }, SQLITE_CANTOPEN);
  if (refused != SQLITE_OK) {
    if (existed) file->real()->pMethods->xClose(file->real());
    Abandon(shim, node, false);
    return refused;
  }

  if (existed && !shim.nodes.WasReplaced(node)) return SQLITE_OK;
  if (existed) file->real()->pMethods->xClose(file->real());
  const int code = OpenReal(shim, name, file, flags, out_flags);
  if (code != SQLITE_OK) {
    Abandon(shim, node, true);
    return code;
  }
  shim.nodes.Identify(node);
  return SQLITE_OK;
}

int OpenMain(ShimState& shim, const char* name, OpenedFile* file, int flags, int* out_flags) {
  Result<NodeRegistry::Joined> joined =
      shim.nodes.Join(shim.api, shim.base, name, shim.api.filename_wal(name));
  if (!joined.ok()) return OpenCode(joined.status());
  const std::shared_ptr<OpenNode>& node = joined->node;

  int granted_flags = flags;
  int code = SQLITE_OK;
  if (joined->first) {
    code = OpenFirst(shim, *node, name, file, flags, &granted_flags);
    if (code != SQLITE_OK) return code;
  } else {
    code = OpenReal(shim, name, file, flags, &granted_flags);
    if (code != SQLITE_OK) {
      if (shim.nodes.Leave(*node)) {
        Shielded([&] { shim.host.LastClosing(*node); });
        shim.nodes.Gone(*node);
      }
      return code;
    }
  }
  if ((granted_flags & SQLITE_OPEN_READWRITE) != 0) node->set_writable();
  MainFile::Opened(shim, node, file, name);
  if (joined->first) shim.nodes.Settle(*node);
  if (out_flags != nullptr) *out_flags = granted_flags;
  return SQLITE_OK;
}

int OpenWal(ShimState& shim, const char* name, OpenedFile* file, int flags, int* out_flags) {
  // By the pager's own pointer, never by chopping "-wal": names may be 8.3, and RBU opens an
  // "-oal", a WAL to be, with this flag (rbuVfsOpen() of sqlite3rbu.c rewrites the name in place).
  MainFile* const main = shim.nodes.FindMain(shim.api.filename_database(name));
  if (main == nullptr || main->has_wal() || main->node().wal_path() != name) {
    return shim.base.xOpen(&shim.base, name, &file->header, flags, out_flags);
  }
  const int code = OpenReal(shim, name, file, flags, out_flags);
  if (code == SQLITE_OK) WalFile::Opened(shim, *main, file);
  return code;
}

int Open(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags,
         int* out_flags) noexcept {
  ShimState& shim = Of(vfs);
  file->pMethods = nullptr;
  if (getpid() != g_owner) g_in_forked_child.store(true, std::memory_order_relaxed);
  auto* const opened = reinterpret_cast<OpenedFile*>(file);
  if (name != nullptr && !InForkedChild()) {
    if ((flags & SQLITE_OPEN_MAIN_DB) != 0) {
      return Guarded([&] { return OpenMain(shim, name, opened, flags, out_flags); },
                     SQLITE_CANTOPEN);
    }
    if ((flags & SQLITE_OPEN_WAL) != 0) {
      return Guarded([&] { return OpenWal(shim, name, opened, flags, out_flags); },
                     SQLITE_CANTOPEN);
    }
  }
  return shim.base.xOpen(&shim.base, name, file, flags, out_flags);
}

int Delete(sqlite3_vfs* vfs, const char* name, int sync_directory) noexcept {
  ShimState& shim = Of(vfs);
  // sqlite3WalClose() under its EXCLUSIVE lock, where leave was granted; or
  // pagerOpenWalIfPresent(), which deletes the WAL beside an empty database.
  if (std::string_view(name).ends_with("-wal") && !InForkedChild()) {
    const int code = Guarded([&] {
      const std::shared_ptr<OpenNode> node = shim.nodes.FindByWal(name);
      WalEvents* const events = node != nullptr ? node->current_events() : nullptr;
      return events == nullptr || events->MayDiscardWal(DiscardReason::kClose) ? SQLITE_OK
                                                                               : SQLITE_BUSY;
    });
    if (code != SQLITE_OK) return code;
  }
  return shim.base.xDelete(&shim.base, name, sync_directory);
}

// ------------------------------------------------------------------------- straight to the base
// VFS

int Access(sqlite3_vfs* vfs, const char* name, int flags, int* out) {
  sqlite3_vfs& base = Of(vfs).base;
  return base.xAccess(&base, name, flags, out);
}
int FullPathname(sqlite3_vfs* vfs, const char* name, int size, char* out) {
  sqlite3_vfs& base = Of(vfs).base;
  return base.xFullPathname(&base, name, size, out);
}
void* DlOpen(sqlite3_vfs* vfs, const char* name) {
  sqlite3_vfs& base = Of(vfs).base;
  return base.xDlOpen(&base, name);
}
void DlError(sqlite3_vfs* vfs, int size, char* out) {
  sqlite3_vfs& base = Of(vfs).base;
  base.xDlError(&base, size, out);
}
void (*DlSym(sqlite3_vfs* vfs, void* library, const char* symbol))(void) {
  sqlite3_vfs& base = Of(vfs).base;
  return base.xDlSym(&base, library, symbol);
}
void DlClose(sqlite3_vfs* vfs, void* library) {
  sqlite3_vfs& base = Of(vfs).base;
  base.xDlClose(&base, library);
}
int Randomness(sqlite3_vfs* vfs, int size, char* out) {
  sqlite3_vfs& base = Of(vfs).base;
  return base.xRandomness(&base, size, out);
}
int Sleep(sqlite3_vfs* vfs, int microseconds) {
  sqlite3_vfs& base = Of(vfs).base;
  return base.xSleep(&base, microseconds);
}
int CurrentTime(sqlite3_vfs* vfs, double* out) {
  sqlite3_vfs& base = Of(vfs).base;
  return base.xCurrentTime(&base, out);
}
int GetLastError(sqlite3_vfs* vfs, int size, char* out) {
  sqlite3_vfs& base = Of(vfs).base;
  return base.xGetLastError(&base, size, out);
}
int CurrentTimeInt64(sqlite3_vfs* vfs, sqlite3_int64* out) {
  sqlite3_vfs& base = Of(vfs).base;
  return base.xCurrentTimeInt64(&base, out);
}
int SetSystemCall(sqlite3_vfs* vfs, const char* name, sqlite3_syscall_ptr call) {
  sqlite3_vfs& base = Of(vfs).base;
  return base.xSetSystemCall(&base, name, call);
}
sqlite3_syscall_ptr GetSystemCall(sqlite3_vfs* vfs, const char* name) {
  sqlite3_vfs& base = Of(vfs).base;
  return base.xGetSystemCall(&base, name);
}
const char* NextSystemCall(sqlite3_vfs* vfs, const char* name) {
  sqlite3_vfs& base = Of(vfs).base;
  return base.xNextSystemCall(&base, name);
}

// A slot the base leaves empty stays empty: SQLite tests some of them (os.c).
template <class Function>
Function* Over(Function* base, std::type_identity_t<Function>* ours) {
  return base != nullptr ? ours : nullptr;
}

sqlite3_vfs MakeVfs(ShimState& shim) {
  const sqlite3_vfs& base = shim.base;
  sqlite3_vfs vfs = {
      .iVersion = std::min(base.iVersion, 3),
      .szOsFile = static_cast<int>(sizeof(OpenedFile)) + base.szOsFile,
      .mxPathname = base.mxPathname,
      .pNext = nullptr,
      .zName = kVfsName,
      .pAppData = &shim,
      .xOpen = Open,
      .xDelete = Over(base.xDelete, &Delete),
      .xAccess = Over(base.xAccess, &Access),
      .xFullPathname = Over(base.xFullPathname, &FullPathname),
      .xDlOpen = Over(base.xDlOpen, &DlOpen),
      .xDlError = Over(base.xDlError, &DlError),
      .xDlSym = Over(base.xDlSym, &DlSym),
      .xDlClose = Over(base.xDlClose, &DlClose),
      .xRandomness = Over(base.xRandomness, &Randomness),
      .xSleep = Over(base.xSleep, &Sleep),
      .xCurrentTime = Over(base.xCurrentTime, &CurrentTime),
      .xGetLastError = Over(base.xGetLastError, &GetLastError),
      .xCurrentTimeInt64 = nullptr,
      .xSetSystemCall = nullptr,
      .xGetSystemCall = nullptr,
      .xNextSystemCall = nullptr,
  };
  if (base.iVersion >= 2) vfs.xCurrentTimeInt64 = Over(base.xCurrentTimeInt64, &CurrentTimeInt64);
  if (base.iVersion >= 3) {
    vfs.xSetSystemCall = Over(base.xSetSystemCall, &SetSystemCall);
    vfs.xGetSystemCall = Over(base.xGetSystemCall, &GetSystemCall);
    vfs.xNextSystemCall = Over(base.xNextSystemCall, &NextSystemCall);
  }
  return vfs;
}

}  // namespace

ShimState* TheShim() { return g_shim.load(std::memory_order_acquire); }

Result<Registered> RegisterShim(ShimHost& host, const sqlite3_api_routines* api) {
  const std::lock_guard lock(g_register_mutex);
  if (ShimState* const shim = TheShim()) {
    if (&shim->api != api) {
      return Status(Tag::kBadArgument,
                    "loading guildlite: this process holds two SQLite libraries, and guildlite is "
                    "already at work in the other (" +
                        std::string(shim->api.libversion()) + ", this one is " + api->libversion() +
                        "); two libraries on one file would drop each other's locks");
    }
    // sqlite3_shutdown() and sqlite3_initialize() make the VFS of SQLite the default again
    // (sqlite3_os_init()). A third party's default above ours is left alone.
    if (api->vfs_find(nullptr) == &shim->base || api->vfs_find(kVfsName) == nullptr) {
      api->vfs_register(&shim->vfs, 1);
    }
    return Registered::kAlreadyOurs;
  }
  if (api->libversion_number() < kOldestVersion) {
    return Status(Tag::kBadArgument,
                  "loading guildlite: it needs SQLite 3.32.0 or newer, this is " +
                      std::string(api->libversion()));
  }
  if (api->xthreadsafe() == 0) {
    return Status(Tag::kBadArgument,
                  "loading guildlite: this SQLite was built without threads "
                  "(SQLITE_THREADSAFE=0); use one built with 1 or 2");
  }
  if (api->vfs_find(kVfsName) != nullptr) return Registered::kAlreadyOtherCopy;
  sqlite3_vfs* const base = api->vfs_find(nullptr);
  if (base == nullptr) {
    return Status(Tag::kBadArgument,
                  "loading guildlite: this SQLite has no default VFS to build on");
  }

  auto* const shim = new ShimState{
      .api = *api,
      .base = *base,
      .host = host,
      .guard_resets = HasWalResetBug(api->libversion_number()),
  };
  shim->vfs = MakeVfs(*shim);
  g_owner = getpid();
  pthread_atfork(nullptr, nullptr,
                 [] { g_in_forked_child.store(true, std::memory_order_relaxed); });
  g_shim.store(shim, std::memory_order_release);
  if (const int code = api->vfs_register(&shim->vfs, 1); code != SQLITE_OK) {
    g_shim.store(nullptr, std::memory_order_release);
    delete shim;
    return Status(Tag::kBadArgument,
                  "loading guildlite: registering the VFS: " + std::string(api->errstr(code)));
  }
  return Registered::kNew;
}

Status ConfirmMain(sqlite3* db) {
  ShimState* const shim = TheShim();
  if (shim == nullptr || InForkedChild()) return Status::Ok();
  MainFile* const main = FindMainFile(*shim, db);
  if (main == nullptr) return Status::Ok();
  OpenNode& node = main->node();
  const Result<bool> first = shim->nodes.FirstMain(node);
  if (!first.ok()) return first.status();
  if (!*first) return Status::Ok();
  Status status(Tag::kLocalIo, "opening " + node.path() + ": the replicator failed");
  Shielded([&] { status = shim->host.OpenedAsMain(node, db); });
  // To a file that may only be read nothing was said; the first that may write it asks again.
  shim->nodes.MainSettled(node, status.ok() && node.writable());
  return status;
}

std::shared_ptr<Node> FindNode(sqlite3* db) {
  ShimState* const shim = TheShim();
  if (shim == nullptr || InForkedChild()) return nullptr;
  MainFile* const main = FindMainFile(*shim, db);
  return main != nullptr ? main->shared_node() : nullptr;
}

std::shared_ptr<Node> FindNodeByPath(const std::string& path) {
  ShimState* const shim = TheShim();
  if (shim == nullptr || InForkedChild()) return nullptr;
  return shim->nodes.Find(path);
}

bool WalResetGuardActive() {
  ShimState* const shim = TheShim();
  return shim != nullptr && shim->guard_resets;
}

bool InForkedChild() { return g_in_forked_child.load(std::memory_order_relaxed); }

}  // namespace guildlite
