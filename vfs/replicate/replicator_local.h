// What a Replicator keeps to itself; shared by its own files only.
#pragma once

#include <optional>

#include "vfs/replicate/replicator.h"

namespace guildlite {

class Replicator::SettleTask : public Task {
 public:
  explicit SettleTask(Replicator& r) : r_(r) {}
  int64_t Step(int64_t now_ms) override { return r_.Settle(now_ms); }
  uint32_t failures = 0;

 private:
  Replicator& r_;
};

class Replicator::CaptureTask : public Task {
 public:
  explicit CaptureTask(Replicator& r) : r_(r) {}
  int64_t Step(int64_t now_ms) override { return r_.CaptureStep(now_ms); }

 private:
  Replicator& r_;
};

// What Examine() found.
struct Replicator::Local {
  LocalFacts facts;
  CapturedState captured;
  PageTable table;
  bool table_whole = false;
  std::optional<Acknowledged> acknowledged;
  Txid ships_from;        // the first transaction that spool and WAL can still ship
  FileIdentity identity;  // of the database file, when `captured` was proven to be in it
  bool heals = false;     // capture begins with the heal under way, and not before
  std::optional<FileIdentity> unchanged;  // set when that proof needs the file to be this still
};

}  // namespace guildlite
