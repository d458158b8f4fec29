// Snapshotter: drives the scans of one database and turns them into snapshots. A Task.
//
// First scan, live snapshot and heal are one algorithm (recorder.h holds the state, under the
// capture mutex; this reads pages, encodes and uploads outside it):
//
//   begin: batch boundary at S -> chunks of pages -> end: E = what is captured then
//   -> log acknowledged through E -> snapshot object {S, usable from E, first slot} -> manifest
//   swap
//
// Invariants:
//   1. A snapshot enters the manifest only after the log is acknowledged through E: before that it
//      cannot be restored.
//   2. Memory is one chunk and one part; nothing is staged on disk.
//   3. A scan that was replaced (a gap was found) leaves parts nobody names; they are never reused.
//
// Automatic snapshots: when the log since the last one exceeds max(snapshot_min_bytes, half the
// last snapshot's stored bytes).
//
// Thread-safe; Step() runs on the pool only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "guildlite/clock.h"
#include "guildlite/object_store.h"
#include "vfs/base/task.h"
#include "vfs/format/segment_writer.h"
#include "vfs/objects/manifest.h"
#include "vfs/replicate/recorder.h"
#include "vfs/replicate/shipper.h"

namespace guildlite {

class Snapshotter : public Task {
 public:
  struct Settings {
    uint64_t snapshot_min_bytes = 8 << 20;
    uint64_t part_bytes = 16 << 20;
    uint32_t chunk_pages = 64;
  };
  Snapshotter(
      Clock& clock, Random& random, ObjectStore& store, Recorder& recorder, Shipper& shipper,
      const Settings& settings, std::function<void()> wake_shipper,
      std::function<void()> on_taken = [] {});
  ~Snapshotter() override;

  // The claim is ours; `manifest` is as it is now.
  void Begin(const Manifest& manifest);
  int64_t Step(int64_t now_ms) override;

  // Asks for a snapshot; the number identifies it for Finished(). Only one is asked for at a time.
  Result<uint64_t> Request(std::string label);
  // nullopt: not yet. The position's state E, or why it failed.
  std::optional<Result<CapturedState>> Finished(uint64_t request);
  uint64_t snapshots_taken();
  Status last_error();

 private:
  struct Work;  // of the running scan
  Status Advance(bool* again);
  Status FlushPart(bool last);
  Status Publish(bool* again);
  void Finish(const Result<CapturedState>& result);

  Clock& clock_;
  Random& random_;
  ObjectStore& store_;
  Recorder& recorder_;
  Shipper& shipper_;
  const Settings settings_;
  const std::function<void()> wake_shipper_;
  const std::function<void()> on_taken_;  // a snapshot entered the manifest

  std::unique_ptr<Work> work_;  // the pool's thread alone
  uint32_t failures_ = 0;

  std::mutex mutex_;
  bool begun_ = false;
  bool begun_anew_ = false;  // Begin() since the last Step()
  uint64_t last_bytes_ = 0;  // stored bytes of the last snapshot
  bool owed_ = false;        // the manifest has none yet
  std::optional<std::string> requested_label_;
  uint64_t requests_ = 0;
  uint64_t finished_ = 0;
  std::optional<Result<CapturedState>> result_;
  uint64_t taken_ = 0;
  Status last_error_;
};

}  // namespace guildlite
