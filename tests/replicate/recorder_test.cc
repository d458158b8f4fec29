#include "vfs/replicate/recorder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <random>
#include <sstream>
#include <string>

#include "tests/replicate/sim_database.h"
#include "tests/replicate/writer_rig.h"
#include "tests/support/fault_store.h"
#include "tests/support/sim_clock.h"
#include "tests/support/temp_dir.h"
#include "vfs/capture/wal_format.h"
#include "vfs/objects/memory_store.h"
#include "vfs/objects/object_key.h"

namespace guildlite {
namespace {

using ::testing::HasSubstr;
using testing::Must;
using testing::RestoredContent;
using testing::RigSettings;
using testing::SimDatabase;
using testing::WriterRig;

class RecorderTest : public ::testing::Test {
 protected:
  std::string Restored(const std::string& at) {
    auto content = RestoredContent(memory_, dir_.path(), at);
    EXPECT_TRUE(content.ok()) << "at '" << at << "': " << content.status().ToString();
    return content.ok() ? *content : std::string();
  }
  void ExpectLatest(const std::string& when = "") {
    EXPECT_TRUE(Restored("") == db_->content()) << when << " the latest is not what was committed";
  }
  // Every txid that can be restored is a state that was committed, in order, and the latest is the
  // newest. Returns how many could.
  int CheckAllPoints(uint64_t tip) {
    int points = 0;
    size_t at = 0;
    for (uint64_t txid = 0; txid <= tip; ++txid) {
      auto content = RestoredContent(memory_, dir_.path(), std::to_string(txid));
      if (!content.ok()) {
        EXPECT_EQ(content.status().tag(), Tag::kNoSuchPoint) << content.status().ToString();
        continue;
      }
      ++points;
      size_t i = at;
      while (i < db_->contents().size() && db_->contents()[i] != *content) ++i;
      if (i == db_->contents().size()) {
        ADD_FAILURE() << "txid " << txid << " was never committed after state " << at;
        continue;
      }
      at = i;
    }
    ExpectLatest();
    return points;
  }
  void Make(uint32_t page_size = 512) {
    rig_.reset();
    db_ = std::make_unique<SimDatabase>(dir_.File("app-" + std::to_string(++databases_) + ".db"),
                                        page_size);
  }
  // A new log, its first snapshot taken.
  WriterRig& Begin(const RigSettings& settings = {}) {
    rig_ = std::make_unique<WriterRig>(*db_, store_, clock_, random_, settings);
    rig_->BeginFirst();
    rig_->Settle();
    return *rig_;
  }
  Recorder& recorder() { return *rig_->recorder; }

  TempDir dir_;
  MemoryStore memory_;
  FaultStore store_{memory_};
  SimClock clock_;
  SimRandom random_{1};
  int databases_ = 0;
  std::unique_ptr<SimDatabase> db_;
  std::unique_ptr<WriterRig> rig_;
};

TEST_F(RecorderTest, RestoresEveryTransactionAcrossCheckpointsAndResets) {
  Make();
  auto& rig = Begin();
  std::mt19937_64 random(testing::TestSeed());
  for (int i = 0; i < 200; ++i) {
    db_->CommitRandom(random);
    if (random() % 3 == 0) db_->Checkpoint();
    if (random() % 20 == 0) db_->CheckpointRestart();
    if (random() % 3 == 0) Must(recorder().CatchUp(UINT64_MAX));
    if (random() % 8 == 0) rig.Run();
  }
  rig.Run();
  EXPECT_EQ(recorder().counters().heals, 0u);
  EXPECT_EQ(rig.shipper->durable()->txid, Txid(200));
  EXPECT_EQ(CheckAllPoints(200), 201);
}

TEST_F(RecorderTest, TakesEveryPageSize) {
  for (uint32_t page_size = 512; page_size <= 65536; page_size *= 2) {
    MemoryStore memory;
    Make(page_size);
    WriterRig rig(*db_, memory, clock_, random_);
    rig.BeginFirst();
    rig.Settle();
    std::mt19937_64 random(page_size);
    for (int i = 0; i < 12; ++i) {
      db_->CommitRandom(random, 12);
      if (i % 4 == 0) db_->Checkpoint();
    }
    rig.Run();
    auto content = RestoredContent(memory, dir_.path(), "");
    ASSERT_TRUE(content.ok()) << page_size << " " << content.status().ToString();
    EXPECT_TRUE(*content == db_->content()) << page_size;
  }
}

// Several batches of 4 MiB, none of which commits anything before the last.
TEST_F(RecorderTest, TakesATransactionLargerThanABatch) {
  Make(4096);
  auto& rig = Begin();
  std::mt19937_64 random(testing::TestSeed());
  SimDatabase::Pages pages;
  for (uint32_t p = 1; p <= 12'000; ++p) pages[p] = random();
  db_->Commit(pages, 12'000);
  db_->Commit({{7, 1}}, 12'000);
  rig.Run();
  EXPECT_EQ(rig.shipper->durable()->txid, Txid(2));
  EXPECT_TRUE(Restored("1") == db_->contents()[1]);
  ExpectLatest();
}

// H11: xSync failed, or -shm could not grow: SQLite rolls back and uses those frames again.
TEST_F(RecorderTest, NeverCapturesACommitFrameThatIsNotPublished) {
  Make();
  auto& rig = Begin();
  db_->Commit({{1, 1}, {2, 2}}, 2);
  db_->CommitAndRollBack({{1, 666}, {2, 667}}, 2);
  rig.Run();
  EXPECT_EQ(recorder().captured().txid, Txid(1));
  db_->Commit({{2, 3}}, 2);
  rig.Run();
  EXPECT_EQ(recorder().captured().txid, Txid(2));
  EXPECT_EQ(CheckAllPoints(2), 3);
}

// H1: published frames that the checksum chain cannot reach, as SQLite 3.40.1 wrote them.
TEST_F(RecorderTest, TakesPublishedFramesTheChainCannotReach) {
  for (const std::string name : {"broken_chain", "broken_commit"}) {
    MemoryStore memory;
    const std::string golden = GUILDLITE_TEST_DATA "/wal/" + name;
    std::string content = Must(ReadWholeFile(golden + ".db"));
    const std::string wal = Must(ReadWholeFile(golden + ".wal"));
    const auto header = *WalHeader::Decode(AsBytes(wal).first<kWalHeaderSize>());
    Published published{header.salt1, header.salt2, 0, 0, 0, 0};
    std::istringstream lines(Must(ReadWholeFile(golden + ".txt")));
    for (std::string line; std::getline(lines, line);) {
      if (!line.starts_with("transaction ")) continue;
      std::istringstream words(line.substr(12));
      words >> published.max_frame >> published.database_pages >> std::hex >> published.cksum1 >>
          published.cksum2;
    }
    for (uint32_t frame = 1; frame <= published.max_frame; ++frame) {
      const auto bytes = AsBytes(wal).subspan(FrameOffset(frame, header.page_size));
      const uint32_t pgno = FrameHeader::Decode(bytes.first<kFrameHeaderSize>()).pgno.value;
      const size_t at = size_t{pgno - 1} * header.page_size;
      if (content.size() < at + header.page_size) content.resize(at + header.page_size);
      std::memcpy(&content[at], bytes.data() + kFrameHeaderSize, header.page_size);
    }
    content.resize(size_t{published.database_pages} * header.page_size);

    Make(header.page_size);
    Must(ReplaceFile(db_->path(), Must(ReadWholeFile(golden + ".db"))));
    Must(ReplaceFile(db_->wal_path(), wal));
    RigSettings settings;
    settings.published = [&] { return published; };
    WriterRig rig(*db_, memory, clock_, random_, settings);
    rig.BeginFirst();
    rig.Settle();
    rig.Run();
    EXPECT_TRUE(rig.recorder->SecureForDiscard(50, false)) << name;
    EXPECT_EQ(rig.recorder->captured().mark.frame, published.max_frame) << name;
    EXPECT_GT(rig.recorder->counters().chain_breaks, 0u) << name;
    auto restored = RestoredContent(memory, dir_.path(), "");
    ASSERT_TRUE(restored.ok()) << name << " " << restored.status().ToString();
    EXPECT_TRUE(*restored == content) << name;
  }
}

// -- The gate --

TEST_F(RecorderTest, AGrantedGateHasEverythingPublishedInTheSpool) {
  Make();
  auto& rig = Begin();
  store_.SetOutage(Fault::kFail);
  for (uint64_t i = 0; i < 10; ++i) db_->Commit({{1, i}, {2, i}}, 2, /*restart=*/false);
  EXPECT_TRUE(recorder().Behind());
  EXPECT_TRUE(recorder().SecureForDiscard(50, false));
  EXPECT_FALSE(recorder().Behind());
  Spool left(db_->path() + "-guildlite/spool");
  EXPECT_EQ(
      Must(left.Recover(
          Txid(), Txid(), [](const Transaction&) {}, [](const Transaction&, const PageEntry&) {})),
      Txid(10));
  EXPECT_EQ(recorder().counters().gate_refused, 0u);
  (void)rig;
}

// The largest file of the spool folder: what WriteOut() writes to.
uint64_t SpoolFileBytes(const std::string& folder) {
  uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    bytes = std::max<uint64_t>(bytes, entry.file_size());
  }
  return bytes;
}

TEST_F(RecorderTest, SealedAheadTheGateHasNothingLeftToWriteOnceAGeneration) {
  Make();
  (void)Begin();
  store_.SetOutage(Fault::kFail);
  const std::string spool = db_->path() + "-guildlite/spool";
  db_->Commit({{1, 1}, {2, 1}}, 2, /*restart=*/false);
  (void)Must(recorder().CatchUp(UINT64_MAX));
  EXPECT_TRUE(recorder().SealAhead().ok());
  const uint64_t ahead = SpoolFileBytes(spool);
  EXPECT_GT(ahead, 0u);
  EXPECT_TRUE(recorder().SecureForDiscard(50, false));
  EXPECT_EQ(SpoolFileBytes(spool), ahead);

  // A checkpoint that a reader held up comes again: no batch for every commit.
  db_->Commit({{1, 2}, {2, 2}}, 2, /*restart=*/false);
  (void)Must(recorder().CatchUp(UINT64_MAX));
  EXPECT_TRUE(recorder().SealAhead().ok());
  EXPECT_EQ(SpoolFileBytes(spool), ahead);
  EXPECT_TRUE(recorder().SecureForDiscard(50, false));
  const uint64_t second = SpoolFileBytes(spool);
  EXPECT_GT(second, ahead);

  db_->Checkpoint();
  db_->Commit({{1, 3}, {2, 3}}, 2, /*restart=*/true);
  (void)Must(recorder().CatchUp(UINT64_MAX));
  EXPECT_TRUE(recorder().SealAhead().ok());
  EXPECT_GT(SpoolFileBytes(spool), second);
}

TEST_F(RecorderTest, OurOwnResetsNeedNoHealHoweverFarBehindTheWorkerIs) {
  Make();
  auto& rig = Begin();
  db_->Commit({{1, 1}, {2, 2}, {3, 3}}, 3);
  for (uint64_t i = 1; i < 100; ++i) {
    db_->Commit({{1, i}, {3, i + 1}}, 3);
    db_->Checkpoint();
  }
  rig.Run();
  EXPECT_EQ(recorder().counters().heals, 0u);
  EXPECT_EQ(CheckAllPoints(100), 101);
}

TEST_F(RecorderTest, AGateThatWaitsForAnotherThreadGivesUpInTime) {
  Make();
  RigSettings settings;
  bool inside = false;
  settings.published = [&]() -> std::optional<Published> {
    // Under the capture mutex: another thread would find it held.
    if (inside) {
      inside = false;
      const int64_t before = clock_.MonotonicMs();
      EXPECT_FALSE(recorder().SecureForDiscard(50, false));
      EXPECT_GE(clock_.MonotonicMs() - before, 50);
      EXPECT_LE(clock_.MonotonicMs() - before, 60);
    }
    return db_->published();
  };
  Begin(settings);
  inside = true;
  EXPECT_FALSE(recorder().Behind());
  EXPECT_EQ(recorder().counters().gate_refused, 1u);
}

// -- Strangers (H13) --

TEST_F(RecorderTest, AStrangersResetThatLostNothingIsFollowed) {
  Make();
  auto& rig = Begin();
  db_->Commit({{1, 1}, {2, 2}}, 2);
  db_->Commit({{2, 3}}, 2);
  rig.Run();
  db_->Checkpoint();
  db_->Stranger({{2, 4}}, 2);
  rig.Run();
  EXPECT_EQ(recorder().counters().heals, 0u);
  EXPECT_EQ(recorder().captured().txid, Txid(3));
  EXPECT_EQ(CheckAllPoints(3), 4);
}

TEST_F(RecorderTest, AStrangersResetThatLostSomethingIsHealed) {
  Make();
  auto& rig = Begin();
  db_->Commit({{1, 1}, {2, 2}, {3, 3}}, 3);
  rig.Run();
  db_->Stranger({{2, 4}}, 3);
  db_->Checkpoint();
  db_->Stranger({{3, 5}}, 3);
  rig.Run();
  EXPECT_EQ(recorder().counters().heals, 1u);
  EXPECT_FALSE(recorder().healing());
  CheckAllPoints(recorder().captured().txid.value);
}

// journal_size_limit cut the file inside the last frame we know, and what followed with it.
TEST_F(RecorderTest, AFileCutInsideOurLastFrameProvesNothing) {
  Make();
  auto& rig = Begin();
  db_->Commit({{1, 1}, {2, 2}, {3, 3}}, 3);
  rig.Run();
  db_->Stranger({{3, 4}}, 3);  // never seen
  db_->Checkpoint();
  db_->CheckpointRestart(/*stranger=*/true);
  ASSERT_EQ(::truncate(db_->wal_path().c_str(), 32 + 2 * 536 + 24 + 100), 0);
  db_->Stranger({{2, 5}}, 3);
  rig.Run();
  EXPECT_EQ(recorder().counters().heals, 1u);
  ExpectLatest();
}

TEST_F(RecorderTest, StrangersAtRandomLoseNothing) {
  const uint64_t seed = testing::TestSeed();
  std::mt19937_64 random(seed);
  Make();
  RigSettings settings;
  settings.snapshot.chunk_pages = 3;
  auto& rig = Begin(settings);
  for (int i = 0; i < 150; ++i) {
    db_->CommitRandom(random, 30, /*stranger=*/random() % 4 == 0);
    if (random() % 3 == 0) db_->Checkpoint();
    if (random() % 10 == 0) db_->CheckpointRestart(random() % 2 == 0);
    if (random() % 3 == 0) Must(recorder().CatchUp(UINT64_MAX));
    if (random() % 5 == 0) rig.Run(static_cast<int64_t>(random() % 3000));
    if (random() % 40 == 0) {
      db_->Close(/*stranger=*/true);  // while nobody of ours had a connection
      db_->Open();
    }
  }
  db_->CommitRandom(random);
  rig.Run();
  EXPECT_EQ(recorder().diverged(), "");
  EXPECT_FALSE(recorder().healing());
  EXPECT_EQ(rig.shipper->durable()->txid, recorder().captured().txid);
  CheckAllPoints(recorder().captured().txid.value);
}

// -- Scans (H6) --

TEST_F(RecorderTest, ASnapshotTakenWhileEverythingChangesRestores) {
  const uint64_t seed = testing::TestSeed();
  std::mt19937_64 random(seed);
  Make();
  RigSettings settings;
  settings.snapshot.chunk_pages = 2;
  settings.snapshot.snapshot_min_bytes = 3000;
  bool busy = false;
  settings.before_read = settings.after_read = [&](uint64_t, size_t) {
    if (busy && random() % 3 == 0) {
      busy = false;
      db_->CommitRandom(random, 40);
      if (random() % 2 == 0) db_->Checkpoint();
      if (random() % 3 == 0) db_->CheckpointPartly(random() % db_->content().size());
      busy = true;
    }
    return Status::Ok();
  };
  auto& rig = Begin(settings);
  for (int i = 0; i < 60; ++i) {
    db_->CommitRandom(random, 40);
    if (random() % 3 == 0) db_->Checkpoint();
    if (random() % 10 == 0) db_->CheckpointRestart();
    rig.Run(20);
  }
  rig.Run();
  EXPECT_EQ(recorder().counters().heals, 0u);
  EXPECT_GE(rig.snapshotter->snapshots_taken(), 2u);
  const uint64_t tip = recorder().captured().txid.value;
  EXPECT_EQ(CheckAllPoints(tip), static_cast<int>(tip) + 1);
  // From each snapshot alone: retire what is before it.
  Manifest manifest = Must(ReadManifest(memory_)).manifest;
  while (manifest.snapshots.size() > 1) {
    manifest.snapshots.erase(manifest.snapshots.begin());
    ++manifest.rev;
    Must(memory_.Put(kManifestKey, manifest.Encode(), PutCondition::Overwrite()));
    ExpectLatest("from snapshot " + manifest.snapshots.front().key);
    const Txid first = manifest.snapshots.front().usable_from;
    EXPECT_THAT(db_->contents(), ::testing::Contains(Restored(std::to_string(first.value))));
  }
}

// A page that could not be read once is read again: it is not taken for scanned.
TEST_F(RecorderTest, AFailedReadLosesNoPageOfAScan) {
  for (int fail_at = 0; fail_at < 6; ++fail_at) {
    SCOPED_TRACE(fail_at);
    MemoryStore memory;
    Make();
    int reads = -1;
    RigSettings settings;
    settings.snapshot.chunk_pages = 3;
    settings.before_read = [&](uint64_t, size_t) {
      if (reads >= 0 && reads++ == fail_at) return Status(Tag::kLocalIo, "injected");
      return Status::Ok();
    };
    WriterRig rig(*db_, memory, clock_, random_, settings);
    rig.BeginFirst();
    rig.Settle();
    SimDatabase::Pages all;
    for (uint32_t p = 1; p <= 12; ++p) all[p] = p;
    db_->Commit(all, 12);
    db_->Checkpoint();
    rig.Run();
    // A heal that has to find a page written behind our back.
    all[2] = 1002;
    all[11] = 1011;
    db_->Stranger(all, 12);
    db_->CheckpointRestart(/*stranger=*/true);
    reads = 0;
    db_->Stranger({{1, 5}}, 12);
    rig.Run();
    EXPECT_EQ(rig.recorder->counters().heals, 1u);
    auto content = RestoredContent(memory, dir_.path(), "");
    ASSERT_TRUE(content.ok()) << content.status().ToString();
    EXPECT_TRUE(*content == db_->content());
    // And a snapshot.
    reads = 0;
    Must(rig.snapshotter->Request("s"));
    rig.Run();
    reads = -1;
    Manifest manifest = Must(ReadManifest(memory)).manifest;
    manifest.snapshots.erase(manifest.snapshots.begin(), manifest.snapshots.end() - 1);
    Must(memory.Put(kManifestKey, manifest.Encode(), PutCondition::Overwrite()));
    content = RestoredContent(memory, dir_.path(), "");
    ASSERT_TRUE(content.ok()) << content.status().ToString();
    EXPECT_TRUE(*content == db_->content());
  }
}

// The scan's first read must not come before it is settled which frames come after it.
TEST_F(RecorderTest, AStrangersResetDuringTheFirstReadIsNotMissed) {
  Make();
  bool armed = true;
  RigSettings settings;
  settings.after_read = [&](uint64_t, size_t size) {
    if (size < 3 * 512 || !armed) return Status::Ok();  // the header alone, or not the first
    armed = false;  // page 2 was read as it was; now it changes and the WAL starts anew
    db_->Stranger({{2, 1002}}, 3);
    db_->Checkpoint();
    db_->Stranger({{3, 1003}}, 3);
    return Status::Ok();
  };
  db_->Stranger({{1, 1}, {2, 2}, {3, 3}}, 3);
  db_->Checkpoint();
  rig_ = std::make_unique<WriterRig>(*db_, store_, clock_, random_, settings);
  rig_->BeginFirst();
  for (int i = 0; i < 3; ++i) rig_->snapshotter->Step(clock_.MonotonicMs());  // before any capture
  rig_->Settle();
  rig_->Run();
  EXPECT_FALSE(armed);
  ExpectLatest();
}

// VACUUM in another journal mode, before the first scan began: frames of the new size were taken
// for pages of the old.
TEST_F(RecorderTest, AFirstScanThatHasReadNothingTakesTheFileInItsNewPageSize) {
  Make(512);
  RigSettings settings;
  std::unique_ptr<SimDatabase> vacuumed;
  settings.published = [&] { return vacuumed ? vacuumed->published() : std::nullopt; };
  rig_ = std::make_unique<WriterRig>(*db_, store_, clock_, random_, settings);
  rig_->BeginFirst();
  vacuumed = std::make_unique<SimDatabase>(db_->path(), 1024);  // in place: the file stays
  vacuumed->Commit({{1, 1}, {2, 2}, {3, 3}}, 3);
  rig_->Settle();
  EXPECT_EQ(recorder().diverged(), "");
  EXPECT_TRUE(Restored("") == vacuumed->content());
}

TEST_F(RecorderTest, AHealMeetsAnotherPageSizeAsADivergence) {
  Make(512);
  auto& rig = Begin();
  db_->Commit({{1, 1}, {2, 2}}, 2);
  rig.Run();
  recorder().RestartFrom(recorder().captured());
  ASSERT_TRUE(recorder().healing());
  db_->Close();
  // A WAL that is not of this file's page size, as nobody but a hostile hand makes it.
  SimDatabase other(dir_.File("other.db"), 1024);
  other.Commit({{1, 1}, {2, 2}}, 2);
  Must(ReplaceFile(db_->wal_path(), Must(ReadWholeFile(other.wal_path()))));
  rig_.reset();
  RigSettings settings;
  settings.published = [&] { return other.published(); };
  rig_ = std::make_unique<WriterRig>(*db_, store_, clock_, random_, settings);
  PageTable table;
  CapturedState state;
  state.page_size = 512;
  recorder().StartHeal(state, std::move(table));
  Must(recorder().CatchUp(UINT64_MAX));
  EXPECT_THAT(recorder().diverged(), HasSubstr("page size"));
}

// A program that opens, writes and exits is gone before the first scan: with its connection went
// the index, and the close waited in vain for what could not end any more.
TEST_F(RecorderTest, AFirstScanOvertakenByTheLastCloseIsEndedFromTheFileAtRest) {
  Make();
  rig_ = std::make_unique<WriterRig>(*db_, store_, clock_, random_);
  rig_->BeginFirst();
  db_->Commit({{1, 1}, {2, 2}, {3, 3}}, 3);
  db_->Commit({{2, 4}}, 3);
  ASSERT_TRUE(db_->Close());
  EXPECT_TRUE(recorder().scan_waits()) << "not before the lock tells how the close left the file";
  recorder().LeavingExclusive();
  EXPECT_FALSE(recorder().scan_waits());
  rig_->Settle();
  ExpectLatest();
}

TEST_F(RecorderTest, AFirstScanAtRestReadsWhatTheCloseBroughtIntoTheFile) {
  Make();
  RigSettings settings;
  settings.published = [] { return std::nullopt; };  // no connection ever maps the index
  rig_ = std::make_unique<WriterRig>(*db_, store_, clock_, random_, settings);
  rig_->BeginFirst();
  db_->Stranger({{1, 1}, {2, 2}, {3, 3}}, 3);
  ASSERT_TRUE(db_->Close());
  recorder().LeavingExclusive();
  rig_->Settle();
  ExpectLatest();
}

TEST_F(RecorderTest, AHealOvertakenByTheLastCloseIsEndedFromTheFileAtRest) {
  Make();
  auto& rig = Begin();
  db_->Commit({{1, 1}, {2, 2}, {3, 3}}, 3);
  rig.Run();
  // Captured, then gone in a reset that nobody saw, and another after it.
  db_->Stranger({{2, 4}}, 3);
  db_->CheckpointRestart(true);
  db_->Stranger({{3, 5}}, 3);
  db_->CheckpointRestart(true);
  Must(recorder().CatchUp(UINT64_MAX));
  ASSERT_TRUE(recorder().healing());
  ASSERT_TRUE(db_->Close());
  recorder().LeavingExclusive();
  rig.Run();
  EXPECT_FALSE(recorder().unsettled());
  ExpectLatest();
}

// locking_mode=EXCLUSIVE with journal_mode=DELETE: the gate of a close, then commits straight into
// the file, all under one lock. What was scanned before it is older than what is scanned after it.
TEST_F(RecorderTest, AScanBegunBeforeAChangeOfJournalModeMixesNoTwoStates) {
  for (const ScanKind kind : {ScanKind::kFirst, ScanKind::kHeal}) {
    SCOPED_TRACE(kind == ScanKind::kFirst ? "first scan" : "heal");
    MemoryStore store;
    Make();
    RigSettings settings;
    settings.snapshot.chunk_pages = 2;
    bool armed = false;
    settings.before_read = [&](uint64_t offset, size_t size) {
      if (offset != 2 * 512 || size != 2 * 512 || !std::exchange(armed, false)) return Status::Ok();
      EXPECT_TRUE(db_->Close());  // pages 1 and 2 were scanned
      db_->CommitInPlace({{2, 12}, {4, 14}}, 4);
      recorder().LeavingExclusive();
      return Status::Ok();
    };
    db_->Commit({{1, 1}, {2, 2}, {3, 3}, {4, 4}}, 4);
    db_->CheckpointRestart();
    rig_ = std::make_unique<WriterRig>(*db_, store, clock_, random_, settings);
    armed = kind == ScanKind::kFirst;
    rig_->BeginFirst();
    rig_->Settle();
    if (kind == ScanKind::kHeal) {
      recorder().RestartFrom(recorder().captured());
      ASSERT_EQ(recorder().scan()->kind, ScanKind::kHeal);
      armed = true;
      rig_->Run();
      EXPECT_FALSE(recorder().unsettled());
    }
    EXPECT_FALSE(armed);
    EXPECT_FALSE(db_->published().has_value());
    const auto content = RestoredContent(store, dir_.path(), "");
    ASSERT_TRUE(content.ok()) << content.status().ToString();
    EXPECT_TRUE(*content == db_->content());
  }
}

TEST_F(RecorderTest, AScanIsNotEndedFromAFileWrittenAfterTheLastClose) {
  Make();
  rig_ = std::make_unique<WriterRig>(*db_, store_, clock_, random_);
  rig_->BeginFirst();
  db_->Commit({{1, 1}, {2, 2}}, 2);
  ASSERT_TRUE(db_->Close());
  recorder().LeavingExclusive();
  db_->CommitInPlace({{2, 9}}, 4);
  EXPECT_TRUE(recorder().scan_waits());
  rig_->Run(1000);
  EXPECT_FALSE(rig_->shipper->durable().has_value());
}

TEST_F(RecorderTest, AScanIsNotEndedWhileAWalRemains) {
  Make();
  rig_ = std::make_unique<WriterRig>(*db_, store_, clock_, random_);
  rig_->BeginFirst();
  db_->Commit({{1, 1}, {2, 2}}, 2);
  ASSERT_TRUE(db_->Close());
  recorder().LeavingExclusive();
  ASSERT_FALSE(recorder().scan_waits());
  Must(ReplaceFile(db_->wal_path(), "frames of somebody"));
  EXPECT_TRUE(recorder().scan_waits());
}

// -- Drops --

TEST_F(RecorderTest, ADroppedQueueIsHealedAndEverythingBeforeStaysRestorable) {
  const uint64_t seed = testing::TestSeed();
  std::mt19937_64 random(seed);
  Make();
  RigSettings settings;
  settings.spool_limit_bytes = 40'000;
  auto& rig = Begin(settings);
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 5; ++i) db_->CommitRandom(random);
    rig.Run();
    const uint64_t before = rig.shipper->durable()->txid.value;
    const std::string content = db_->content();
    store_.SetOutage(Fault::kFail);
    while (!recorder().dropped()) {
      db_->CommitRandom(random);
      db_->Checkpoint();
      rig.Run(50);
    }
    for (int i = 0; i < 10; ++i) {
      EXPECT_TRUE(db_->CommitRandom(random)) << "local commits go on";
      db_->CheckpointRestart();
    }
    EXPECT_THAT(recorder().TakeWarning(), HasSubstr("limit"));
    store_.SetOutage(Fault::kNone);
    rig.Run();
    ASSERT_TRUE(rig.stopped.has_value() && rig.stopped->ok());
    rig.BeginAgain();
    rig.Run();
    EXPECT_FALSE(recorder().healing());
    EXPECT_TRUE(Restored(std::to_string(before)) == content);
    ExpectLatest();
  }
  CheckAllPoints(recorder().captured().txid.value);
}

TEST_F(RecorderTest, ADropBeforeTheLogHoldsAPageIsHealed) {
  Make();
  RigSettings settings;
  settings.spool_limit_bytes = 20'000;
  rig_ = std::make_unique<WriterRig>(*db_, store_, clock_, random_, settings);
  rig_->BeginFirst();
  store_.SetOutage(Fault::kFail);
  std::mt19937_64 random(testing::TestSeed());
  while (!recorder().dropped()) {
    db_->CommitRandom(random);
    db_->CheckpointRestart();
  }
  store_.SetOutage(Fault::kNone);
  rig_->Run();
  rig_->BeginAgain();
  rig_->Run();
  ExpectLatest();
}

// A heal that finds more than the spool may hold waits for the store instead of dropping it again.
TEST_F(RecorderTest, AHealLargerThanTheSpoolLimitComesToAnEnd) {
  Make(4096);
  RigSettings settings;
  settings.spool_limit_bytes = 1'000'000;
  auto& rig = Begin(settings);
  SimDatabase::Pages pages;
  std::mt19937_64 random(testing::TestSeed());
  for (uint32_t p = 1; p <= 2000; ++p) pages[p] = random();
  db_->Stranger(pages, 2000);
  db_->Checkpoint();
  db_->Stranger({{1, 1}}, 2000);
  rig.Run();
  EXPECT_FALSE(recorder().dropped());
  EXPECT_FALSE(recorder().healing());
  EXPECT_EQ(recorder().counters().heals, 1u);
  ExpectLatest();
}

// -- Skipping what the log has already --

TEST_F(RecorderTest, WhatTheLogHoldsOtherwiseIsNeverShippedUpon) {
  Make();
  auto& rig = Begin();
  db_->Commit({{1, 1}, {2, 2}}, 2);
  db_->Commit({{2, 3}}, 2);
  db_->Commit({{2, 4}}, 2);
  recorder().SkipUntil(Txid(2), 0x1234);
  rig.Run();
  EXPECT_TRUE(recorder().dropped());
  EXPECT_FALSE(Must(recorder().NextToShip(Txid(), 1 << 20)).has_value());
  EXPECT_EQ(rig.shipper->acknowledged().txid, Txid(0));
  rig.BeginAgain();
  rig.Run();
  ExpectLatest();
}

TEST_F(RecorderTest, WhatTheLogHoldsIsSkippedAndTheRestShips) {
  Make();
  auto& rig = Begin();
  db_->Commit({{1, 1}, {2, 2}}, 2);
  const CapturedState before = recorder().captured();
  HistoryHash history(before.history_hash, Txid(1), 2);
  for (uint32_t p : {1u, 2u}) {
    history.Add(Pgno(p), PageHash(Pgno(p), AsBytes(db_->Page(p, p))));
  }
  recorder().SkipUntil(Txid(1), history.Finish());
  db_->Commit({{2, 3}}, 2);
  Must(recorder().CatchUp(UINT64_MAX));
  EXPECT_EQ(recorder().diverged(), "");
  const auto item = Must(recorder().NextToShip(Txid(1), 1 << 20));
  ASSERT_TRUE(item.has_value());
  EXPECT_EQ(item->first, Txid(2));
  EXPECT_EQ(item->last, Txid(2));
  (void)rig;
}

TEST_F(RecorderTest, AWalThatWentBackBehindWhatWasCapturedIsDiverged) {
  Make();
  std::optional<Published> late;
  RigSettings settings;
  settings.published = [&] { return late ? late : db_->published(); };
  auto& rig = Begin(settings);
  db_->Commit({{1, 1}, {2, 2}}, 2);
  late = db_->published();
  db_->Commit({{2, 3}}, 2);
  const auto early = late;
  late.reset();
  rig.Run();
  late = early;
  rig.Run();
  EXPECT_THAT(recorder().diverged(), HasSubstr("before frame"));
}

}  // namespace
}  // namespace guildlite
