#include "vfs/shim/engine.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "guildlite/clock.h"
#include "vfs/base/file_io.h"
#include "vfs/base/log.h"
#include "vfs/objects/manifest.h"
#include "vfs/objects/store_url.h"
#include "vfs/replicate/sidecar.h"
#include "vfs/shim/adopt.h"
#include "vfs/shim/register.h"
#include "vfs/shim/shim_state.h"
#include "vfs/shim/wal_index.h"
#include "vfs/shim/wal_mode.h"

namespace guildlite {
namespace {

// At work at once, whatever the number of databases; more would not be quicker.
constexpr size_t kThreadsMax = 4;
// Waiting in a store besides. A bound for what hangs, and for connections: one of these is a stack
// of a few pages and a socket.
constexpr size_t kWaitingMax = 64;
// At process exit, for all databases together: an orchestrator that asked us to stop is waiting.
constexpr int64_t kExitFlushMs = 2000;
// Between two looks at a database that another process is putting in place.
constexpr int64_t kOtherProcessPollMs = 10;

std::string Owner() {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
  return std::string(host.data()) + " pid " + std::to_string(::getpid());
}

// An empty database that must not be written: its backup could not be put in its place.
class WritesRefused final : public WalEvents {
 public:
  explicit WritesRefused(Status why) : why_(std::move(why)) {}
  void IndexMapped(const void*, const volatile void*) override {}
  void IndexUnmapping(const void*) override {}
  // SQLITE_READONLY, whatever the trouble with the store was.
  Status BeforeWriteLock() override { return Status(Tag::kDiverged, why_.message()); }
  Status BeforeRollbackWrite() override { return BeforeWriteLock(); }
  void BeforeWriteUnlock() override {}
  Status Committed(std::optional<uint32_t>) override { return Status::Ok(); }
  bool MayDiscardWal(DiscardReason) override { return true; }
  void WalHeaderWriting(std::span<const std::byte, kWalHeaderSize>) override {}

  const Status& why() const { return why_; }

 private:
  const Status why_;
};

std::optional<SidecarState> Remembered(const std::string& path) {
  auto state = Sidecar(path + "-guildlite").ReadState();
  return state.ok() ? *state : std::nullopt;
}

// The host may have created the file a moment ago: 0 bytes are as good as none.
bool HasContent(const Node& node, const Result<FileIdentity>& found) {
  return found.ok() && (found->size != 0 || FileExists(node.wal_path()));
}

}  // namespace

Engine& Engine::Get() {
  static Engine* const engine = new Engine;
  return *engine;
}

Engine::Engine()
    : http_(SystemClock(), ProcessEnvironment(), "guildlite/" GUILDLITE_VERSION),
      stores_(SystemClock(), SystemRandom(), http_, ProcessEnvironment()),
      pool_(SystemClock(), kThreadsMax, kWaitingMax),
      watch_([this](const std::string& wal_path) {
        for (const auto& [path, replicated] : All()) {
          if (path + "-wal" == wal_path) replicated.replicator->Poke();
        }
      }),
      owner_pid_(::getpid()) {
  // After http_: exit handlers run in reverse order, and OpenSSL and libcurl may have some.
  std::atexit([] { Get().CloseAll(); });
  ::pthread_atfork(nullptr, nullptr, [] { Get().AbandonInChild(); });
}

Engine::~Engine() = default;

std::map<std::string, Engine::Replicated> Engine::All() {
  // The child's copies have mutexes that threads of the parent held, and the parent's spool.
  if (InForkedChild()) return {};
  const std::lock_guard lock(mutex_);
  return databases_;
}

// What the environment asks for at this path, on top of what its folder remembers; nullopt when it
// says nothing of it. The url of the options is the remembered one then, or "".
struct Engine::Asked {
  bool by_environment = false;
  Options options;
};

Result<Engine::Asked> Engine::AskedFor(const std::string& path) {
  const Environment environment = ProcessEnvironment();
  Asked asked;
  if (const auto remembered = Remembered(path)) {
    auto persisted = ApplyPersistedOptions(Options(), remembered->options_json);
    if (!persisted.ok()) return persisted.status();
    asked.options = *persisted;
    asked.options.url = remembered->url;
  }
  auto url = UrlFromEnvironment(environment, path);
  if (!url.ok()) return url.status();
  asked.by_environment = url->has_value();
  auto applied = ApplyEnvironment(asked.options, environment, path);
  if (!applied.ok()) return applied.status();
  asked.options = *applied;
  return asked;
}

// An open that fails in the VFS can carry only a code: the log has the reason.
Status Engine::Refused(const std::string& path, const Status& why) {
  Log(LogLevel::kWarn, TagName(why.tag()), path, why.message());
  return why;
}

Status Engine::CheckClash(const std::string& path, const std::string& url) {
  const auto place = stores_.Place(url);
  if (!place.ok()) return place.status();
  for (const auto& [other, replicated] : All()) {
    if (other == path) continue;
    const auto taken = stores_.Place(replicated.replicator->options().url);
    if (!taken.ok() || *taken != *place) continue;
    return Status(Tag::kPrefixClash, path + " and " + other + " would both replicate to " + url +
                                         "; give each database its own url");
  }
  return Status::Ok();
}

Status Engine::FirstOpened(Node& node) {
  const std::string& path = node.path();
  const auto asked = AskedFor(path);
  if (!asked.ok()) return Refused(path, asked.status());
  const Options& options = asked->options;
  if (options.url.empty() || !node.writable()) return Status::Ok();
  // Also where only a statement would ask for it: of another process, at any time.
  if (options.on_diverged == "use_store") node.ExpectReplacement();
  if (asked->by_environment) {
    // OpenedAsMain() goes on from here; but a database that is missing must be there before
    // anybody, also one who attaches it, makes an empty one of that name.
    if (HasContent(node, IdentityOf(path))) {
      return RejoinAtOpen(node, options);
    }
    const Status put = PutInPlaceOnce(node, options);
    if (put.ok()) return put;
    // Whoever has the empty file open already must not fill it beside the backup.
    node.Install(std::make_shared<WritesRefused>(put));
    return Refused(path, put);
  }
  if (!FileExists(path)) {
    // Begun anew without a word it would be a database nobody replicates, beside its own backup.
    return Refused(path, Status(Tag::kRestoreNeeded,
                                path + " is missing, but was replicated to " + options.url +
                                    ": restore it with snapshot_restore(), or remove " + path +
                                    "-guildlite to begin anew"));
  }
  Resume(node, path, options);
  return Status::Ok();
}

void Engine::Resume(Node& node, const std::string& path, const Options& options) {
  const Status s = Replicate(node, path, options, Asking::kNobody);
  if (s.ok()) return;
  // The database stays usable; what is written now is found and healed when replication resumes.
  Log(LogLevel::kWarn, TagName(s.tag()), path, "not replicated: " + s.message());
}

Status Engine::OpenedAsMain(Node& node, sqlite3* db) {
  const std::string& path = node.path();
  const auto asked = AskedFor(path);
  if (!asked.ok()) return Refused(path, asked.status());
  if (!node.writable()) return Status::Ok();
  if (!asked->by_environment) {
    // FirstOpened() has seen to it, unless whoever came first could only read.
    if (!asked->options.url.empty() && node.first_read_only() && !node.events()) {
      Resume(node, path, asked->options);
    }
    return Status::Ok();
  }
  if (const auto events = node.events()) {
    const auto* const refused = dynamic_cast<const WritesRefused*>(events.get());
    return refused ? refused->why().Context("close it and open it again") : Status::Ok();
  }
  if (Status s = CheckClash(path, asked->options.url); !s.ok()) return Refused(path, s);
  EnterWalMode(path, db, asked->options);
  // Configuration given now may take over; what the folder remembers of the same url is resumed.
  const Status s = Replicate(node, path, asked->options, Asking::kEnvironment);
  if (s.tag() == Tag::kOwned) {
    // Its owner captures what is written here.
    Log(LogLevel::kWarn, TagName(s.tag()), path, "not replicated by this process: " + s.message());
    return Status::Ok();
  }
  return s.ok() ? s : Refused(path, s);
}

// No mode of it fails an open: in another one the state is not_wal, and the log says why.
void Engine::EnterWalMode(const std::string& path, sqlite3* db, const Options& options) {
  const sqlite3_api_routines& api = TheShim()->api;
  const FileMode mode = FileModeOf(db);
  if (mode == FileMode::kWal || mode == FileMode::kUnknown) return;
  Status status;
  if (!options.wal) {
    if (mode == FileMode::kEmpty) return;  // what the program makes of it is not known yet
    status = Status(Tag::kNotReplicated, "wal=false was given");
  } else if (mode == FileMode::kEmpty && api.compileoption_used != nullptr &&
             api.compileoption_used("HAS_CODEC") != 0) {
    // A first page written before the program gives its key would be plain text for ever. The
    // routine is missing where SQLITE_OMIT_COMPILEOPTION_DIAGS is set.
    status = Status(Tag::kNotReplicated, "this SQLite encrypts, and the key is not given yet");
  } else if (api.db_readonly(db, "main") != 0) {
    status = Status(Tag::kNotReplicated, "this connection may only read");
  } else if (api.get_autocommit(db) == 0) {
    status = Status(Tag::kInTransaction, "loaded inside a transaction");
  } else {
    status = SwitchToWal(db);
  }
  if (status.ok()) return;
  Log(LogLevel::kWarn, TagName(status.tag()), path,
      "not in WAL mode (" + status.message() +
          "): nothing is captured until PRAGMA journal_mode=WAL, or the next open that may switch");
}

// PutInPlace() for a database that is missing or empty, and one process at a time: two that start
// together may both find it so, and the second would rename a restored file over what the first has
// begun to write. Ok when there is a file, or will be.
Status Engine::PutInPlaceOnce(const Node& node, const Options& options) {
  const std::string& path = node.path();
  if (HasContent(node, IdentityOf(path))) return Status::Ok();
  GUILDLITE_RETURN_IF_ERROR(CheckClash(path, options.url));

  // Of this process's own, one is held by the file that had this name before it was removed.
  const bool ours = All().contains(path);
  Sidecar folder(path + "-guildlite");
  const bool was_there = folder.Exists();
  const int64_t deadline = SystemClock().MonotonicMs() + options.open_wait_ms;
  while (!ours && folder.Lock().tag() == Tag::kOwned) {
    const auto found = IdentityOf(path);
    if (HasContent(node, found)) return Status::Ok();
    // Its owner has this very file open and has not written yet: no matter what the store has.
    const auto remembered = Remembered(path);
    if (found.ok() && remembered && remembered->url == options.url &&
        remembered->device == found->device && remembered->inode == found->inode) {
      return Status::Ok();
    }
    if (SystemClock().MonotonicMs() >= deadline) {
      return Status(Tag::kBusy, path + " is being restored or begun by another process", true);
    }
    std::mutex mutex;
    std::condition_variable never;
    std::unique_lock lock(mutex);
    SystemClock().WaitFor(never, lock, kOtherProcessPollMs);
  }
  const auto found = IdentityOf(path);
  const Status put = HasContent(node, found)
                         ? Status::Ok()
                         : PutInPlace(path, options, /*placeholder=*/found.ok());
  // What was not there before is the claim's to make.
  if (!was_there && folder.locked()) {
    std::error_code ignored;
    std::filesystem::remove_all(folder.directory(), ignored);
  }
  return put;
}

// A database that is missing locally: from the store if it has one, else a new file.
Status Engine::PutInPlace(const std::string& path, const Options& options, bool placeholder) {
  auto store = stores_.Open(options.url, Stores::kReadingPatienceMs);
  if (!store.ok()) return store.status();
  auto manifest = ReadManifest(**store);
  if (manifest.ok() && options.restore == "if_missing") {
    AwaitRelease(**store, path, options, &manifest);
  }
  if (manifest.ok()) {
    if (options.restore != "if_missing") {
      return Status(Tag::kRestoreNeeded,
                    path + " is missing or empty but " + options.url +
                        " holds a backup, and restore=never; restore it with snapshot_restore()");
    }
    RestoreSettings settings;
    settings.random = &SystemRandom();
    // Over a placeholder by rename: whoever opens the name sees the empty file or all of the
    // restore.
    const std::string target = placeholder ? path + "-guildlite-restored" : path;
    if (placeholder) GUILDLITE_RETURN_IF_ERROR(RemoveFile(target));
    auto report = Restore(**store, target, RestoreTarget(), settings);
    if (!report.ok()) return report.status().Context("restore " + path);
    if (placeholder) {
      if (::rename(target.c_str(), path.c_str()) != 0) return ErrnoStatus(errno, "rename to", path);
      GUILDLITE_RETURN_IF_ERROR(SyncDirectory(DirectoryOf(path)));
    }
    Log(LogLevel::kWarn, "RESTORED", path,
        "the file was missing or empty; restored " + report->position.ToString() + " from " +
            options.url);
    return Status::Ok();
  }
  if (manifest.status().tag() != Tag::kNotFound) return manifest.status();
  return Status::Ok();  // proven empty: SQLite makes the file, if it was told to
}

// A database moves here, and its owner may still be at work: what was restored before it left would
// be behind what it ships until then.
void Engine::AwaitRelease(ObjectStore& store, const std::string& path, const Options& options,
                          Result<ManifestAt>* manifest) {
  const Session owner = (*manifest)->manifest.session;
  const auto remembered = Remembered(path);
  if (remembered && remembered->url == options.url && remembered->session == owner) return;
  const int64_t until_ms = SystemClock().MonotonicMs() + options.takeover_after_ms;
  while (manifest->ok() && !(*manifest)->manifest.released()) {
    const int64_t left = until_ms - SystemClock().MonotonicMs();
    if (left <= 0 || !stores_.Wait(std::min(left, kReleasePollMs))) break;
    *manifest = ReadManifest(store);
  }
  if (!manifest->ok()) return;
  const std::lock_guard lock(mutex_);
  yielded_[path] = (*manifest)->manifest.session;
}

Result<Engine::Replicated> Engine::MakeReplicator(Node& node, const std::string& path,
                                                  Options options, Asking asking,
                                                  ReadPublishedFn read_published) {
  auto store = stores_.Open(options.url, Stores::kShippingPatienceMs);
  if (!store.ok()) return store.status();
  auto database = node.OpenDatabaseFile();
  if (!database.ok()) return database.status();
  Replicated replicated;
  replicated.counts = std::make_shared<RequestCounts>();
  Replicator::Setup setup;
  setup.clock = &SystemClock();
  setup.random = &SystemRandom();
  setup.pool = &pool_;
  setup.path = path;
  setup.wal_path = node.wal_path();
  setup.database = std::move(*database);
  setup.store = std::make_unique<CountedStore>(std::move(*store), replicated.counts);
  setup.options = std::move(options);
  setup.asked = asking != Asking::kNobody;
  setup.waited_for = asking == Asking::kStatement;
  setup.owner = Owner();
  {
    const std::lock_guard lock(mutex_);
    if (const auto it = yielded_.find(path); it != yielded_.end()) setup.yielded = it->second;
    yielded_.erase(path);
  }
  setup.read_published = std::move(read_published);
  setup.idle = [this, wal = node.wal_path()] { watch_.Arm(wal); };
  setup.warn = [path](Tag tag, const std::string& message) {
    Log(LogLevel::kWarn, tag == Tag::kOk ? "NOTICE" : TagName(tag), path, message);
  };
  auto replicator = Replicator::Start(std::move(setup));
  if (!replicator.ok()) return replicator.status();
  replicated.replicator = *std::move(replicator);
  return replicated;
}

Status Engine::Replicate(Node& node, const std::string& path, Options options, Asking asking) {
  auto replicated =
      MakeReplicator(node, path, std::move(options), asking,
                     [](const volatile void* region0) { return ReadPublished(region0, nullptr); });
  if (!replicated.ok()) return replicated.status();
  {
    const std::lock_guard lock(mutex_);
    databases_[path] = *replicated;
  }
  node.Install(replicated->replicator);
  return Status::Ok();
}

void Engine::LastClosing(Node& node) {
  const std::shared_ptr<WalEvents> events = node.events();
  std::shared_ptr<Replicator> replicator;
  {
    const std::lock_guard lock(mutex_);
    const auto it = databases_.find(node.path());
    if (it == databases_.end()) return;
    // The path may name another file by now, open through a node of its own.
    if (it->second.replicator != events) return;
    replicator = it->second.replicator;
  }
  watch_.Disarm(node.wal_path());
  replicator->Close(replicator->options().close_timeout_ms);
  node.Remove();
  LetGo(replicator);
}

void Engine::LetGo(const std::shared_ptr<Replicator>& replicator) {
  std::vector<std::shared_ptr<Replicator>> gone;  // destroyed outside the lock
  const std::lock_guard lock(mutex_);
  const auto it = databases_.find(replicator->path());
  if (it != databases_.end() && it->second.replicator == replicator) databases_.erase(it);
  leaving_.push_back(replicator);
  std::erase_if(leaving_, [&](std::shared_ptr<Replicator>& r) {
    if (!r->gone()) return false;
    gone.push_back(std::move(r));
    return true;
  });
}

Result<Engine::Replicated> Engine::Find(sqlite3* db) {
  const auto node = FindNode(db);
  if (node) {
    const std::shared_ptr<WalEvents> events = node->events();
    const std::lock_guard lock(mutex_);
    const auto it = databases_.find(node->path());
    if (it != databases_.end() && it->second.replicator == events) return it->second;
    if (const auto remembered = Sidecar(node->path() + "-guildlite").ReadState();
        remembered.ok() && *remembered) {
      return Status(Tag::kOwned,
                    node->path() +
                        " is replicated, but not by this process: see the log for why, or "
                        "call this in the process that holds " +
                        node->path() + "-guildlite/lock (" +
                        Sidecar(node->path() + "-guildlite").Holder() + ")");
    }
  }
  return Status(Tag::kNotReplicated,
                "this connection's main database is not replicated; call replication_start(url)");
}

Result<Options> Engine::OptionsFor(sqlite3* db, const std::string& url,
                                   std::string_view options_json) {
  const char* const file = TheShim()->api.db_filename(db, "main");
  const std::string path = file != nullptr ? file : "";
  Options options;
  if (const auto remembered = Remembered(path); remembered && remembered->url == url) {
    // What cannot be read is given anew.
    if (auto persisted = ApplyPersistedOptions(options, remembered->options_json); persisted.ok()) {
      options = *persisted;
    }
  }
  auto configured = ApplyEnvironment(options, ProcessEnvironment(), path);
  if (!configured.ok()) return configured.status();
  auto applied = ApplyOptionsJson(*configured, options_json);
  if (!applied.ok()) return applied.status();
  applied->url = url;
  return applied;
}

Status Engine::RestoreIfEmpty(sqlite3* db, const Options& options, bool asked) {
  if (const Status adopted = Adopt(db); !adopted.ok()) return adopted;
  const auto node = FindNode(db);
  if (!node || node->events() || FileModeOf(db) != FileMode::kEmpty) return Status::Ok();
  GUILDLITE_RETURN_IF_ERROR(CheckClash(node->path(), options.url));
  auto store = stores_.Open(options.url, Stores::kReadingPatienceMs);
  if (!store.ok()) return store.status();
  const Status manifest = ReadManifest(**store).status();
  if (manifest.tag() == Tag::kNotFound) return Status::Ok();
  if (!manifest.ok()) return manifest;
  if (!asked) {
    return Status(Tag::kRestoreNeeded,
                  node->path() + " is empty, but " + options.url +
                      " holds a backup: to go on from that pass {\"restore\":\"if_missing\"}");
  }
  return ReplaceMain(db, [&] { return PutInPlace(node->path(), options, true); });
}

Result<Position> Engine::Start(sqlite3* db, const Options& options) {
  GUILDLITE_RETURN_IF_ERROR(Adopt(db));
  const auto node = FindNode(db);
  if (!node) {
    return Status(Tag::kBadArgument,
                  "this connection was not opened through guildlite and cannot be adopted");
  }
  const std::string path = node->path();
  const std::string& url = options.url;
  auto checked = ParseStoreUrl(url);
  if (!checked.ok()) return checked.status();
  GUILDLITE_RETURN_IF_ERROR(CheckClash(path, url));
  if (auto found = Find(db); found.ok()) {
    const Options& now = found->replicator->options();
    if (now.url != url) {
      return Status(Tag::kBadArgument,
                    path + " already replicates to " + now.url + "; call replication_stop() first");
    }
    const Status settled = found->replicator->WaitSettled(now.open_wait_ms + now.takeover_after_ms);
    if (settled.ok() && now == options) {
      auto position = found->replicator->position();
      if (position) return *position;
    }
    // Refused as found, or asked for with other options: begin again, as asked now.
    found->replicator->Close(now.close_timeout_ms);
    node->Remove();
    LetGo(found->replicator);
  }
  Sidecar sidecar(path + "-guildlite");
  const bool had_sidecar = sidecar.Exists();
  const auto leave_nothing = [&](const Status& why) {
    // A claim that may have been made all the same must find its session here.
    const bool certain = !why.retryable() && why.tag() != Tag::kTimeout;
    if (!had_sidecar && (certain || !Remembered(path)) && sidecar.Lock().ok()) {
      sidecar.RemoveFolder();
    }
  };
  if (Status s = Replicate(*node, path, options, Asking::kStatement); !s.ok()) {
    leave_nothing(s);
    return s;
  }
  auto started = Find(db);
  if (!started.ok()) return started.status();
  const Status settled =
      started->replicator->WaitSettled(options.open_wait_ms + options.takeover_after_ms);
  if (!settled.ok()) {
    node->Remove();
    started->replicator->Close(0);
    LetGo(started->replicator);
    leave_nothing(settled);
    return settled.Context("replicate " + path);
  }
  auto position = started->replicator->position();
  if (!position) return Status(Tag::kNotReplicated, "replication of " + path + " did not begin");
  return *position;
}

Status Engine::Stop(sqlite3* db, int64_t timeout_ms) {
  auto found = Find(db);
  if (!found.ok()) return found.status();
  // Moments after the load nothing is owned yet that could be flushed and released.
  static_cast<void>(found->replicator->WaitSettled(timeout_ms));
  GUILDLITE_RETURN_IF_ERROR(found->replicator->Stop(timeout_ms));
  if (const auto node = FindNode(db)) {
    watch_.Disarm(node->wal_path());
    node->Remove();
  }
  LetGo(found->replicator);
  return Status::Ok();
}

void Engine::SetVerified(const std::string& database, const Position& position) {
  if (InForkedChild()) return;
  const std::lock_guard lock(mutex_);
  const auto it = databases_.find(database);
  if (it == databases_.end()) return;
  it->second.verified = position;
  it->second.verified_ms = SystemClock().NowMs();
}

Result<std::string> Engine::UrlOf(sqlite3* db) {
  if (auto found = Find(db); found.ok()) return found->replicator->options().url;
  if (const auto node = FindNode(db)) {
    if (const auto remembered = Remembered(node->path())) return remembered->url;
  }
  return Status(Tag::kBadArgument,
                "no url given, and this connection's main database is not replicated");
}

Result<std::unique_ptr<ObjectStore>> Engine::OpenForReading(const std::string& url) {
  return stores_.Open(url, Stores::kReadingPatienceMs);
}

std::shared_ptr<Replicator> Engine::ShippingTo(const std::string& url) {
  const auto place = stores_.Place(url);
  if (!place.ok()) return nullptr;
  for (const auto& [path, replicated] : All()) {
    const auto shipped_to = stores_.Place(replicated.replicator->options().url);
    if (shipped_to.ok() && *shipped_to == *place) return replicated.replicator;
  }
  return nullptr;
}

void Engine::CloseAll() {
  if (::getpid() != owner_pid_ || InForkedChild()) return;
  const int64_t deadline = SystemClock().MonotonicMs() + kExitFlushMs;
  stores_.CancelAt(deadline);
  http_.CancelAt(deadline);
  // Side by side: what is left ships, then the logs are released.
  for (const auto& [path, replicated] : All()) (void)replicated.replicator->Sync(0);
  for (const auto& [path, replicated] : All()) {
    replicated.replicator->Release(deadline - SystemClock().MonotonicMs());
  }
  for (const auto& [path, replicated] : All()) {
    const int64_t left = deadline - SystemClock().MonotonicMs();
    replicated.replicator->Close(left > 0 ? left : 1);
    LetGo(replicated.replicator);
  }
  watch_.Stop();
  bool gone = false;
  {
    const std::lock_guard lock(mutex_);
    gone = leaving_.empty();
  }
  // A thread that hangs in a store ends with the process.
  if (gone) pool_.Stop();
}

void Engine::AbandonInChild() {
  pool_.ForgetThreads();
  watch_.AbandonInChild();
  for (const auto& [path, replicated] : databases_) replicated.replicator->AbandonInChild();
}

}  // namespace guildlite
