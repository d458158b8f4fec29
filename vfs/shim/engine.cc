#include "vfs/shim/engine.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "guildlite/clock.h"
#include "vfs/base/file_io.h"
#include "vfs/base/log.h"
#include "vfs/objects/manifest.h"
#include "vfs/objects/store_url.h"
#include "vfs/replicate/sidecar.h"
#include "vfs/shim/adopt.h"
#include "vfs/shim/register.h"
#include "vfs/shim/wal_index.h"

namespace guildlite {
namespace {

// Two databases can wait in a put while two others capture; more databases share them.
constexpr size_t kThreadsMax = 4;
// At process exit, for all databases together: an orchestrator that asked us to stop is waiting.
constexpr int64_t kExitFlushMs = 2000;

std::string Owner() {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
  return std::string(host.data()) + " pid " + std::to_string(::getpid());
}

std::optional<SidecarState> Remembered(const std::string& path) {
  auto state = Sidecar(path + "-guildlite").ReadState();
  return state.ok() ? *state : std::nullopt;
}

}  // namespace

Engine& Engine::Get() {
  static Engine* const engine = new Engine;
  return *engine;
}

Engine::Engine()
    : http_(SystemClock(), ProcessEnvironment(), "guildlite/" GUILDLITE_VERSION),
      pool_(SystemClock(), kThreadsMax),
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

Status Engine::FirstOpened(Node& node) {
  const std::string& path = node.path();
  // An open can carry only a code: the log has the reason.
  const auto refused = [&path](const Status& s) {
    Log(LogLevel::kWarn, TagName(s.tag()), path, s.message());
    return s;
  };
  const auto remembered = Remembered(path);
  const Environment environment = ProcessEnvironment();
  auto url = UrlFromEnvironment(environment, path);
  if (!url.ok()) return refused(url.status());
  Options options;
  if (remembered) {
    auto persisted = ApplyPersistedOptions(options, remembered->options_json);
    if (!persisted.ok()) return refused(persisted.status());
    options = *persisted;
    options.url = remembered->url;
  }
  if (*url) {
    auto applied = ApplyEnvironment(options, environment, path);
    if (!applied.ok()) return refused(applied.status());
    options = *applied;
    options.url = **url;
    if (!node.writable()) return Status::Ok();
    for (const auto& [other, replicated] : All()) {
      if (other != path && replicated.replicator->options().url == options.url) {
        return refused(Status(Tag::kPrefixClash, path + " and " + other +
                                                     " would both replicate to " + options.url +
                                                     "; give each its own url, with {name}"));
      }
    }
    const auto found = IdentityOf(path);
    // The host may have created the file a moment ago: 0 bytes are as good as none.
    const bool placeholder = found.ok() && found->size == 0 && !FileExists(node.wal_path());
    if (!found.ok() || placeholder) {
      if (Status s = PutInPlace(path, options, placeholder); !s.ok()) return refused(s);
    }
    // Configuration given now may take over; what the folder remembers of the same url is resumed.
    const Status s = Replicate(node, path, options, true);
    if (s.ok()) return s;
    if (s.tag() == Tag::kOwned) {
      // Its owner captures what is written here.
      Log(LogLevel::kWarn, TagName(s.tag()), path,
          "not replicated by this process: " + s.message());
      return Status::Ok();
    }
    return refused(s);
  }
  if (!remembered || !node.writable() || !FileExists(path)) return Status::Ok();
  if (Status s = Replicate(node, path, options, false); !s.ok()) {
    // The database stays usable; what is written now is found and healed when replication resumes.
    Log(LogLevel::kWarn, TagName(s.tag()), path, "not replicated: " + s.message());
  }
  return Status::Ok();
}

// A database that is missing locally: from the store if it has one, else a new file.
Status Engine::PutInPlace(const std::string& path, const Options& options, bool placeholder) {
  auto store = OpenStore(options.url, SystemClock(), SystemRandom());
  if (!store.ok()) return store.status();
  auto manifest = ReadManifest(**store);
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
  if (placeholder) return Status::Ok();
  // Proven empty. The base VFS would create the file a moment later; the sidecar needs its inode
  // now.
  auto created = File::Open(path, O_RDWR | O_CREAT, 0644);
  return created.ok() ? Status::Ok() : created.status();
}

Status Engine::Replicate(Node& node, const std::string& path, Options options, bool asked) {
  auto store = OpenStore(options.url, SystemClock(), SystemRandom());
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
  setup.store = std::make_unique<CountedStore>(std::move(*store), *replicated.counts);
  setup.options = std::move(options);
  setup.asked = asked;
  setup.owner = Owner();
  setup.read_published = [](const volatile void* region0) {
    return ReadPublished(region0, nullptr);
  };
  setup.idle = [this, wal = node.wal_path()] { watch_.Arm(wal); };
  setup.warn = [path](Tag tag, const std::string& message) {
    Log(LogLevel::kWarn, tag == Tag::kOk ? "NOTICE" : TagName(tag), path, message);
  };
  auto replicator = Replicator::Start(std::move(setup));
  if (!replicator.ok()) return replicator.status();
  replicated.replicator = *replicator;
  {
    const std::lock_guard lock(mutex_);
    databases_[path] = replicated;
  }
  node.Install(replicated.replicator);
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
  const std::lock_guard lock(mutex_);
  databases_.erase(node.path());
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
                        node->path() + "-guildlite/lock");
    }
  }
  return Status(Tag::kNotReplicated,
                "this connection's main database is not replicated; call replication_start(url)");
}

Result<Position> Engine::Start(sqlite3* db, const std::string& url, std::string_view options_json) {
  GUILDLITE_RETURN_IF_ERROR(Adopt(db));
  const auto node = FindNode(db);
  if (!node) {
    return Status(Tag::kBadArgument,
                  "this connection was not opened through guildlite and cannot be adopted");
  }
  const std::string path = node->path();
  Options options;
  const auto remembered = Remembered(path);
  if (remembered) {
    if (auto persisted = ApplyPersistedOptions(options, remembered->options_json);
        persisted.ok() && (url.empty() || url == remembered->url)) {
      options = *persisted;
    }
  }
  if (auto applied = ApplyOptionsJson(options, options_json); applied.ok()) {
    options = *applied;
  } else {
    return applied.status();
  }
  options.url = url;
  auto checked = ParseStoreUrl(url);
  if (!checked.ok()) return checked.status();
  for (const auto& [other, replicated] : All()) {
    if (other == path || replicated.replicator->options().url != url) continue;
    return Status(Tag::kPrefixClash,
                  other + " already replicates to " + url + "; give each database its own url");
  }
  if (auto found = Find(db); found.ok()) {
    const Options& now = found->replicator->options();
    if (now.url != url) {
      return Status(Tag::kBadArgument,
                    path + " already replicates to " + now.url + "; call replication_stop() first");
    }
    const Status settled = found->replicator->WaitSettled(now.open_wait_ms);
    if (settled.ok() && now == options) {
      auto position = found->replicator->position();
      if (position) return *position;
    }
    // Refused as found, or asked for with other options: begin again, as asked now.
    found->replicator->Close(now.close_timeout_ms);
    node->Remove();
    const std::lock_guard lock(mutex_);
    databases_.erase(path);
  }
  GUILDLITE_RETURN_IF_ERROR(Replicate(*node, path, options, true));
  auto started = Find(db);
  if (!started.ok()) return started.status();
  const Status settled = started->replicator->WaitSettled(options.open_wait_ms);
  if (!settled.ok()) {
    node->Remove();
    started->replicator->Close(0);
    const std::lock_guard lock(mutex_);
    databases_.erase(path);
    return settled.Context("replicate " + path);
  }
  auto position = started->replicator->position();
  if (!position) return Status(Tag::kNotReplicated, "replication of " + path + " did not begin");
  return *position;
}

Status Engine::Stop(sqlite3* db, int64_t timeout_ms) {
  auto found = Find(db);
  if (!found.ok()) return found.status();
  GUILDLITE_RETURN_IF_ERROR(found->replicator->Stop(timeout_ms));
  if (const auto node = FindNode(db)) {
    watch_.Disarm(node->wal_path());
    node->Remove();
  }
  const std::lock_guard lock(mutex_);
  databases_.erase(found->replicator->path());
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
  return OpenStore(url, SystemClock(), SystemRandom());
}

std::shared_ptr<Replicator> Engine::ShippingTo(const std::string& url) {
  for (const auto& [path, replicated] : All()) {
    if (replicated.replicator->options().url == url) return replicated.replicator;
  }
  return nullptr;
}

void Engine::CloseAll() {
  if (::getpid() != owner_pid_ || InForkedChild()) return;
  const int64_t deadline = SystemClock().MonotonicMs() + kExitFlushMs;
  http_.CancelAt(deadline);
  for (const auto& [path, replicated] : All()) {
    const int64_t left = deadline - SystemClock().MonotonicMs();
    replicated.replicator->Close(left > 0 ? left : 1);
  }
  watch_.Stop();
  pool_.Stop();
}

void Engine::AbandonInChild() {
  pool_.ForgetThreads();
  watch_.AbandonInChild();
  for (const auto& [path, replicated] : databases_) replicated.replicator->AbandonInChild();
}

}  // namespace guildlite
