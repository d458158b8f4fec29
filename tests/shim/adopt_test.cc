// Connections that were opened before the shim ("unix" by name here) come under it by adoption, and
// leave no trace when they go.
#include "tests/shim/shim_fixture.h"
#include "vfs/base/file_io.h"

namespace guildlite::testing {
namespace {

using Calls = std::vector<std::string>;

class Adoption : public ShimTest {
 protected:
  Connection OpenBefore(const std::string& name = "a.db") {
    return Connection(Path(name), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "unix");
  }
  void AdoptAndInstall(Connection& c) {
    const Status status = Adopt(c.db());
    ASSERT_TRUE(status.ok()) << status.ToString();
    Install(c.db());
  }
};

TEST_F(Adoption, AWalConnectionReportsLikeOneOfOurs) {
  Connection c = OpenWal("a.db", "unix");
  EXPECT_EQ(FindNode(c.db()), nullptr);
  AdoptAndInstall(c);
  EXPECT_EQ(events_->mapped(), 1u);
  events_->Take();
  c.Ok("INSERT INTO t VALUES(1)");
  EXPECT_EQ(events_->Take(), (Calls{"lock", "unlock", "committed"}));
  c.Ok("PRAGMA wal_checkpoint; INSERT INTO t VALUES(2)");
  EXPECT_EQ(events_->Take(),
            (Calls{"checkpoint", "lock", "discard:reset", "header", "unlock", "committed"}));
  EXPECT_EQ(c.Text("PRAGMA wal_checkpoint(TRUNCATE)"), "0|0|0");
  EXPECT_EQ(events_->Take(), (Calls{"checkpoint", "discard:reset", "unlock"}));
  EXPECT_EQ(c.Close(), SQLITE_OK);
  EXPECT_EQ(events_->TakeHooks(), Calls{"discard:close"});
  EXPECT_FALSE(FileExists(Path("a.db-wal")));
  EXPECT_EQ(FindNodeByPath(Path("a.db")), nullptr);
}

TEST_F(Adoption, SharesTheNodeWithLaterConnections) {
  Connection before = OpenWal("a.db", "unix");
  AdoptAndInstall(before);
  Connection later(Path("a.db"));
  EXPECT_EQ(FindNode(later.db()), FindNode(before.db()));
  EXPECT_EQ(later.Text("SELECT count(*) FROM t"), "0");
  EXPECT_EQ(events_->mapped(), 2u);
  events_->Take();
  later.Ok("INSERT INTO t VALUES(1)");
  before.Ok("INSERT INTO t VALUES(2)");
  EXPECT_EQ(events_->Take(), (Calls{"lock", "unlock", "committed", "lock", "unlock", "committed"}));
  EXPECT_EQ(before.Close(), SQLITE_OK);
  later.Ok("INSERT INTO t VALUES(3)");
  EXPECT_EQ(later.Text("SELECT count(*) FROM t"), "3");
}

TEST_F(Adoption, AWalOpenedLaterIsAdoptedBeforeItsHeaderIsWritten) {
  Connection c = OpenBefore();
  c.Ok("CREATE TABLE t(a)");
  AdoptAndInstall(c);
  EXPECT_EQ(c.Text("PRAGMA journal_mode=WAL"), "wal");
  events_->Take();
  c.Ok("INSERT INTO t VALUES(1)");
  EXPECT_EQ(events_->TakeHooks(), (Calls{"unlock", "lock", "header", "unlock", "committed"}));
  EXPECT_EQ(c.Text("PRAGMA journal_mode=DELETE"), "delete");
  c.Ok("INSERT INTO t VALUES(2)");
  EXPECT_EQ(c.Text("PRAGMA journal_mode=WAL"), "wal");
  events_->Take();
  c.Ok("INSERT INTO t VALUES(3)");
  EXPECT_EQ(events_->TakeHooks(), (Calls{"unlock", "lock", "header", "unlock", "committed"}));
  EXPECT_EQ(c.Text("SELECT count(*) FROM t"), "3");
}

TEST_F(Adoption, AFreshDatabaseCanBeAdoptedBeforeItsFirstStatement) {
  Connection c = OpenBefore();
  AdoptAndInstall(c);
  c.Ok("PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1)");
  EXPECT_EQ(events_->Count("header"), 1u);
  EXPECT_EQ(c.Text("PRAGMA integrity_check"), "ok");
}

TEST_F(Adoption, InsideAReadTransactionTheNextWriteIsStillAsked) {
  Connection c = OpenWal("a.db", "unix");
  c.Ok("BEGIN; SELECT * FROM t");
  AdoptAndInstall(c);
  events_->write_lock_answer = Status(Tag::kFenced, "x");
  EXPECT_EQ(c.Run("INSERT INTO t VALUES(1)"), SQLITE_READONLY_DBMOVED);
  events_->write_lock_answer = Status::Ok();
  c.Ok("INSERT INTO t VALUES(1); COMMIT");
  EXPECT_EQ(events_->TakeHooks(), (Calls{"lock", "lock", "unlock", "committed"}));
}

TEST_F(Adoption, InsideAWriteTransactionItsCommitIsReported) {
  Connection c = OpenWal("a.db", "unix");
  c.Ok("BEGIN; INSERT INTO t VALUES(1)");
  AdoptAndInstall(c);
  events_->Take();
  c.Ok("COMMIT");
  const Calls calls = events_->Take();
  ASSERT_EQ(calls.size(), 2u);
  EXPECT_EQ(calls[0], "unlock");
  EXPECT_TRUE(calls[1].starts_with("committed"));
}

TEST_F(Adoption, InExclusiveModeOnTheHeapFramesAreNamed) {
  OpenWal().Close();
  Connection c = OpenBefore();
  c.Ok("PRAGMA locking_mode=EXCLUSIVE; PRAGMA wal_autocheckpoint=0; INSERT INTO t VALUES(1)");
  AdoptAndInstall(c);
  EXPECT_EQ(events_->mapped(), 0u);
  EXPECT_FALSE(FileExists(Path("a.db-shm")));
  events_->Take();
  c.Ok("INSERT INTO t VALUES(2)");
  EXPECT_EQ(events_->TakeHooks(), Calls{"committed@2"});
}

// No shm lock ever comes, so the first commit is found in the file.
TEST_F(Adoption, AWalOpenedLaterInExclusiveModeIsFoundAtItsFirstCommit) {
  Connection c = OpenBefore();
  c.Ok("PRAGMA locking_mode=EXCLUSIVE; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(a)");
  AdoptAndInstall(c);
  EXPECT_EQ(c.Text("PRAGMA journal_mode=WAL"), "wal");
  events_->Take();
  c.Ok("INSERT INTO t VALUES(1)");
  EXPECT_EQ(events_->TakeHooks(), Calls{"committed@1"});
  c.Ok("INSERT INTO t VALUES(randomblob(9000))");
  const std::string frames =
      std::to_string((std::filesystem::file_size(Path("a.db-wal")) - 32) / (24 + 4096));
  EXPECT_EQ(events_->TakeHooks(), Calls{"committed@" + frames});
}

TEST_F(Adoption, TwiceOrOfOurOwnIsANoOp) {
  Connection c = OpenWal("a.db", "unix");
  AdoptAndInstall(c);
  sqlite3_file* file = nullptr;
  sqlite3_file_control(c.db(), nullptr, SQLITE_FCNTL_FILE_POINTER, &file);
  const sqlite3_io_methods* const methods = file->pMethods;
  EXPECT_TRUE(Adopt(c.db()).ok());
  EXPECT_EQ(file->pMethods, methods);

  Connection ours(Path("b.db"));
  ours.Ok("CREATE TABLE t(a)");
  EXPECT_TRUE(Adopt(ours.db()).ok());
  ours.Ok("INSERT INTO t VALUES(1)");
}

TEST_F(Adoption, WhatCannotBeAdoptedIsRefused) {
  Connection memory(":memory:", SQLITE_OPEN_READWRITE, "unix");
  EXPECT_EQ(Adopt(memory.db()).tag(), Tag::kBadArgument);
  Connection temporary("", SQLITE_OPEN_READWRITE, "unix");
  EXPECT_EQ(Adopt(temporary.db()).tag(), Tag::kBadArgument);
  Connection memdb("file:/x?vfs=memdb");
  memdb.Ok("CREATE TABLE t(a)");
  EXPECT_EQ(Adopt(memdb.db()).tag(), Tag::kBadArgument);

  Connection uri("file:" + Path("s.db") + "?cache=shared&vfs=unix");
  uri.Ok("CREATE TABLE t(a)");
  EXPECT_EQ(Adopt(uri.db()).tag(), Tag::kBadArgument);

  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_SHAREDCACHE;
  Connection one(Path("p.db"), flags, "unix");
  Connection two(Path("p.db"), flags, "unix");
  one.Ok("CREATE TABLE t(a)");
  two.Ok("SELECT * FROM t");
  EXPECT_EQ(Adopt(one.db()).tag(), Tag::kBadArgument);

  Connection moved = OpenBefore("m.db");
  moved.Ok("CREATE TABLE t(a)");
  std::filesystem::rename(Path("m.db"), Path("n.db"));
  EXPECT_EQ(Adopt(moved.db()).tag(), Tag::kBadArgument);
}

TEST_F(Adoption, AttachedDatabasesStayAsTheyAre) {
  Connection c = OpenWal("a.db", "unix");
  c.Ok("ATTACH 'file:" + Path("b.db") + "' AS b; PRAGMA b.journal_mode=WAL; CREATE TABLE b.u(a)");
  AdoptAndInstall(c);
  EXPECT_EQ(FindNodeByPath(Path("b.db")), nullptr);
  c.Ok("INSERT INTO b.u VALUES(1)");
}

TEST_F(Adoption, AnErrorOfFirstOpenedIsReturnedAndNothingIsAdopted) {
  Connection c = OpenWal("a.db", "unix");
  Host().first_opened = [](Node&) { return Status(Tag::kOwned, "by another"); };
  EXPECT_EQ(Adopt(c.db()).tag(), Tag::kOwned);
  EXPECT_EQ(FindNode(c.db()), nullptr);
  EXPECT_EQ(FindNodeByPath(Path("a.db")), nullptr);
  c.Ok("INSERT INTO t VALUES(1)");
}

// The empty file of a database whose backup could not be put there must not be filled.
TEST_F(Adoption, ARefusedOneStaysWhereEventsRefuseItsWrites) {
  Connection c = OpenBefore();
  Host().first_opened = [this](Node& node) {
    events_->rollback_write_answer = Status(Tag::kDiverged, "x");
    node.Install(events_);
    return Status(Tag::kStoreUnreachable, "x");
  };
  EXPECT_EQ(Adopt(c.db()).tag(), Tag::kStoreUnreachable);
  EXPECT_EQ(c.Run("CREATE TABLE t(a)"), SQLITE_READONLY);
  EXPECT_EQ(c.Run("PRAGMA journal_mode=WAL"), SQLITE_READONLY);
  EXPECT_EQ(std::filesystem::file_size(Path("a.db")), 0u);
  EXPECT_EQ(c.Close(), SQLITE_OK);
  EXPECT_EQ(FindNodeByPath(Path("a.db")), nullptr);
}

// The host program created an empty file by opening it; loading the extension restores a database
// over it.
TEST_F(Adoption, ADatabaseRestoredDuringAdoptionIsTheOneThatGoesOn) {
  OpenWal("source.db").Close();
  Connection c = OpenBefore();
  EXPECT_TRUE(FileExists(Path("a.db")));
  const size_t descriptors = OpenDescriptors();
  Host().first_opened = [this](Node& node) {
    std::filesystem::rename(Path("source.db"), node.path());
    return Status::Ok();
  };
  AdoptAndInstall(c);
  EXPECT_EQ(c.Text("SELECT count(*) FROM t"), "0");
  EXPECT_EQ(c.Text("PRAGMA journal_mode"), "wal");
  c.Ok("INSERT INTO t VALUES(1)");
  EXPECT_EQ(events_->TakeHooks().back(), "committed");
  EXPECT_LE(OpenDescriptors(), descriptors + 2);  // the -wal and the -shm
  Connection other(Path("a.db"));
  EXPECT_EQ(FindNode(other.db()), FindNode(c.db()));
  EXPECT_EQ(other.Text("SELECT count(*) FROM t"), "1");
  EXPECT_EQ(other.Close(), SQLITE_OK);
  EXPECT_EQ(c.Text("PRAGMA integrity_check"), "ok");
  EXPECT_EQ(c.Close(), SQLITE_OK);
  EXPECT_EQ(OpenDescriptors(), descriptors - 1);
}

TEST_F(Adoption, ARestoreUnderAReaderIsReported) {
  OpenWal("source.db").Close();
  Connection c = OpenBefore();
  c.Ok("CREATE TABLE old(a); BEGIN; SELECT * FROM old");
  Host().first_opened = [this](Node& node) {
    std::filesystem::rename(Path("source.db"), node.path());
    return Status::Ok();
  };
  EXPECT_EQ(Adopt(c.db()).tag(), Tag::kRestoreNeeded);
  c.Ok("COMMIT");
}

TEST_F(Adoption, AnEmptyDatabaseIsReplacedUnderItsOneConnectionHoweverItWasOpened) {
  for (const char* vfs : {"unix", static_cast<const char*>(nullptr)}) {
    OpenWal("source.db").Close();
    std::filesystem::remove(Path("a.db"));
    Connection c(Path("a.db"), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, vfs);
    ASSERT_TRUE(Adopt(c.db()).ok());
    const size_t descriptors = OpenDescriptors();
    const auto put = [this] {
      std::filesystem::rename(Path("source.db"), Path("a.db"));
      return Status::Ok();
    };
    {
      Connection other(Path("a.db"));
      EXPECT_EQ(ReplaceMain(c.db(), put).tag(), Tag::kRestoreNeeded) << "another has it open";
    }
    c.Ok("BEGIN IMMEDIATE");
    EXPECT_EQ(ReplaceMain(c.db(), put).tag(), Tag::kRestoreNeeded) << "it is locked";
    c.Ok("ROLLBACK");
    EXPECT_EQ(ReplaceMain(c.db(), [] { return Status(Tag::kNoBucket, "x"); }).tag(),
              Tag::kNoBucket);
    EXPECT_TRUE(FileExists(Path("source.db")));
    const Status replaced = ReplaceMain(c.db(), put);
    ASSERT_TRUE(replaced.ok()) << replaced.ToString();
    EXPECT_EQ(OpenDescriptors(), descriptors + 2);  // the -wal and the -shm
    EXPECT_EQ(c.Text("SELECT count(*) FROM t"), "0");
    Install(c.db());
    c.Ok("INSERT INTO t VALUES(1)");
    EXPECT_EQ(events_->TakeHooks().back(), "committed");
    Connection other(Path("a.db"));
    EXPECT_EQ(FindNode(other.db()), FindNode(c.db()));
    EXPECT_EQ(other.Text("SELECT count(*) FROM t"), "1");
    EXPECT_EQ(other.Close(), SQLITE_OK);
    EXPECT_EQ(c.Close(), SQLITE_OK);
  }
}

TEST_F(Adoption, LeavesNoDescriptorsBehind) {
  const size_t descriptors = OpenDescriptors();
  for (int i = 0; i < 5; ++i) {
    Connection c = OpenBefore();
    c.Ok("PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS t(a)");
    AdoptAndInstall(c);
    c.Ok("INSERT INTO t VALUES(1); PRAGMA journal_mode=DELETE; INSERT INTO t VALUES(1)");
  }
  EXPECT_EQ(OpenDescriptors(), descriptors);
}

}  // namespace
}  // namespace guildlite::testing
