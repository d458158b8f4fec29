// Restores from stores a LogFixture wrote: every point byte for byte, every kind of damage named,
// nothing under the final name unless it is whole.
#include "vfs/restore/restorer.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <random>
#include <thread>

#include "tests/support/fault_store.h"
#include "tests/support/log_fixture.h"
#include "tests/support/round_store.h"
#include "tests/support/segment_spec.h"
#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"
#include "vfs/base/file_io.h"
#include "vfs/base/time_text.h"
#include "vfs/format/segment_reader.h"
#include "vfs/objects/memory_store.h"
#include "vfs/objects/object_key.h"

namespace guildlite {
namespace {

using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::LogFixture;

class CountingRandom : public Random {
 public:
  uint64_t Next64() override { return next_++; }

 private:
  uint64_t next_ = 0x100;
};

// Calls `before` ahead of every Get; an error from it is the answer.
class HookedStore : public ObjectStore {
 public:
  explicit HookedStore(ObjectStore& store) : store_(store) {}
  std::function<Status(std::string_view key)> before;

  Result<StoredObject> Get(std::string_view key, std::optional<ByteRange> range) override {
    if (before) GUILDLITE_RETURN_IF_ERROR(before(key));
    return store_.Get(key, range);
  }
  Result<std::string> Put(std::string_view key, std::string_view bytes,
                          const PutCondition& condition) override {
    ADD_FAILURE() << "a restore wrote " << key;
    return store_.Put(key, bytes, condition);
  }
  Result<std::vector<ListEntry>> List(std::string_view prefix, std::string_view start_after,
                                      size_t limit) override {
    ADD_FAILURE() << "a restore listed " << prefix;
    return store_.List(prefix, start_after, limit);
  }
  Status Delete(std::string_view key) override {
    ADD_FAILURE() << "a restore deleted " << key;
    return store_.Delete(key);
  }
  std::string Describe() const override { return "hooked"; }

 private:
  ObjectStore& store_;
};

RestoreTarget Latest() { return {}; }
RestoreTarget AtTxid(uint64_t n) { return {.kind = RestoreTarget::Kind::kTxid, .txid = Txid(n)}; }
RestoreTarget AtTime(int64_t ms) { return {.kind = RestoreTarget::Kind::kTime, .time_ms = ms}; }
RestoreTarget At(const Position& p) {
  return {.kind = RestoreTarget::Kind::kPosition, .position = p};
}

class RestorerTest : public ::testing::Test {
 protected:
  RestorerTest() {
    // In memory where possible: thousands of files are made durable here.
    std::string dir = ::access("/dev/shm", W_OK) == 0 ? "/dev/shm/" : ::testing::TempDir();
    dir += "guildlite-restore-XXXXXX";
    directory_ = ::mkdtemp(dir.data());
    path_ = directory_ + "/app.db";
    ahead_.set_gets_at_once(8);
  }
  ~RestorerTest() override { std::filesystem::remove_all(directory_); }

  Result<RestoreReport> Restore(const RestoreTarget& target) { return Restore(*reads_, target); }
  Result<RestoreReport> Restore(ObjectStore& store, const RestoreTarget& target) {
    return guildlite::Restore(store, path_, target, settings_);
  }

  // Restores, compares and takes the file away again.
  void ExpectRestores(ObjectStore& store, const RestoreTarget& target,
                      const LogFixture::Point& point) {
    SCOPED_TRACE(target.ToString());
    const auto report = Restore(store, target);
    ASSERT_TRUE(report.ok()) << report.status().ToString();
    EXPECT_EQ(report->position.txid, point.position.txid);
    EXPECT_EQ(report->position.check, point.position.check);
    // A snapshot's own point bears the epoch it was made in.
    EXPECT_GE(report->position.epoch, point.position.epoch);
    EXPECT_EQ(report->time_ms, point.time_ms);
    EXPECT_EQ(report->rolling_checksum, point.rolling_checksum);
    const auto file = ReadWholeFile(path_);
    ASSERT_TRUE(file.ok()) << file.status().ToString();
    EXPECT_TRUE(*file == point.file)
        << "of " << file->size() << " bytes, " << point.file.size() << " expected";
    EXPECT_THAT(Names(), ElementsAre("app.db"));
    ASSERT_TRUE(RemoveFile(path_).ok());
  }
  void ExpectRestores(const RestoreTarget& target, const LogFixture::Point& point) {
    ExpectRestores(*reads_, target, point);
  }
  void ExpectFails(const Result<RestoreReport>& report, Tag tag, const std::string& says) {
    ASSERT_FALSE(report.ok()) << "restored " << report->position.ToString();
    EXPECT_EQ(TagName(report.status().tag()), TagName(tag)) << report.status().ToString();
    EXPECT_THAT(report.status().message(), HasSubstr(says));
  }
  // Every point by its number, position and time; what is none is refused.
  void ExpectAllPoints(const LogFixture& log) {
    const LogFixture::Point* latest = nullptr;
    for (const LogFixture::Point& p : log.points()) {
      if (p.restorable) ExpectRestores(At(p.position), p);
      if (p.restorable && p.live) {
        ExpectRestores(AtTxid(p.position.txid.value), p);
        ExpectRestores(AtTime(p.time_ms), p);
        if (!latest || p.position.txid > latest->position.txid) latest = &p;
      } else if (p.live) {
        ExpectFails(Restore(AtTxid(p.position.txid.value)), Tag::kNoSuchPoint, "txid");
      }
      if (!p.restorable) {
        const auto report = Restore(At(p.position));
        ASSERT_FALSE(report.ok()) << p.position.ToString();
        EXPECT_THAT(report.status().tag(), AnyOf(Tag::kNoSuchPoint, Tag::kPositionLost));
      }
      if (HasFailure()) return;
    }
    ASSERT_NE(latest, nullptr);
    ExpectRestores(Latest(), *latest);
  }

  std::vector<std::string> Names() const { return *ListDirectory(directory_); }
  std::vector<std::string> Keys() {
    std::vector<std::string> keys;
    const auto entries = store_.List("", "", SIZE_MAX);
    for (const ListEntry& e : *entries) keys.push_back(e.key);
    return keys;
  }
  std::string ObjectAt(const std::string& key) { return store_.Get(key)->bytes; }
  void Overwrite(const std::string& key, const std::string& bytes) {
    ASSERT_TRUE(store_.Put(key, bytes, PutCondition::Overwrite()).ok());
  }

  std::string directory_;
  std::string path_;
  MemoryStore store_;
  FaultStore ahead_{store_};  // the same, read ahead
  ObjectStore* reads_ = &store_;
  CountingRandom random_;
  RestoreSettings settings_{.random = &random_};
};

// ---- Right ones --------------------------------------------------------------------------------

class RestorerOfPageSize : public RestorerTest, public ::testing::WithParamInterface<uint32_t> {};

TEST_P(RestorerOfPageSize, BringsBackEveryTransactionByteForByte) {
  std::mt19937_64 random(GetParam());
  LogFixture log(store_, {.page_size = GetParam(), .block_pages_max = 5});
  log.Snapshot();
  for (int i = 1; i <= 30; i++) {
    log.CommitRandom(random, 20);
    if (i % 3 == 0) log.CutBatch();
    if (i % 5 == 0) log.Ship();
    if (i % 13 == 0) log.Snapshot();
  }
  log.Ship();
  ExpectAllPoints(log);
}

INSTANTIATE_TEST_SUITE_P(PageSizes, RestorerOfPageSize,
                         ::testing::Values(512u, 1024u, 4096u, 32768u, 65536u));

// Everything that can happen to a log, in random order.
class RestorerOfSeed : public RestorerTest, public ::testing::WithParamInterface<uint64_t> {};

TEST_P(RestorerOfSeed, BringsBackEveryPointOfATurbulentHistory) {
  std::mt19937_64 random(GetParam());
  const auto dice = [&](uint64_t n) { return random() % n; };
  LogFixture log(store_, {.page_size = 512,
                          .block_pages_max = static_cast<uint32_t>(1 + dice(12)),
                          .part_bytes = dice(2) == 0 ? UINT64_MAX : 300});
  settings_.keep_bytes_max = dice(2) == 0 ? 0 : 2000;
  if (dice(4) == 0) reads_ = &ahead_;
  MakeTurbulent(log, random, 60);
  ExpectAllPoints(log);
}

INSTANTIATE_TEST_SUITE_P(Seeds, RestorerOfSeed, ::testing::Range<uint64_t>(1, 41));

TEST_F(RestorerTest, AnEmptyDatabaseIsAPointOfItsOwn) {
  LogFixture log(store_, {});
  log.Snapshot();
  ExpectRestores(Latest(), log.points()[0]);
  ExpectRestores(AtTxid(0), log.points()[0]);
  log.Commit({{1, testing::MakePage(512, 1)}}, 1);
  log.Ship();
  ExpectRestores(Latest(), log.points()[1]);
  ExpectRestores(AtTxid(0), log.points()[0]);
}

TEST_F(RestorerTest, PagesTheSnapshotLeftOutComeFromTheLog) {
  LogFixture log(store_, {.block_pages_max = 2});
  LogFixture::Pages all;
  for (uint32_t n = 1; n <= 9; n++) all.emplace_back(n, testing::MakePage(512, n));
  log.Commit(all, 9);
  log.BeginScan();
  log.ScanPages(3);
  // Page 2 was scanned, 5 and 7 were not; 9 goes away before the scan comes to it, and comes back.
  log.Commit({{2, testing::MakePage(512, 22)}, {5, testing::MakePage(512, 55)}}, 8);
  log.Commit({{7, testing::MakePage(512, 77)}, {5, testing::MakePage(512, 56)}}, 8);
  log.ScanPages(3);
  log.Commit({{9, testing::MakePage(512, 99)}, {6, testing::MakePage(512, 66)}}, 9);
  log.ScanPages();
  const Txid e = log.Commit({{1, testing::MakePage(512, 11)}}, 9);
  log.EndScan();
  std::mt19937_64 random(1);
  log.CommitRandom(random);
  log.Ship();
  ExpectAllPoints(log);
  for (uint64_t n = 0; n < e.value; n++) {
    ExpectFails(Restore(AtTxid(n)), Tag::kNoSuchPoint, "the nearest after is txid 5 ");
  }
}

TEST_F(RestorerTest, TheReportTellsWhatWasDone) {
  LogFixture log(store_, {.part_bytes = 400});
  std::mt19937_64 random(3);
  log.CommitRandom(random);
  const std::string snapshot = log.Snapshot();
  for (int i = 0; i < 5; i++) log.CommitRandom(random);
  log.Ship();
  const auto report = Restore(Latest());
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_EQ(report->page_size, 512u);
  EXPECT_EQ(report->database_pages, log.points().back().file.size() / 512);
  EXPECT_EQ(report->transactions, 5u);
  EXPECT_EQ(report->position.ToString(), log.points().back().position.ToString());
  // All but the manifest once, from the snapshot on; that one whenever the end has to be sure.
  uint64_t bytes = 0;
  uint64_t objects = 0;
  for (const std::string& key : Keys()) {
    if (key == kManifestKey || key == LogKey(Slot(1)) || key == LogKey(Slot(2)) ||
        key.starts_with("parts/00000001-0000000000000002-")) {
      continue;
    }
    bytes += ObjectAt(key).size();
    objects++;
  }
  ASSERT_GT(report->objects_read, objects);
  EXPECT_EQ(report->bytes_read,
            bytes + (report->objects_read - objects) * ObjectAt(std::string(kManifestKey)).size());
}

TEST_F(RestorerTest, TheLockPageStaysAHole) {
  // 1 GiB of zeros but for the pages around the lock page; sparse on disk.
  constexpr uint32_t kPageSize = 65536;
  constexpr uint32_t kLock = 0x40000000 / kPageSize + 1;
  constexpr uint32_t kPages = kLock + 2;
  const Lineage lineage(5);
  const std::string zeros(kPageSize, '\0');
  const std::string below = testing::MakePage(kPageSize, 1);
  const std::string above = testing::MakePage(kPageSize, 2);
  uint64_t sum =
      PageHash(Pgno(kLock - 1), AsBytes(below)) + PageHash(Pgno(kLock + 1), AsBytes(above));
  for (uint32_t n = 1; n <= kPages; n++) {
    if (n < kLock - 1 || n > kLock + 1) sum += PageHash(Pgno(n), AsBytes(zeros));
  }
  BatchWriter writer({.page_size = kPageSize, .level = 1});
  Transaction t;
  t.txid = Txid(3);
  t.database_pages = kPages;
  t.history_hash = 42;
  writer.BeginTransaction(t);
  writer.AddPage(Pgno(kLock - 1), PageHash(Pgno(kLock - 1), AsBytes(below)), AsBytes(below), {});
  writer.AddPage(Pgno(kLock + 1), PageHash(Pgno(kLock + 1), AsBytes(above)), AsBytes(above), {});
  writer.EndTransaction();
  ObjectHeader h;
  h.kind = ObjectKind::kSnapshot;
  h.lineage = lineage;
  h.epoch = Epoch(1);
  h.first_txid = h.last_txid = h.continues_from = Txid(3);
  h.page_size = kPageSize;
  h.database_pages = kPages;
  h.history_hash = 42;
  h.rolling_checksum = sum;
  h.rolling_known = true;
  const std::string key = SnapshotKey(Txid(3), Txid(3), Epoch(1), 1);
  const std::string body = writer.Seal();
  Overwrite(key, EncodeObject(h, body, writer.index()));
  Manifest manifest;
  manifest.lineage = lineage;
  manifest.snapshots.push_back({.key = key,
                                .txid = Txid(3),
                                .usable_from = Txid(3),
                                .first_slot = Slot(4),
                                .end_slot = Slot(4),
                                .epoch = Epoch(1),
                                .history_hash = 42,
                                .usable_history_hash = 42});
  Overwrite(std::string(kManifestKey), manifest.Encode());

  const auto report = Restore(Latest());
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  const auto file = File::Open(path_, O_RDONLY);
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(*file->Size(), uint64_t{kPages} * kPageSize);
  std::string page(kPageSize, 'x');
  const auto bytes = std::as_writable_bytes(std::span(page.data(), page.size()));
  ASSERT_TRUE(file->ReadAt(uint64_t{kLock - 1} * kPageSize, bytes).ok());
  EXPECT_TRUE(page == zeros);
  ASSERT_TRUE(file->ReadAt(uint64_t{kLock} * kPageSize, bytes).ok());
  EXPECT_TRUE(page == above);
}

// ---- Damage ------------------------------------------------------------------------------------

// Snapshot with parts, objects with parts, several batches, a heal, a VOID, a takeover.
class DamagedStore : public RestorerTest {
 protected:
  DamagedStore() : log_(store_, {.block_pages_max = 3, .part_bytes = 200}) {
    std::mt19937_64 random(11);
    log_.CommitRandom(random, 4);
    log_.BeginScan();
    log_.CommitRandom(random, 4);
    log_.ScanPages();
    log_.CommitRandom(random, 4);
    log_.EndScan();
    log_.CommitRandom(random, 4);
    log_.CutBatch();
    log_.CommitRandom(random, 4);
    log_.Ship();
    log_.Void();
    log_.HealBegin();
    log_.CommitRandom(random, 4);
    heal_end_ = log_.next_slot().Next();  // after the commit's
    log_.HealEnd();
    log_.Fence();
    log_.CommitRandom(random, 4);
    log_.Ship();
    for (const std::string& key : Keys()) {
      // What lies before the snapshot is not read.
      const auto slot = ParseLogKey(key);
      const Slot first = log_.manifest().snapshots[0].first_slot;
      const bool before =
          (slot && *slot < first) || key.starts_with("parts/00000001-0000000000000002");
      if (key != kManifestKey && !before) keys_.push_back(key);
    }
  }
  void ExpectDamageIsNamed(const std::string& key, const std::string& what) {
    const auto report = Restore(Latest());
    ASSERT_FALSE(report.ok()) << key << " " << what;
    ASSERT_THAT(report.status().tag(), AnyOf(Tag::kChainBroken, Tag::kFormatTooNew, Tag::kWrongKey))
        << key << " " << what << ": " << report.status().ToString();
    ASSERT_THAT(report.status().message(), HasSubstr(key)) << what;
    ASSERT_THAT(Names(), IsEmpty()) << key << " " << what;
  }

  LogFixture log_;
  Slot heal_end_;
  std::vector<std::string> keys_;  // what a restore of the latest point reads, but the manifest
};

TEST_F(DamagedStore, IsFineBefore) {
  EXPECT_GE(keys_.size(), 14u);
  ExpectAllPoints(log_);
}

TEST_F(DamagedStore, EveryFlippedByteIsNoticedAndNamed) {
  for (const std::string& key : keys_) {
    const std::string good = ObjectAt(key);
    for (size_t i = 0; i < good.size(); i++) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << (i % 8)));
      Overwrite(key, bad);
      ExpectDamageIsNamed(key, "byte " + std::to_string(i));
      if (HasFatalFailure()) return;
    }
    Overwrite(key, good);
  }
}

TEST_F(DamagedStore, EveryTruncationIsNoticedAndNamed) {
  for (const std::string& key : keys_) {
    const std::string good = ObjectAt(key);
    for (size_t i = 0; i < good.size(); i++) {
      Overwrite(key, good.substr(0, i));
      ExpectDamageIsNamed(key, "cut to " + std::to_string(i));
      if (HasFatalFailure()) return;
    }
    Overwrite(key, good + '\0');
    ExpectDamageIsNamed(key, "one byte longer");
    Overwrite(key, good);
  }
}

TEST_F(DamagedStore, EveryMissingObjectIsNoticedAndNamed) {
  // A missing slot looks like the tip; but here a snapshot was made after all of them.
  SnapshotRecord next = log_.manifest().snapshots[0];
  next.key += "x";
  next.txid = next.usable_from = log_.tip();
  next.first_slot = next.end_slot = log_.next_slot();
  log_.manifest().snapshots.push_back(next);
  log_.SaveManifest();
  const auto target = AtTxid(log_.tip().value - 1);  // what the heal proved
  for (const std::string& key : keys_) {
    const std::string good = ObjectAt(key);
    ASSERT_TRUE(store_.Delete(key).ok());
    ahead_.set_gets_at_once(8);
    const Status ahead = Restore(ahead_, target).status();
    (void)RemoveFile(path_);
    ahead_.set_gets_at_once(1);
    const auto report = Restore(ahead_, target);
    EXPECT_EQ(ahead.ToString(), report.status().ToString()) << "with one request at a time";
    const auto slot = ParseLogKey(key);
    if ((slot && *slot > heal_end_) || key.starts_with("parts/00000002-")) {
      // The takeover and what it wrote: the target is certain without.
      ASSERT_TRUE(report.ok()) << key << ": " << report.status().ToString();
      ASSERT_TRUE(RemoveFile(path_).ok());
    } else {
      ExpectFails(report, Tag::kChainBroken, key);
    }
    EXPECT_THAT(Names(), IsEmpty());
    Overwrite(key, good);
  }
}

TEST_F(DamagedStore, SwappedObjectsAreNoticed) {
  for (const std::string& a : keys_) {
    for (const std::string& b : keys_) {
      if (a >= b) continue;
      const std::string good_a = ObjectAt(a);
      const std::string good_b = ObjectAt(b);
      Overwrite(a, good_b);
      Overwrite(b, good_a);
      const auto report = Restore(Latest());
      ASSERT_FALSE(report.ok()) << a << " " << b;
      ASSERT_EQ(report.status().tag(), Tag::kChainBroken) << report.status().ToString();
      ASSERT_THAT(report.status().message(), AnyOf(HasSubstr(a), HasSubstr(b)));
      ASSERT_THAT(Names(), IsEmpty());
      Overwrite(a, good_a);
      Overwrite(b, good_b);
    }
  }
}

TEST_F(DamagedStore, ADamagedManifestNeverGivesAWrongFile) {
  const std::string key(kManifestKey);
  const std::string good = ObjectAt(key);
  for (size_t i = 0; i < good.size(); i++) {
    for (const int bit : {0, 3, 6}) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      Overwrite(key, bad);
      ExpectFails(Restore(Latest()), Tag::kChainBroken, key);
      ASSERT_THAT(Names(), IsEmpty());
      if (HasFailure()) return;
    }
  }
}

// The writer puts a slot only when it knows that the one before it is there.
TEST_F(RestorerTest, ASlotThatIsMissingBeforeAnotherIsAHoleAndNoTip) {
  LogFixture log(store_, {});
  log.Snapshot();
  for (int i = 1; i <= 4; i++) {
    log.Commit({{1, testing::MakePage(512, static_cast<uint64_t>(i))}}, 1);
    log.Ship();
  }
  for (uint64_t slot = 2; slot <= 4; slot++) {
    const std::string key = LogKey(Slot(slot));
    const std::string good = ObjectAt(key);
    ASSERT_TRUE(store_.Delete(key).ok());
    ExpectFails(Restore(Latest()), Tag::kChainBroken, key + ": missing");
    ExpectFails(Restore(AtTxid(slot - 1)), Tag::kChainBroken, key + ": missing");
    ExpectRestores(store_, AtTxid(slot - 2), log.points()[slot - 2]);
    EXPECT_THAT(Names(), IsEmpty());
    ASSERT_TRUE(store_.Put(key, good, PutCondition::Create()).ok());
  }
}

TEST_F(RestorerTest, WhatIsWrittenBehindTheTipMakesNoHole) {
  LogFixture log(store_, {});
  log.Snapshot();
  HookedStore hooked(store_);
  bool written = false;
  hooked.before = [&](std::string_view key) {
    if (key != LogKey(Slot(3)) || std::exchange(written, true)) return Status::Ok();
    for (int i = 1; i <= 2; i++) {
      log.Commit({{1, testing::MakePage(512, static_cast<uint64_t>(i))}}, 1);
      log.Ship();
    }
    return Status::Ok();
  };
  const auto report = Restore(hooked, Latest());
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_TRUE(written);
  EXPECT_TRUE(*ReadWholeFile(path_) == log.points().back().file);
}

// 37 slots and a snapshot in parts, all of them to be read, and the slots twice.
TEST_F(RestorerTest, TakesTheTimeOfAFewAnswers) {
  LogFixture log(store_, {.part_bytes = 700});
  LogFixture::Pages pages;
  for (uint32_t n = 1; n <= 40; n++) pages.emplace_back(n, testing::MakePage(512, n));
  log.Commit(pages, 40);
  log.Ship();
  const std::string key = log.Snapshot();
  for (uint64_t i = 0; i < 37; i++) {
    log.Commit({{1, testing::MakePage(512, 100 + i)}}, 40);
    log.Ship();
  }
  const std::string snapshot = ObjectAt(key);
  const size_t parts = OpenObject(snapshot, key)->header.parts.size();
  ASSERT_GT(parts, 5u);
  ASSERT_LE(parts, 16u);

  settings_.keep_bytes_max = 0;
  testing::RoundStore store(store_, 16);
  Result<RestoreReport> report = RestoreReport();
  std::thread reader([&] { report = Restore(store, Latest()); });
  store.Round(1);  // the manifest
  for (const size_t gets : {1, 1, 2, 2, 4, 4, 8, 8, 16, 7}) store.Round(gets);
  store.Round(1);  // the manifest
  store.Round(1);
  store.Round(parts);
  for (const size_t gets : {16, 16, 5}) store.Round(gets);
  store.Open();
  reader.join();
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_TRUE(*ReadWholeFile(path_) == log.points().back().file);
}

TEST_F(RestorerTest, AWrongWholeDatabaseChecksumIsShownWithBothNumbers) {
  LogFixture log(store_, {});
  log.Snapshot();
  log.Commit({{1, testing::MakePage(512, 1)}}, 1);
  log.Ship();
  // The same object, but for what it claims the database adds up to.
  const std::string key = LogKey(Slot(2));
  const std::string object = ObjectAt(key);
  const auto view = OpenObject(object, key);
  ASSERT_TRUE(view.ok());
  ObjectHeader h = view->header;
  h.rolling_checksum = 12345;
  Overwrite(key, EncodeObject(h, AsText(view->inline_body)));
  const auto report = Restore(Latest());
  ExpectFails(report, Tag::kChainBroken, "12345");
  ExpectFails(report, Tag::kChainBroken, std::to_string(log.points()[1].rolling_checksum));
  ExpectFails(report, Tag::kChainBroken, key);
  EXPECT_THAT(Names(), IsEmpty());
}

TEST_F(RestorerTest, AnObjectThatChangesBetweenWalkAndUseIsNoticed) {
  LogFixture log(store_, {});
  log.Snapshot();
  log.Commit({{1, testing::MakePage(512, 1)}}, 1);
  log.Ship();
  const std::string key = LogKey(Slot(2));
  const std::string object = ObjectAt(key);
  ObjectHeader h = OpenObject(object, key)->header;
  h.previous_hash ^= 1;
  const std::string other = EncodeObject(h, AsText(OpenObject(object, key)->inline_body));
  settings_.keep_bytes_max = 0;
  HookedStore hooked(store_);
  int gets = 0;
  hooked.before = [&](std::string_view k) {
    if (k == key && ++gets == 2) Overwrite(key, other);
    return Status::Ok();
  };
  ExpectFails(Restore(hooked, Latest()), Tag::kChainBroken, key);
}

TEST_F(RestorerTest, NothingEverReplicatedIsNoBackup) {
  ExpectFails(Restore(Latest()), Tag::kNoBackup, "nothing was ever replicated to memory");
  LogFixture log(store_, {});
  ExpectFails(Restore(Latest()), Tag::kNoBackup, "first snapshot");
  EXPECT_THAT(Names(), IsEmpty());
}

// ---- A log that moves under the restore --------------------------------------------------------

TEST_F(RestorerTest, PlansAnewWhenItsLogIsRetiredUnderIt) {
  // At the n-th read, for every n, the owner retires all that the restore had begun with.
  for (int n = 1;; n++) {
    MemoryStore memory;
    LogFixture log(memory, {.part_bytes = 300});
    std::mt19937_64 random(5);
    log.CommitRandom(random);
    log.Snapshot();
    for (int i = 0; i < 4; i++) {
      log.CommitRandom(random);
      log.Ship();
    }
    std::vector<std::string> old;
    const auto entries = memory.List("", "", SIZE_MAX);
    for (const ListEntry& e : *entries) {
      if (e.key != kManifestKey) old.push_back(e.key);
    }
    HookedStore hooked(memory);
    int gets = 0;
    hooked.before = [&](std::string_view) {
      if (++gets != n) return Status::Ok();
      log.manifest().snapshots.clear();
      log.manifest().horizon = log.manifest().floor = log.next_slot();
      log.Snapshot();
      for (const std::string& key : old) EXPECT_TRUE(memory.Delete(key).ok());
      return Status::Ok();
    };
    ExpectRestores(hooked, Latest(), log.points().back());
    if (HasFailure() || gets < n) break;
  }
}

TEST_F(RestorerTest, GivesUpWhenEverythingIsRetiredFasterThanItReads) {
  LogFixture log(store_, {});
  std::mt19937_64 random(5);
  log.Snapshot();
  HookedStore hooked(store_);
  hooked.before = [&](std::string_view key) {
    if (key.starts_with("snapshot/")) {
      const std::string retired(key);
      log.CommitRandom(random);
      log.manifest().snapshots.clear();
      log.Snapshot();
      EXPECT_TRUE(store_.Delete(retired).ok());
    }
    return Status::Ok();
  };
  const auto report = Restore(hooked, Latest());
  ExpectFails(report, Tag::kTimeout, "try again");
  EXPECT_TRUE(report.status().retryable());
  EXPECT_THAT(Names(), IsEmpty());
}

// ---- Faults of the store -----------------------------------------------------------------------

TEST_F(DamagedStore, EveryFailedReadLeavesNothing) {
  settings_.keep_bytes_max = 0;
  HookedStore hooked(store_);
  for (int n = 1;; n++) {
    int gets = 0;
    hooked.before = [&](std::string_view) {
      return ++gets == n ? Status(Tag::kStoreUnreachable, "no route", true) : Status::Ok();
    };
    const auto report = Restore(hooked, Latest());
    if (gets < n) {
      ASSERT_TRUE(report.ok()) << report.status().ToString();
      EXPECT_GT(n, 20);
      break;
    }
    ExpectFails(report, Tag::kStoreUnreachable, "no route");
    EXPECT_TRUE(report.status().retryable());
    ASSERT_THAT(Names(), IsEmpty()) << "call " << n;
  }
  EXPECT_TRUE(*ReadWholeFile(path_) == log_.points().back().file);
}

// ---- Files -------------------------------------------------------------------------------------

class RestoredFile : public RestorerTest {
 protected:
  RestoredFile() : log_(store_, {}) {
    std::mt19937_64 random(2);
    log_.CommitRandom(random);
    log_.Snapshot();
  }
  void Touch(const std::string& name, const std::string& content = "mine") {
    ASSERT_TRUE(ReplaceFile(directory_ + "/" + name, content).ok());
  }
  LogFixture log_;
};

TEST_F(RestoredFile, NeverReplacesAFile) {
  for (const char* name : {"app.db", "app.db-wal", "app.db-shm", "app.db-journal"}) {
    Touch(name);
    ExpectFails(Restore(Latest()), Tag::kExists, directory_ + "/" + name);
    EXPECT_THAT(Names(), ElementsAre(name));
    EXPECT_EQ(*ReadWholeFile(directory_ + "/" + name), "mine");
    ASSERT_TRUE(RemoveFile(directory_ + "/" + name).ok());
  }
  ASSERT_EQ(::symlink("/nowhere/at/all", path_.c_str()), 0);
  ExpectFails(Restore(Latest()), Tag::kExists, path_);
  ASSERT_TRUE(RemoveFile(path_).ok());
  std::filesystem::create_directory(path_);
  ExpectFails(Restore(Latest()), Tag::kExists, path_);
}

TEST_F(RestoredFile, NeverReplacesAFileThatAppearsMeanwhile) {
  for (const char* name : {"app.db", "app.db-wal"}) {
    HookedStore hooked(store_);
    hooked.before = [&](std::string_view key) {
      if (key.starts_with("snapshot/")) Touch(name);
      return Status::Ok();
    };
    ExpectFails(Restore(hooked, Latest()), Tag::kExists, name);
    EXPECT_THAT(Names(), ElementsAre(name));
    EXPECT_EQ(*ReadWholeFile(directory_ + "/" + name), "mine");
    ASSERT_TRUE(RemoveFile(directory_ + "/" + name).ok());
  }
}

TEST_F(RestoredFile, AUrlIsNotAPath) {
  for (const char* path : {"s3://bucket/prefix", "file:///tmp/x", "file:app.db", "https://h/x"}) {
    path_ = path;
    ExpectFails(Restore(Latest()), Tag::kBadArgument, "are path and url swapped?");
  }
  path_ = "";
  ExpectFails(Restore(Latest()), Tag::kBadArgument, "empty");
  path_ = directory_ + "/";
  ExpectFails(Restore(Latest()), Tag::kBadArgument, "names a directory");
  path_ = directory_ + std::string("/a\0b", 4);
  ExpectFails(Restore(Latest()), Tag::kBadArgument, "NUL");
}

TEST_F(RestoredFile, NeedsItsDirectory) {
  path_ = directory_ + "/missing/app.db";
  ExpectFails(Restore(Latest()), Tag::kBadArgument, "there is no directory");
  Touch("file");
  path_ = directory_ + "/file/app.db";
  ExpectFails(Restore(Latest()), Tag::kBadArgument, "is no directory");
  path_ = "/proc/self/app.db";
  ExpectFails(Restore(Latest()), Tag::kLocalIo, "restore into directory /proc/self");
}

TEST_F(RestoredFile, MayBeNamedWithoutADirectory) {
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(directory_);
  path_ = "app.db";
  const auto report = Restore(Latest());
  std::filesystem::current_path(before);
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_THAT(Names(), ElementsAre("app.db"));
}

TEST_F(RestoredFile, LeftoversOfKilledRestoresGo) {
  const std::string killed = ".app.db.guildlite-restore-00000000000000aa";
  const std::string running = ".app.db.guildlite-restore-00000000000000bb";
  const std::string published = ".app.db.guildlite-restore-00000000000000cc";
  const std::vector<std::string> others = {
      ".app.db.guildlite-restore-", ".app.db.guildlite-restore-00000000000000aax",
      ".app.db.guildlite-restore-00000000000000AA", ".other.db.guildlite-restore-00000000000000aa"};
  Touch(killed);
  Touch(killed + "-wal");
  Touch(killed + "-shm");
  Touch(running);
  Touch("moved.db");
  ASSERT_EQ(::link((directory_ + "/moved.db").c_str(), (directory_ + "/" + published).c_str()), 0);
  for (const std::string& name : others) Touch(name);
  const auto lock = File::Open(directory_ + "/" + running, O_RDWR);
  ASSERT_EQ(::flock(lock->fd(), LOCK_EX | LOCK_NB), 0);

  ASSERT_TRUE(Restore(Latest()).ok());
  std::vector<std::string> expected = others;
  for (const std::string& name : {running, std::string("app.db"), std::string("moved.db")}) {
    expected.push_back(name);
  }
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(Names(), expected);
}

TEST_F(RestoredFile, IsLockedWhileItGrows) {
  HookedStore hooked(store_);
  bool seen = false;
  hooked.before = [&](std::string_view key) {
    if (!key.starts_with("snapshot/")) return Status::Ok();
    seen = true;
    EXPECT_THAT(Names(), ElementsAre(::testing::StartsWith(".app.db.guildlite-restore-")));
    // A second restore to the same name lets it be, and wins.
    EXPECT_TRUE(Restore(store_, Latest()).ok());
    EXPECT_EQ(Names().size(), 2u);
    return Status::Ok();
  };
  ExpectFails(Restore(hooked, Latest()), Tag::kExists, path_);
  EXPECT_TRUE(seen);
  EXPECT_THAT(Names(), ElementsAre("app.db"));
  EXPECT_TRUE(*ReadWholeFile(path_) == log_.points().back().file);
}

TEST_F(RestoredFile, OfTwoRestoresAtOnceOneWins) {
  settings_.random = nullptr;
  for (int i = 0; i < 20; i++) {
    Result<RestoreReport> a = RestoreReport(), b = RestoreReport();
    {
      std::jthread other([&] { b = Restore(store_, Latest()); });
      a = Restore(store_, Latest());
    }
    EXPECT_FALSE(a.ok() && b.ok());
    for (const auto* report : {&a, &b}) {
      if (report->ok()) continue;
      EXPECT_THAT(report->status().tag(), AnyOf(Tag::kExists, Tag::kLocalIo))
          << report->status().ToString();
    }
    if (a.ok() || b.ok()) {
      EXPECT_TRUE(*ReadWholeFile(path_) == log_.points().back().file);
    }
    EXPECT_LE(Names().size(), 1u);
    ASSERT_TRUE(RemoveFile(path_).ok());
  }
}

TEST_F(RestoredFile, IsShownToSqliteBeforeItHasItsName) {
  std::string content;
  settings_.sqlite_check = [&](const std::string& temp_path) {
    content = *ReadWholeFile(temp_path);
    EXPECT_FALSE(FileExists(path_));
    EXPECT_TRUE(ReplaceFile(temp_path + "-shm", "x").ok());
    return Status::Ok();
  };
  ASSERT_TRUE(Restore(Latest()).ok());
  EXPECT_TRUE(content == log_.points().back().file);
  EXPECT_THAT(Names(), ElementsAre("app.db"));
  ASSERT_TRUE(RemoveFile(path_).ok());

  settings_.sqlite_check = [](const std::string& temp_path) {
    EXPECT_TRUE(ReplaceFile(temp_path + "-wal", "x").ok());
    return Status(Tag::kChainBroken, "row 1 missing from index");
  };
  ExpectFails(Restore(Latest()), Tag::kChainBroken, "row 1 missing");
  EXPECT_THAT(Names(), IsEmpty());
}

TEST_F(RestoredFile, VerifyProvesWithoutAFile) {
  HookedStore hooked(store_);
  hooked.before = [&](std::string_view key) {
    if (key.starts_with("snapshot/")) {
      EXPECT_THAT(Names(), IsEmpty());
    }
    return Status::Ok();
  };
  const auto report = Verify(hooked, directory_, Latest(), settings_);
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_EQ(report->rolling_checksum, log_.points().back().rolling_checksum);
  EXPECT_THAT(Names(), IsEmpty());

  settings_.sqlite_check = [&](const std::string& temp_path) {
    EXPECT_TRUE(*ReadWholeFile(temp_path) == log_.points().back().file);
    return Status::Ok();
  };
  EXPECT_TRUE(Verify(store_, directory_, Latest(), settings_).ok());
  EXPECT_THAT(Names(), IsEmpty());

  const std::string key = log_.manifest().snapshots[0].key;
  std::string bytes = ObjectAt(key);
  bytes[bytes.size() / 2] ^= 1;
  Overwrite(key, bytes);
  ExpectFails(Verify(store_, directory_, Latest(), settings_), Tag::kChainBroken, key);
  EXPECT_THAT(Names(), IsEmpty());
}

}  // namespace
}  // namespace guildlite
