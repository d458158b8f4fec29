// Engine: what one process has of guildlite. Owns the worker pool, the stores, the watch for
// strangers and one Replicator a replicated database; the registered VFS and the SQL functions
// point to it. The one global, because SQLite's entry point has no other place to keep it; never
// destroyed, because threads and exit handlers may outlive static destruction.
//
// It decides which database is replicated when it is opened:
//   GUILDLITE_URL (and GUILDLITE_MATCH) names it   -> restored or created if it is missing; asked
//   for
//                                                     now, once a connection has it as main
//   its -guildlite folder remembers a url          -> resumed, once a connection may write it
//   otherwise                                      -> passes straight through
//
// Thread-safe. Lock order: engine mutex before nothing; no call into a Node, a store or, but for
// gone(), a Replicator is made under it.
#pragma once

#include <sqlite3.h>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "guildlite/options.h"
#include "guildlite/status.h"
#include "vfs/base/task.h"
#include "vfs/objects/counted_store.h"
#include "vfs/objects/curl_client.h"
#include "vfs/objects/stores.h"
#include "vfs/replicate/replicator.h"
#include "vfs/restore/restorer.h"
#include "vfs/shim/shim_host.h"
#include "vfs/shim/stranger_watch.h"

namespace guildlite {

class Engine final : public ShimHost {
 public:
  static Engine& Get();

  Status FirstOpened(Node& node) override;
  Status OpenedAsMain(Node& node, sqlite3* db) override;
  void LastClosing(Node& node) override;

  // A database's replication, with what was counted for it.
  struct Replicated {
    std::shared_ptr<Replicator> replicator;
    std::shared_ptr<RequestCounts> counts;
    std::optional<Position> verified;
    int64_t verified_ms = 0;
  };
  // NOT_REPLICATED when there is none.
  Result<Replicated> Find(sqlite3* db);
  std::map<std::string, Replicated> All();

  // For replication_start(url, json) on `db`: JSON over the environment over what is remembered of
  // that url.
  Result<Options> OptionsFor(sqlite3* db, const std::string& url, std::string_view options_json);
  // If the main database of `db` is empty and the store has it: brings it here if that was asked
  // for, else RESTORE_NEEDED.
  Status RestoreIfEmpty(sqlite3* db, const Options& options, bool asked);
  // on_diverged=use_store: if the main database of `db` is not what the store ends in, it is saved
  // under orphans/ and replaced, where `db` allows that. The log says what came of it.
  Status RejoinMain(sqlite3* db, const Options& options);
  // replication_start(): the main database of `db` is in WAL mode and read from already.
  Result<Position> Start(sqlite3* db, const Options& options);
  Status Stop(sqlite3* db, int64_t timeout_ms);
  void SetVerified(const std::string& database, const Position& position);

  // The url meant when a function names none: this connection's.
  Result<std::string> UrlOf(sqlite3* db);
  // A store for reading: restore, list, verify. The replicator's own when it ships there.
  Result<std::unique_ptr<ObjectStore>> OpenForReading(const std::string& url);
  // The replicator of this process that ships to `url`; null when none does.
  std::shared_ptr<Replicator> ShippingTo(const std::string& url);

  // Process exit: every database is flushed within one bound.
  void CloseAll();
  void AbandonInChild();

 private:
  Engine();
  ~Engine() override;

  struct Asked;
  // Who wants a database replicated, and so what trouble with the store means: nobody but its
  // folder (resume only), the environment (may take over; goes on trying), a statement (may take
  // over; is told).
  enum class Asking { kNobody, kEnvironment, kStatement };

  Result<Asked> AskedFor(const std::string& path);
  Status Refused(const std::string& path, const Status& why);
  Status CheckClash(const std::string& path, const std::string& url);
  void EnterWalMode(const std::string& path, sqlite3* db, const Options& options);
  void Resume(Node& node, const std::string& path, const Options& options);
  using ReadPublishedFn = std::function<std::optional<Published>(const volatile void*)>;
  Result<Replicated> MakeReplicator(Node& node, const std::string& path, Options options,
                                    Asking asking, ReadPublishedFn read_published);
  Result<bool> WantsRejoin(const std::string& path, const Options& options);
  // Of what others do with the file meanwhile it sees to itself, see the top of rejoin.cc.
  // `*taken`: another process is at it, and did not come to its end in time.
  Status Rejoin(Node& node, const Options& options, bool* taken);
  Status RejoinInTurn(Node& node, const Options& options);
  Status RejoinAtOpen(Node& node, const Options& options);
  Status Replicate(Node& node, const std::string& path, Options options, Asking asking);
  // Of a replicator that was closed: it stays alive until nothing of it runs any more.
  void LetGo(const std::shared_ptr<Replicator>& replicator);
  Status PutInPlaceOnce(const Node& node, const Options& options);
  Status PutInPlace(const std::string& path, const Options& options, bool placeholder);
  void AwaitRelease(ObjectStore& store, const std::string& path, const Options& options,
                    Result<ManifestAt>* manifest);

  CurlClient http_;
  Stores stores_;
  WorkerPool pool_;
  StrangerWatch watch_;
  const int owner_pid_;
  std::mutex mutex_;
  std::map<std::string, Replicated> databases_;       // by path; mutex_
  std::vector<std::shared_ptr<Replicator>> leaving_;  // mutex_
  std::map<std::string, Session> yielded_;            // owners whose release was waited for; mutex_
};

}  // namespace guildlite
