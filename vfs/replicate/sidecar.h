// The sidecar folder `app.db-guildlite/`: what one database's replication must remember locally.
//
//   lock      flock: which process captures and ships; close-on-exec, closed in forked children;
//   its
//             text says which, for people
//   state     JSON, replaced atomically: lineage, epoch, session, url, options, inode of the
//   database,
//             boot id
//   cursor    three fixed records, rewritten in place without fsync: which WAL generation follows
//   which
//             transaction (link), how far the store has acknowledged, whether a heal is owed
//   clean     written and fsynced at the last close: nothing was in the WAL any more
//   pages     the page-hash table (vfs/capture/page_table.h)
//   spool/    sealed batches (spool.h)
//
// Invariants:
//   1. All of the folder may be deleted while nothing is open: the cost is a scan, never data.
//   2. After kill -9 (same boot id) every record is as last written, since the page cache survives.
//      After power loss a record is used only if its checksum is right, and what it claims is then
//      verified against WAL, spool and page table.
//   3. Secrets are never written here.
//
// Thread-safe where said; the rest belongs to the capture mutex.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

#include "guildlite/status.h"
#include "guildlite/types.h"
#include "vfs/base/file_io.h"

namespace guildlite {

struct SidecarState {
  Lineage lineage;
  Epoch epoch;
  Session session;
  Session planned;  // of a takeover not known to have happened; 0 = none
  std::string url;
  std::string options_json;  // persisted form, no secrets
  uint64_t device = 0;
  uint64_t inode = 0;
  std::string boot_id;
  // Positions may have been handed out since that a power loss takes back: set when the database is
  // open, cleared when a close has made everything survive that.
  bool open = true;
  // Refused as DIVERGED although the log is ours: what is here must not be taken for its end.
  bool diverged = false;
  bool operator==(const SidecarState&) const = default;
};

// "Frame 1 of the generation with these salts directly follows transaction txid."
struct WalLink {
  uint32_t salt1 = 0;
  uint32_t salt2 = 0;
  Txid txid;
  uint64_t history_hash = 0;
  bool operator==(const WalLink&) const = default;
};

// What the store has acknowledged.
struct Acknowledged {
  Slot next_slot;
  uint64_t previous_hash = 0;  // object hash of next_slot - 1
  Txid txid;                   // last transaction in the log
  uint64_t history_hash = 0;
  bool heal_open = false;  // a HEAL_BEGIN without its HEAL_END
  Lineage lineage;         // of which log, and in which epoch: the FENCE is in it then
  Epoch epoch;
  bool operator==(const Acknowledged&) const = default;
};

// The database file as it was when the last connection closed with an empty WAL.
struct CleanClose {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size = 0;
  int64_t ctime_ns = 0;
  int64_t recorded_ns = 0;  // of the record file itself; must be later by kCleanGapNs
  Txid txid;
  uint64_t rolling_checksum = 0;
  bool operator==(const CleanClose&) const = default;
};
// A change within the same tick of the file system's clock would leave ctime as it was.
inline constexpr int64_t kCleanGapNs = 20'000'000;

class Sidecar {
 public:
  // `directory` = database path + "-guildlite". Nothing is created.
  explicit Sidecar(std::string directory) : directory_(std::move(directory)) {}
  Sidecar(const Sidecar&) = delete;
  Sidecar& operator=(const Sidecar&) = delete;

  const std::string& directory() const { return directory_; }
  bool Exists() const;
  // Creates the folder and takes the lock. OWNED when another process has it. STORE_UNSAFE on a
  // network file system, whose locks and mmap are not to be relied upon.
  // `holder`, for people, is what Holder() says to others.
  Status Lock(const std::string& holder = {});
  std::string Holder() const;
  bool locked() const { return lock_.is_open(); }
  // The lock file under this path is still the one locked: false after the folder was deleted.
  bool LockIsCurrent() const;
  void Unlock();
  // In a forked child: closes the inherited descriptors, which the parent keeps locked.
  void CloseInChild();

  Result<std::optional<SidecarState>> ReadState() const;  // nullopt: none or unreadable
  Status WriteState(const SidecarState& state);
  Status ForgetState();  // replication_stop: everything but the lock goes
  // REQUIRES: locked(). The folder goes, with the lock, if nothing but what Lock() makes and
  // ForgetState() forgets is in it.
  void RemoveFolder();

  // REQUIRES: locked(). Thread-safe.
  Status WriteLink(const WalLink& link);
  Status WriteAcknowledged(const Acknowledged& acknowledged);
  Status WriteHealOwed(bool owed);
  bool ReadHealOwed() const;
  std::optional<WalLink> ReadLink() const;
  std::optional<Acknowledged> ReadAcknowledged() const;

  Status WriteClean(const CleanClose& clean);
  std::optional<CleanClose> ReadClean() const;
  Status RemoveClean();

  // The page table's file, opened by Lock().
  const File& pages() const { return pages_; }
  std::string spool_directory() const { return directory_ + "/spool"; }

 private:
  std::string directory_;
  File lock_;
  File cursor_;
  File pages_;
};

}  // namespace guildlite
