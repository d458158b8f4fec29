#include "vfs/restore/restorer.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"
#include "vfs/base/file_io.h"
#include "vfs/format/segment_reader.h"
#include "vfs/objects/object_key.h"
#include "vfs/objects/orphans.h"
#include "vfs/objects/part_source.h"
#include "vfs/objects/read_ahead.h"
#include "vfs/restore/restore_file.h"

namespace guildlite {
namespace {

constexpr size_t kVerifyBytes = 1 << 20;

Status Broken(std::string_view key, const std::string& what) {
  return Status(Tag::kChainBroken, std::string(key) + ": " + what);
}

// What the report says was read, whoever read it.
class CountingStore : public ObjectStore {
 public:
  explicit CountingStore(ObjectStore& store) : store_(store) {}

  uint64_t objects() const { return objects_; }
  uint64_t bytes() const { return bytes_; }

  Result<StoredObject> Get(std::string_view key,
                           std::optional<ByteRange> range = std::nullopt) override {
    auto object = store_.Get(key, range);
    if (object.ok()) {
      objects_++;
      bytes_ += object->bytes.size();
    }
    return object;
  }
  Result<std::string> Put(std::string_view key, std::string_view bytes,
                          const PutCondition& condition) override {
    return store_.Put(key, bytes, condition);
  }
  Result<std::vector<ListEntry>> List(std::string_view prefix, std::string_view start_after,
                                      size_t limit) override {
    return store_.List(prefix, start_after, limit);
  }
  Status Delete(std::string_view key) override { return store_.Delete(key); }
  size_t gets_at_once() const override { return store_.gets_at_once(); }
  std::string Describe() const override { return store_.Describe(); }

 private:
  ObjectStore& store_;
  std::atomic<uint64_t> objects_{0};
  std::atomic<uint64_t> bytes_{0};
};

// Collects what the metas of a body say.
class TransactionList final : public MetaVisitor {
 public:
  std::vector<Transaction> Take() { return std::move(transactions_); }

  Status OnTransaction(const Transaction& t) override {
    transactions_.push_back(t);
    return Status::Ok();
  }

 private:
  std::vector<Transaction> transactions_;
};

// Applies the pages of one body after the other to the file.
class Applier : public BatchVisitor {
 public:
  Applier(RestoreFile& file, const SnapshotRecord& snapshot) : file_(file), snapshot_(snapshot) {}

  void set_page_size(uint32_t page_size) { page_size_ = page_size; }
  // The next body: `key` holds transactions first..., of which `last` is the last to apply.
  void Begin(std::string_view key, Txid first, Txid last) {
    key_ = key;
    expected_ = first;
    last_ = last;
    done_ = false;
  }
  bool done() const { return done_; }
  uint32_t page_size() const { return page_size_; }
  uint32_t database_pages() const { return database_pages_; }
  uint64_t history_hash() const { return history_hash_; }

  Status ReadBase(Pgno pgno, std::span<std::byte> out) override {
    if (pgno.value > file_pages_) {
      return Broken(key_, "page " + std::to_string(pgno.value) +
                              " builds on a version of it, but the database has " +
                              std::to_string(file_pages_) + " pages before txid " +
                              std::to_string(expected_.value));
    }
    return file_.Read(Offset(pgno, out.size()), out);
  }

  Status OnTransaction(const Transaction& t) override {
    if (t.txid != expected_) {
      return Broken(key_, "holds txid " + std::to_string(t.txid.value) + ", expected " +
                              std::to_string(expected_.value));
    }
    return Status::Ok();
  }

  Status OnPage(Pgno pgno, uint64_t, std::span<const std::byte> image) override {
    const auto size = static_cast<uint32_t>(image.size());
    if (size != page_size_) {
      // A database without a page has no page size yet (PRAGMA page_size before the first write).
      if (file_pages_ != 0 || !IsValidPageSize(size)) {
        return Broken(key_, "has pages of " + std::to_string(size) + " bytes, the snapshot of " +
                                std::to_string(page_size_));
      }
      page_size_ = size;
    }
    GUILDLITE_RETURN_IF_ERROR(file_.Write(Offset(pgno, size), image));
    file_pages_ = std::max(file_pages_, pgno.value);
    return Status::Ok();
  }

  Status OnTransactionEnd(const Transaction& t) override {
    if (t.database_pages < file_pages_) {
      GUILDLITE_RETURN_IF_ERROR(file_.Resize(uint64_t{t.database_pages} * page_size_));
      file_pages_ = t.database_pages;
    }
    const uint64_t named = t.txid == snapshot_.txid          ? snapshot_.history_hash
                           : t.txid == snapshot_.usable_from ? snapshot_.usable_history_hash
                                                             : t.history_hash;
    if (t.history_hash != named) {
      return Broken(key_, "holds another history at txid " + std::to_string(t.txid.value) +
                              " than the manifest names for " + snapshot_.key);
    }
    database_pages_ = t.database_pages;
    history_hash_ = t.history_hash;
    expected_ = t.txid.Next();
    done_ = t.txid == last_;
    return Status::Ok();
  }

  bool Done() override { return done_; }

 private:
  static uint64_t Offset(Pgno pgno, size_t page_size) {
    return uint64_t{pgno.value - 1} * page_size;
  }

  RestoreFile& file_;
  const SnapshotRecord& snapshot_;
  std::string key_;
  Txid expected_;
  Txid last_;
  bool done_ = false;
  uint32_t page_size_ = 0;
  uint32_t file_pages_ = 0;  // the file ends here; the rest of the database is a hole
  uint32_t database_pages_ = 0;
  uint64_t history_hash_ = 0;
};

class Restoration {
 public:
  Restoration(ObjectStore& store, const RestoreTarget& target, const RestoreSettings& settings,
              RestoreFile& file)
      : store_(store), target_(target), settings_(settings), file_(file) {}

  Result<RestoreReport> Run() {
    for (int i = 0; i < kPlanTriesMax; i++) {
      auto report = Try();
      if (!report.ok()) return report.status();
      if (*report) {
        (*report)->bytes_read = store_.bytes();
        (*report)->objects_read = store_.objects();
        return **report;
      }
      GUILDLITE_RETURN_IF_ERROR(file_.Resize(0));
    }
    return Status(Tag::kTimeout,
                  "restore from " + store_.Describe() +
                      ": what was being read was retired meanwhile, " +
                      std::to_string(kPlanTriesMax) + " times; try again",
                  true);
  }

 private:
  // nullopt: what the manifest had named is not kept any more; plan anew.
  Result<std::optional<RestoreReport>> Try() {
    const auto at = ReadManifest(store_);
    if (!at.ok()) {
      if (at.status().tag() == Tag::kNotFound) {
        return Status(Tag::kNoBackup, "nothing was ever replicated to " + store_.Describe() + ": " +
                                          std::string(kManifestKey) + " is missing");
      }
      return at.status().Context("restore from " + store_.Describe());
    }
    lineage_ = at->manifest.lineage;
    auto report = TryLog(at->manifest);
    if (report.ok() || !MayBeOrphan(at->manifest, report.status())) return report;
    auto orphan = TryOrphans(at->manifest);
    if (orphan.status().tag() == Tag::kNotFound) return report;
    return orphan;
  }

  Result<std::optional<RestoreReport>> TryLog(const Manifest& manifest) {
    const auto snapshots = SnapshotsFor(manifest, target_);
    if (!snapshots.ok()) return snapshots.status().Context("restore from " + store_.Describe());

    for (const SnapshotRecord& snapshot : *snapshots) {
      LogWalk walk;
      if (const auto range = NeededLog(manifest, snapshot, target_)) {
        auto walked = WalkLog(store_, manifest, range->first,
                              {.previous_hash = {},
                               .keep_bytes_max = settings_.keep_bytes_max,
                               .until = range->until,
                               .look_beyond = true});
        if (!walked.ok()) {
          if (walked.status().tag() == Tag::kNotFound) return std::optional<RestoreReport>();
          return walked.status().Context("restore from " + store_.Describe());
        }
        walk = *std::move(walked);
      }
      const WalkedLog log{walk.entries,
                          [this](const LogEntry& entry) { return TransactionsOf(entry); },
                          walk.beyond};
      auto plan = PlanRestore(manifest, snapshot, log, target_);
      if (!plan.ok()) return Missing(plan.status(), snapshot, manifest);
      if (!*plan) continue;
      auto report = Execute(**plan, walk);
      if (!report.ok()) return Missing(report.status(), snapshot, manifest);
      return std::optional(*report);
    }
    return NoPlan(manifest, target_).Context("restore from " + store_.Describe());
  }

  // The end of an epoch is where its successor's FENCE froze it; what its writer had committed
  // beyond that it may have left under orphans/.
  bool MayBeOrphan(const Manifest& manifest, const Status& status) const {
    return target_.kind == RestoreTarget::Kind::kPosition &&
           target_.position.lineage == manifest.lineage &&
           target_.position.epoch <= manifest.epoch &&
           (status.tag() == Tag::kPositionLost || status.tag() == Tag::kNoSuchPoint);
  }

  // kNotFound: nobody left it there. Else as TryLog().
  Result<std::optional<RestoreReport>> TryOrphans(const Manifest& manifest) {
    const Position& p = target_.position;
    const auto names = ListOrphans(store_, OrphanPrefix(p.epoch));
    if (!names.ok()) return names.status();
    std::vector<LogEntry> tail;  // of the session being looked at
    Session session;
    bool whole = true;  // it
    Status why(Tag::kNotFound, "position " + p.ToString() + ": not under orphans/");
    Status damage;
    // The same content may be elsewhere: a snapshot needs no log, and no other session's objects.
    const auto pass_over = [&](const Status& status) {
      if (status.tag() == Tag::kPositionLost || status.tag() == Tag::kNoSuchPoint) {
        why = status;
      } else if (damage.ok() && status.tag() != Tag::kNotFound) {
        damage = status;
      }
      return file_.Resize(0);
    };
    for (const OrphanName& name : *names) {
      if (name.session != session) {
        tail.clear();
        whole = true;
      }
      session = name.session;
      auto entry = ReadOrphan(store_, manifest.lineage, name);
      if (entry.status().retryable()) return entry.status();
      if (!entry.ok()) {
        whole = false;
        GUILDLITE_RETURN_IF_ERROR(pass_over(entry.status()));
        continue;
      }
      const ObjectHeader h = entry->header;
      const bool snapshot = h.kind == ObjectKind::kSnapshot;
      if (snapshot ? EndPosition(h) != p : !whole) continue;
      if (snapshot) {
        auto report = RestoreOrphan(manifest, *entry);
        if (report.ok() || report.status().retryable()) return report;
        GUILDLITE_RETURN_IF_ERROR(pass_over(report.status()));
      } else {
        if (!tail.empty() && (h.previous_hash != tail.back().object_hash ||
                              h.slot != tail.back().header.slot.Next())) {
          whole = false;
          GUILDLITE_RETURN_IF_ERROR(
              pass_over(Broken(entry->key, "does not follow the object before it")));
          continue;
        }
        tail.push_back(*std::move(entry));
        if (p.txid < h.first_txid || p.txid > h.last_txid) continue;
        auto report = TryTail(manifest, tail);
        if (report.ok() || report.status().retryable()) return report;
        GUILDLITE_RETURN_IF_ERROR(pass_over(report.status()));
      }
    }
    return damage.ok() ? why : damage;
  }

  // The log up to the slot where the FENCE is, then the objects that had no place in it.
  Result<std::optional<RestoreReport>> TryTail(const Manifest& manifest,
                                               const std::vector<LogEntry>& tail) {
    const Slot fence = tail.front().header.slot;
    Manifest then = manifest;  // as that epoch ended
    then.epoch = target_.position.epoch;
    std::erase_if(then.past_epochs, [&](const PastEpoch& e) { return e.epoch >= then.epoch; });
    std::erase_if(then.snapshots, [&](const SnapshotRecord& s) {
      return s.epoch > then.epoch || s.first_slot > fence;
    });
    if (then.snapshots.empty()) return TailAlone();
    const auto snapshots = SnapshotsFor(then, target_);
    if (!snapshots.ok()) {
      return snapshots.status().tag() == Tag::kNoSuchPoint ? TailAlone() : snapshots.status();
    }
    for (const SnapshotRecord& snapshot : *snapshots) {
      LogWalk walk;
      if (snapshot.first_slot < fence) {
        auto walked = WalkLog(
            store_, manifest, snapshot.first_slot,
            {.previous_hash = {}, .keep_bytes_max = settings_.keep_bytes_max, .until = fence});
        if (walked.status().tag() == Tag::kNotFound) return std::optional<RestoreReport>();
        if (!walked.ok()) return walked.status();
        walk = *std::move(walked);
        if (walk.next < fence || walk.entries.empty()) {
          return Broken(LogKey(walk.next), "missing, and " + tail.front().key + " continues it");
        }
        if (walk.entries.back().follow_hash != tail.front().header.previous_hash) {
          return Broken(tail.front().key, "does not follow the object in the slot before it");
        }
      }
      walk.entries.insert(walk.entries.end(), tail.begin(), tail.end());
      const WalkedLog log{
          walk.entries, [this](const LogEntry& entry) { return TransactionsOf(entry); }, {}};
      auto plan = PlanRestore(then, snapshot, log, target_);
      if (!plan.ok()) return plan.status();
      if (!*plan) continue;
      auto report = Execute(**plan, walk);
      if (!report.ok()) return Missing(report.status(), snapshot, manifest);
      return std::optional(*report);
    }
    return TailAlone();
  }

  Status TailAlone() const {
    return Status(Tag::kNoSuchPoint, "position " + target_.position.ToString() +
                                         " is under orphans/, but the log that it continues is "
                                         "not kept any more");
  }

  // A snapshot under orphans/, of which nobody deletes a part.
  Result<std::optional<RestoreReport>> RestoreOrphan(const Manifest& manifest,
                                                     const LogEntry& entry) {
    auto plan = PlanRestore(manifest, RecordOf(entry), WalkedLog{}, target_);
    if (!plan.ok()) return plan.status();
    auto report = Execute(**plan, LogWalk());
    if (report.status().tag() == Tag::kNotFound) {
      return Broken(entry.key, report.status().message());
    }
    if (!report.ok()) return report.status().Context("restore from " + store_.Describe());
    return std::optional(*report);
  }

  // An object is gone: joined or retired under us, or lost (invariant 5). Other errors pass.
  Result<std::optional<RestoreReport>> Missing(const Status& status, const SnapshotRecord& snapshot,
                                               const Manifest& planned) {
    if (status.tag() != Tag::kNotFound) {
      return status.Context("restore from " + store_.Describe());
    }
    const auto now = ReadManifest(store_);
    if (!now.ok() && now.status().tag() != Tag::kNotFound) {
      return now.status().Context("restore from " + store_.Describe());
    }
    if (now.ok()) {
      const std::vector<SnapshotRecord>& kept = now->manifest.snapshots;
      const bool retired = std::none_of(
          kept.begin(), kept.end(), [&](const SnapshotRecord& s) { return s.key == snapshot.key; });
      if (retired || LogMoved(planned, now->manifest)) {
        return std::optional<RestoreReport>();
      }
    }
    return Status(Tag::kChainBroken, status.message()).Context("restore from " + store_.Describe());
  }

  Result<std::vector<Transaction>> TransactionsOf(const LogEntry& entry) {
    const std::string& key = entry.key;
    Result<Bytes> fetched(Bytes{});
    if (entry.bytes.empty()) fetched = BytesOf(store_.Get(key), key);
    if (!fetched.ok()) return fetched.status();
    auto object = Open(entry, *fetched);
    if (!object.ok()) return object.status();
    PartSource source(store_, *object, key);
    TransactionList list;
    GUILDLITE_RETURN_IF_ERROR(
        DecodeBody(source, {.images = false, .check_history = false}, list, key));
    return list.Take();
  }

  // The object as it was walked; in `fetched` if the walk did not keep it.
  static Result<ObjectView> Open(const LogEntry& entry, const Bytes& fetched) {
    auto object = OpenObject(entry.bytes.empty() ? fetched : entry.bytes, entry.key);
    if (object.ok() && object->object_hash != entry.object_hash) {
      return Broken(entry.key, "is another object than a moment ago");
    }
    return object;
  }

  Result<RestoreReport> Execute(RestorePlan plan, const LogWalk& walk) {
    Applier applier(file_, plan.snapshot);
    GUILDLITE_RETURN_IF_ERROR(ApplySnapshot(&plan, &applier));
    const auto entry_of = [&](const RestoreStep& step) -> const LogEntry& {
      const auto entry =
          std::lower_bound(walk.entries.begin(), walk.entries.end(), step.slot,
                           [](const LogEntry& e, Slot slot) { return e.header.slot < slot; });
      assert(entry != walk.entries.end() && entry->header.slot == step.slot);
      return *entry;
    };
    ReadAhead ahead(store_, ReadAhead::End::kKnown);  // what the walk did not keep
    auto to_ask = plan.steps.begin();
    for (const RestoreStep& step : plan.steps) {
      for (; to_ask != plan.steps.end(); ++to_ask) {
        const LogEntry& later = entry_of(*to_ask);
        if (!later.bytes.empty()) continue;
        if (!ahead.HasRoom(later.size)) break;
        ahead.Ask(later.key, later.size);
      }
      const LogEntry& entry = entry_of(step);
      Result<Bytes> fetched(Bytes{});
      if (entry.bytes.empty()) fetched = BytesOf(ahead.Answer(), entry.key);
      if (!fetched.ok()) return fetched.status();
      GUILDLITE_RETURN_IF_ERROR(ApplyStep(step, entry, *fetched, &applier));
    }
    if (applier.history_hash() != plan.history_hash ||
        applier.database_pages() != plan.database_pages) {
      return Broken(
          plan.steps.empty() ? plan.snapshot.key : LogKey(plan.steps.back().slot),
          "its header and its body differ about txid " + std::to_string(plan.target.value));
    }
    // The lock page may be the last one, and nobody writes it.
    GUILDLITE_RETURN_IF_ERROR(file_.Resize(uint64_t{plan.database_pages} * applier.page_size()));
    GUILDLITE_RETURN_IF_ERROR(CheckContent(plan, applier.page_size()));
    return RestoreReport{
        .position = {lineage_, plan.epoch, plan.target, static_cast<uint32_t>(plan.history_hash)},
        .time_ms = plan.time_ms,
        .page_size = applier.page_size(),
        .database_pages = plan.database_pages,
        .rolling_checksum = plan.rolling_checksum,
        .transactions = plan.target.value - plan.snapshot.txid.value};
  }

  Status ApplySnapshot(RestorePlan* plan, Applier* applier) {
    const SnapshotRecord& record = plan->snapshot;
    const auto bytes = BytesOf(store_.Get(record.key), record.key);
    if (!bytes.ok()) return bytes.status();
    const auto object = OpenObject(*bytes, record.key);
    if (!object.ok()) return object.status();
    const ObjectHeader& h = object->header;
    if (h.kind != ObjectKind::kSnapshot || h.lineage != lineage_ || h.first_txid != record.txid ||
        h.last_txid != record.usable_from) {
      return Broken(record.key, "is not the snapshot the manifest names: of txid " +
                                    std::to_string(record.txid.value) + ", usable from txid " +
                                    std::to_string(record.usable_from.value));
    }
    applier->set_page_size(h.page_size);
    applier->Begin(record.key, record.txid, record.txid);
    PartSource source(store_, *object, record.key);
    GUILDLITE_RETURN_IF_ERROR(DecodeBody(source, {.page_size = h.page_size, .check_history = false},
                                         *applier, record.key));
    if (!applier->done()) return Broken(record.key, "is empty");
    if (!plan->rolling_known) {
      if (!h.rolling_known) {
        return Broken(record.key, "does not say what the whole database must add up to");
      }
      plan->rolling_known = true;
      plan->rolling_checksum = h.rolling_checksum;
      if (plan->steps.empty()) plan->database_pages = h.database_pages;
    }
    return Status::Ok();
  }

  Status ApplyStep(const RestoreStep& step, const LogEntry& entry, const Bytes& fetched,
                   Applier* applier) {
    const std::string& key = entry.key;
    auto object = Open(entry, fetched);
    if (!object.ok()) return object.status();
    if (step.first != entry.header.first_txid) {
      GUILDLITE_RETURN_IF_ERROR(SkipBatchesBefore(step.first, key, &*object));
    }
    applier->Begin(key, step.first, step.last);
    PartSource source(store_, *object, key);
    GUILDLITE_RETURN_IF_ERROR(
        DecodeBody(source, {.history_before = applier->history_hash()}, *applier, key));
    if (!applier->done()) {
      return Broken(key, "ends before txid " + std::to_string(step.last.value));
    }
    return Status::Ok();
  }

  // A snapshot begins at the end of a batch, and so do the objects a segment was joined from.
  static Status SkipBatchesBefore(Txid first, const std::string& key, ObjectView* segment) {
    const auto batches = ScanBatches(*BytesSource(segment->inline_body));
    if (!batches.ok()) return batches.status();
    size_t at = 0;
    for (const BatchSummary& batch : *batches) {
      if (batch.first_txid == first) {
        segment->inline_body = segment->inline_body.subspan(at);
        return Status::Ok();
      }
      at += batch.size;
    }
    return Broken(key, "no batch in it begins with txid " + std::to_string(first.value));
  }

  // The proof: what is in the file, read back, is what was in the database.
  Status CheckContent(const RestorePlan& plan, uint32_t page_size) {
    uint64_t sum = 0;
    if (plan.database_pages > 0) {
      const Pgno lock_page = LockPage(page_size);
      std::vector<std::byte> buffer(std::max<size_t>(kVerifyBytes, page_size));
      const size_t chunk_pages = buffer.size() / page_size;
      for (uint64_t done = 0; done < plan.database_pages;) {
        const size_t pages = std::min<uint64_t>(chunk_pages, plan.database_pages - done);
        const std::span chunk(buffer.data(), pages * page_size);
        GUILDLITE_RETURN_IF_ERROR(file_.Read(done * page_size, chunk));
        for (size_t i = 0; i < pages; i++) {
          const Pgno pgno(static_cast<uint32_t>(done + i + 1));
          if (pgno == lock_page) continue;
          sum += PageHash(pgno, chunk.subspan(i * page_size, page_size));
        }
        done += pages;
      }
    }
    if (sum == plan.rolling_checksum) return Status::Ok();
    std::string objects = plan.snapshot.key;
    if (!plan.steps.empty()) {
      objects +=
          " with " + LogKey(plan.steps.front().slot) + " to " + LogKey(plan.steps.back().slot);
    }
    return Broken(objects, "the database at txid " + std::to_string(plan.target.value) +
                               " adds up to " + std::to_string(sum) + ", its checksum is " +
                               std::to_string(plan.rolling_checksum));
  }

  CountingStore store_;
  const RestoreTarget& target_;
  const RestoreSettings& settings_;
  RestoreFile& file_;
  Lineage lineage_;
};

Status CheckPath(const std::string& path) {
  if (path.empty()) return Status(Tag::kBadArgument, "restore: the path is empty");
  if (path.find('\0') != std::string::npos) {
    return Status(Tag::kBadArgument, "restore: the path has a NUL byte");
  }
  if (path.find("://") != std::string::npos || path.starts_with("file:") ||
      path.starts_with("s3:")) {
    return Status(Tag::kBadArgument,
                  "restore to " + path + ": a path is wanted; are path and url swapped?");
  }
  if (BaseName(path).empty()) {
    return Status(Tag::kBadArgument, "restore to " + path + ": that names a directory");
  }
  return Status::Ok();
}

Random& RandomOf(const RestoreSettings& settings) {
  return settings.random != nullptr ? *settings.random : SystemRandom();
}

}  // namespace

Result<RestoreReport> Restore(ObjectStore& store, const std::string& path,
                              const RestoreTarget& target, const RestoreSettings& settings) {
  GUILDLITE_RETURN_IF_ERROR(CheckPath(path));
  GUILDLITE_RETURN_IF_ERROR(CheckNothingAt(path));
  auto file = RestoreFile::Create(DirectoryOf(path), BaseName(path), RandomOf(settings));
  if (!file.ok()) return file.status();
  auto report = Restoration(store, target, settings, **file).Run();
  if (!report.ok()) return report;
  if (settings.sqlite_check) {
    GUILDLITE_RETURN_IF_ERROR(settings.sqlite_check((*file)->temp_path()));
  }
  GUILDLITE_RETURN_IF_ERROR((*file)->Publish(path));
  return report;
}

Result<RestoreReport> Verify(ObjectStore& store, const std::string& directory,
                             const RestoreTarget& target, const RestoreSettings& settings) {
  auto file = RestoreFile::Create(directory, "verify", RandomOf(settings));
  if (!file.ok()) return file.status();
  if (!settings.sqlite_check) (*file)->Unlink();
  auto report = Restoration(store, target, settings, **file).Run();
  if (!report.ok()) return report;
  if (settings.sqlite_check) {
    GUILDLITE_RETURN_IF_ERROR(settings.sqlite_check((*file)->temp_path()));
  }
  return report;
}

}  // namespace guildlite
