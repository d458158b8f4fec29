// What is wrong with what we are given is said, with a tag, a code and what to do; and nothing else
// happens: the database is as it was and can be used, no file appears under a final name, nothing
// of anybody else's is touched.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tests/sql/sql_process.h"
#include "vfs/objects/manifest.h"
#include "vfs/objects/object_key.h"

namespace guildlite::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// Everything in a directory: names with their content, by path; directories with "/".
using Tree = std::map<std::string, std::string>;
Tree TreeOf(const std::string& directory) {
  Tree tree;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    const std::string name = fs::relative(entry.path(), directory);
    const bool is_file = entry.is_regular_file() && !entry.is_symlink();
    tree[name] = is_file ? FileBytes(entry.path()) : "/";
  }
  return tree;
}

// While it lives, files are opened, and processes started, as a user who owns nothing.
class AsNobody {
 public:
  AsNobody() {
    if (::geteuid() == 0) {
      EXPECT_EQ(::seteuid(65534), 0);
    }
  }
  ~AsNobody() {
    if (::getuid() == 0) {
      EXPECT_EQ(::seteuid(0), 0);
    }
  }
};

class BadInputTest : public SqlTest {
 protected:
  // A database of the application's, in its usual mode.
  Connection Application(SqlProcess& process, const std::string& name = "a.db") {
    Connection db = OpenLoaded(process, Path(name));
    db.Ok("CREATE TABLE t(a); INSERT INTO t VALUES (1), (2), (3)");
    return db;
  }

  // The call fails as it should, and then all is as it was: the files, and the database for this
  // program and for one that never heard of us.
  void ExpectRefused(Connection& db, const std::string& sql, const std::vector<Value>& values,
                     const std::string& tag, int code, const std::string& hint) {
    SCOPED_TRACE(sql);
    const Tree before = TreeOf(Path(""));
    const Answer answer = db.Run(sql, values);
    EXPECT_THAT(answer, Fails(tag, code));
    EXPECT_THAT(answer.message, HasSubstr(hint));
    EXPECT_EQ(TreeOf(Path("")), before);
  }
  void ExpectUsableAsBefore(Connection& db, const std::string& name = "a.db") {
    EXPECT_EQ(db.Text("PRAGMA journal_mode"), "delete");
    EXPECT_EQ(db.Text("SELECT count(*), sum(a) FROM t WHERE a < 4"), "3|6");
    db.Ok("INSERT INTO t VALUES (4)");
    EXPECT_EQ(db.Text("PRAGMA integrity_check"), "ok");
    const ShellAnswer stock =
        Shell(Path(name), "DELETE FROM t WHERE a = 4; SELECT count(*) FROM t");
    EXPECT_EQ(stock.output, "3");
    EXPECT_FALSE(fs::exists(Path(name + "-wal")));
    EXPECT_EQ(db.Text("SELECT count(*) FROM replication_status"), "0");
  }

  // A store whose owner is gone: some transactions, a snapshot, some more. Its newest content.
  struct Quiet {
    std::string content;
    std::string position;
  };
  Quiet MakeStore(const std::string& name = "store") {
    SqlProcess process;
    Connection db = OpenStarted(process, Path("owner.db"), Url(name));
    db.Ok("CREATE TABLE t(a); SELECT replication_sync()");
    db.Ok("INSERT INTO t VALUES (randomblob(5000)); SELECT replication_sync()");
    db.Ok("SELECT snapshot_create('monday')");
    for (int i = 0; i < 3; ++i) {
      db.Ok("INSERT INTO t VALUES (randomblob(100)); SELECT replication_sync()");
    }
    Quiet quiet{db.Content(), db.Text("SELECT replication_durable()")};
    EXPECT_EQ(db.Close(), SQLITE_OK);
    process.Exit();
    return quiet;
  }
  // Restore and verify agree, and leave nothing but what they were asked for.
  Answer RestoreAndVerify(const std::string& url, const Value& at = {}) {
    const std::vector<std::string> before = NamesIn(Path(""));
    const Answer restored = RestoreTo(Path("new.db"), url, at);
    const Answer verified = Reader().Run("SELECT snapshot_verify(?, ?)", {url, at});
    EXPECT_EQ(verified.code, restored.code) << verified.Text() << "\n" << restored.Text();
    EXPECT_EQ(verified.tag(), restored.tag());
    EXPECT_EQ(verified.rows, restored.rows);
    if (restored.ok()) {
      restored_ = FileBytes(Path("new.db"));
      EXPECT_TRUE(fs::remove(Path("new.db")));
    }
    EXPECT_EQ(NamesIn(Path("")), before);
    return restored;
  }

  std::string restored_;
};

// -- Urls ----------------------------------------------------------------------------------------

TEST_F(BadInputTest, AMalformedUrlIsRefusedByEveryCall) {
  SqlProcess process;
  Connection db = Application(process);
  const std::vector<std::string> urls = {"",
                                         " ",
                                         "store",
                                         "file:",
                                         "file:/tmp/x",
                                         "file://",
                                         "file:///",
                                         "file://host/x",
                                         "file://tmp",
                                         "file:///tmp//x",
                                         "file:///tmp/../x",
                                         "file:///tmp/%2e%2e/x",
                                         "file:///tmp/./x",
                                         "file:///tmp/%",
                                         "file:///tmp/%zz",
                                         "file:///tmp/a%2fb",
                                         "file:///tmp/a%00b",
                                         "file:///tmp/x?y=1",
                                         "file:///tmp/x#y",
                                         "file:///tmp/{name}",
                                         "file:///tmp/\n",
                                         "FILE:///tmp/x",
                                         "http://host/x",
                                         "://",
                                         "file:///" + std::string(5000, 'x')};
  for (const std::string& url : urls) {
    SCOPED_TRACE(url);
    for (const std::string& call :
         {std::string("SELECT replication_start(?)"), std::string("SELECT snapshot_verify(?)"),
          std::string("SELECT * FROM snapshot_list(?)"),
          "SELECT snapshot_restore('" + Path("new.db") + "', ?)"}) {
      ExpectRefused(db, call, {url}, "BAD_URL", SQLITE_ERROR, "store url '");
    }
  }
  ExpectUsableAsBefore(db);
}

TEST_F(BadInputTest, AUrlThatIsNoTextIsRefused) {
  SqlProcess process;
  Connection db = Application(process);
  for (const Value& url :
       std::vector<Value>{Blob{"file:///tmp/x"}, std::string("file:///tmp/x\0y", 15)}) {
    ExpectRefused(db, "SELECT replication_start(?)", {url}, "BAD_ARGUMENT", SQLITE_ERROR, "url");
    ExpectRefused(db, "SELECT snapshot_verify(?)", {url}, "BAD_ARGUMENT", SQLITE_ERROR, "url");
    ExpectRefused(db, "SELECT * FROM snapshot_list(?)", {url}, "BAD_ARGUMENT", SQLITE_ERROR, "url");
  }
  ExpectRefused(db, "SELECT replication_start(?)", {int64_t{5}}, "BAD_URL", SQLITE_ERROR, "'5'");
  ExpectUsableAsBefore(db);
}

TEST_F(BadInputTest, ABucketsUrlIsRefusedForWhatIsWrongWithIt) {
  SqlProcess process;
  Connection db = Application(process);
  for (const char* url : {"s3://bucket/prefix?zone=a", "s3://bucket?endpoint=http://h&Region=x"}) {
    for (const char* call : {"SELECT replication_start(?)", "SELECT snapshot_verify(?)",
                             "SELECT * FROM snapshot_list(?)"}) {
      ExpectRefused(db, call, {std::string(url)}, "BAD_URL", SQLITE_ERROR,
                    "there are endpoint, region, path_style");
    }
  }
  ExpectRefused(db, "SELECT replication_start('s3://')", {}, "BAD_URL", SQLITE_ERROR,
                "s3://bucket/prefix");
  ExpectUsableAsBefore(db);
}

TEST_F(BadInputTest, PathAndUrlSwappedAreRecognized) {
  SqlProcess process;
  Connection db = Application(process);
  MakeStore();
  ExpectRefused(db, "SELECT snapshot_restore(?, ?)", {Url(), Path("new.db")}, "BAD_ARGUMENT",
                SQLITE_ERROR, "swapped");
  ExpectRefused(db, "SELECT snapshot_restore(?)", {Url()}, "BAD_ARGUMENT", SQLITE_ERROR, "swapped");
  for (const std::string& path : {Path("new.db"), Path("store"), std::string("new.db"),
                                  std::string("./new"), std::string("~/new.sqlite")}) {
    for (const std::string& call :
         {std::string("SELECT replication_start(?)"), std::string("SELECT snapshot_verify(?)"),
          std::string("SELECT * FROM snapshot_list(?)"),
          "SELECT snapshot_restore('" + Path("other.db") + "', ?)"}) {
      ExpectRefused(db, call, {path}, "BAD_URL", SQLITE_ERROR, "swapped");
    }
  }
  ExpectUsableAsBefore(db);
}

// -- The store's directory -----------------------------------------------------------------------

TEST_F(BadInputTest, TheDirectoryAboveTheStoreMustBeThere) {
  SqlProcess process;
  Connection db = Application(process);
  for (const std::string& call :
       {std::string("SELECT replication_start(?)"), std::string("SELECT snapshot_verify(?)"),
        std::string("SELECT * FROM snapshot_list(?)"),
        "SELECT snapshot_restore('" + Path("new.db") + "', ?)"}) {
    ExpectRefused(db, call, {Url("volume/backups")}, "NO_BUCKET", SQLITE_CANTOPEN,
                  Path("volume/backups") + ": No such file or directory; ");
  }
  ExpectUsableAsBefore(db);
  // An empty volume is no mistake.
  fs::create_directory(Path("volume"));
  ExpectRefused(db, "SELECT snapshot_verify(?)", {Url("volume/backups")}, "NO_BACKUP",
                SQLITE_NOTFOUND, "volume/backups");
  db.Ok("SELECT replication_start(?)", {Url("volume/backups")});
  ExpectInStore(db, Url("volume/backups"));
}

TEST_F(BadInputTest, AFileInPlaceOfTheStoresDirectoryIsLeftAlone) {
  SqlProcess process;
  Connection db = Application(process);
  WriteFileBytes(Path("file"), "mine");
  for (const char* store : {"file", "file/below"}) {
    for (const std::string& call :
         {std::string("SELECT replication_start(?)"), std::string("SELECT snapshot_verify(?)"),
          std::string("SELECT * FROM snapshot_list(?)"),
          "SELECT snapshot_restore('" + Path("new.db") + "', ?)"}) {
      ExpectRefused(db, call, {Url(store)}, "NO_BUCKET", SQLITE_CANTOPEN,
                    "a file and a directory are in each other's place");
    }
  }
  ExpectUsableAsBefore(db);
}

TEST_F(BadInputTest, ADatabaseAsTheStoreIsNoStore) {
  SqlProcess process;
  Connection db = Application(process);
  ExpectRefused(db, "SELECT replication_start(?)", {Url("a.db")}, "NO_BUCKET", SQLITE_CANTOPEN,
                "each other's place");
  ExpectUsableAsBefore(db);
}

class PermissionTest : public BadInputTest {
 protected:
  PermissionTest() {
    // Nobody may look for files here; what nobody may write is said by each test.
    ::chmod(Path("").c_str(), 0755);
    fs::create_directory(Path("own"));
    if (::geteuid() == 0) {
      EXPECT_EQ(::chown(Path("own").c_str(), 65534, 65534), 0);
    }
    const AsNobody nobody;
    process_.emplace();
  }
  ~PermissionTest() override {
    for (const auto& entry : fs::recursive_directory_iterator(Path(""))) {
      if (entry.is_directory()) ::chmod(entry.path().c_str(), 0755);
    }
  }
  std::optional<SqlProcess> process_;
};

TEST_F(PermissionTest, AStoreThatMayNotBeWrittenIsDenied) {
  fs::create_directory(Path("store"));
  ::chmod(Path("store").c_str(), 0555);
  Connection db = Application(*process_, "own/a.db");
  for (const char* store : {"store", "store/below"}) {
    const Answer answer = db.Run("SELECT replication_start(?)", {Url(store)});
    EXPECT_THAT(answer, Fails("STORE_DENIED", SQLITE_AUTH));
    EXPECT_THAT(answer.message, HasSubstr("the user this program runs as needs to"));
    EXPECT_THAT(NamesIn(Path("store")), IsEmpty());
    EXPECT_FALSE(fs::exists(Path("own/a.db-guildlite"))) << "it would be resumed";
    ExpectUsableAsBefore(db, "own/a.db");
  }
  ::chmod(Path("store").c_str(), 0777);
  db.Ok("SELECT replication_start(?)", {Url()});
  ExpectInStore(db, Url());
}

TEST_F(PermissionTest, AnOpenThatTheStoreDeniesIsCantopen) {
  MakeStore();
  process_.reset();
  {
    const AsNobody nobody;
    process_.emplace(
        SqlProcess::Environment{{"GUILDLITE_URL", Url()}, {"GUILDLITE_MATCH", Path("own/*.db")}});
  }
  ::chmod(Path("store").c_str(), 0);
  OpenLoaded(*process_, ":memory:");
  EXPECT_EQ(process_->Open(Path("own/a.db")).open_code(), SQLITE_CANTOPEN);
  Connection attaches = process_->Open(":memory:");
  EXPECT_EQ(attaches.Run("ATTACH ? AS a", {Path("own/a.db")}).code & 0xff, SQLITE_CANTOPEN);
  EXPECT_THAT(process_->Log(), HasSubstr("STORE_DENIED " + Path("own/a.db")));
  EXPECT_THAT(NamesIn(Path("own")), IsEmpty());
}

TEST_F(PermissionTest, AStoreThatMayNotBeReadIsDenied) {
  MakeStore();
  Connection db = Application(*process_, "own/a.db");
  ::chmod(Path("store").c_str(), 0);
  for (const std::string& call :
       {std::string("SELECT replication_start(?)"), std::string("SELECT snapshot_verify(?)"),
        std::string("SELECT * FROM snapshot_list(?)"),
        "SELECT snapshot_restore('" + Path("own/new.db") + "', ?)"}) {
    const Answer answer = db.Run(call, {Url()});
    EXPECT_THAT(answer, Fails("STORE_DENIED", SQLITE_AUTH)) << call;
    EXPECT_THAT(answer.message, HasSubstr("the user this program runs as needs to"));
  }
  EXPECT_EQ(NamesIn(Path("own")), std::vector<std::string>{"a.db"});
  ExpectUsableAsBefore(db, "own/a.db");
}

TEST_F(PermissionTest, ATargetDirectoryThatMayNotBeWrittenIsNamed) {
  const Quiet quiet = MakeStore();
  fs::create_directory(Path("target"));
  ::chmod(Path("target").c_str(), 0555);
  Connection db = Application(*process_, "own/a.db");
  const Answer answer = db.Run("SELECT snapshot_restore(?, ?)", {Path("target/new.db"), Url()});
  EXPECT_THAT(answer, Fails("LOCAL_IO", SQLITE_IOERR));
  EXPECT_THAT(answer.message, HasSubstr(Path("target") + ": "));
  EXPECT_THAT(answer.message, HasSubstr("Permission denied"));
  EXPECT_THAT(NamesIn(Path("target")), IsEmpty());
  // Who may only read restores all the same.
  db.Ok("SELECT snapshot_restore(?, ?)", {Path("own/new.db"), Url()});
  EXPECT_EQ(Difference(quiet.content, FileBytes(Path("own/new.db"))), "");
}

TEST_F(PermissionTest, ADatabaseThatMayNotBeWrittenIsNotReplicated) {
  Shell(Path("a.db"), "CREATE TABLE t(a); INSERT INTO t VALUES (1)");
  ::chmod(Path("a.db").c_str(), 0444);
  Connection db = OpenLoaded(*process_, Path("a.db"));
  ExpectRefused(db, "SELECT replication_start(?)", {Url()}, "BAD_ARGUMENT", SQLITE_ERROR,
                Path("a.db") + " is open read-only; ");
  EXPECT_EQ(db.Text("SELECT a FROM t"), "1");
}

TEST_F(PermissionTest, ADatabaseInADirectoryThatMayNotBeWrittenIsNotReplicated) {
  Shell(Path("a.db"), "CREATE TABLE t(a); INSERT INTO t VALUES (1)");
  ::chmod(Path("a.db").c_str(), 0666);
  ::chmod(Path("").c_str(), 0555);
  fs::create_directory(Path("own/stores"));
  ::chmod(Path("own/stores").c_str(), 0777);
  Connection db = OpenLoaded(*process_, Path("a.db"));
  const Answer answer = db.Run("SELECT replication_start(?)", {Url("own/stores/a")});
  ::chmod(Path("").c_str(), 0755);
  EXPECT_FALSE(answer.ok());
  EXPECT_THAT(answer.message, HasSubstr(": "));
  EXPECT_EQ(NamesIn(Path("")), (std::vector<std::string>{"a.db", "own"}));
  EXPECT_THAT(NamesIn(Path("own/stores")), IsEmpty());
  EXPECT_EQ(db.Text("SELECT a FROM t"), "1");
}

// -- The database --------------------------------------------------------------------------------

TEST_F(BadInputTest, AReadOnlyConnectionReplicatesNothing) {
  SqlProcess process;
  Application(process).Close();
  Connection db = process.Open(Path("a.db"), SQLITE_OPEN_READONLY);
  ExpectRefused(db, "SELECT replication_start(?)", {Url()}, "BAD_ARGUMENT", SQLITE_ERROR,
                Path("a.db") + " is open read-only; replicate it from a connection that may write");
  EXPECT_EQ(db.Text("SELECT count(*) FROM t"), "3");
  Connection writer = process.Open(Path("a.db"));
  ExpectUsableAsBefore(writer);
}

TEST_F(BadInputTest, ADatabaseWithoutAFileIsNotReplicated) {
  SqlProcess process;
  for (const char* name : {":memory:", ""}) {
    Connection db = OpenLoaded(process, name);
    db.Ok("CREATE TABLE t(a); INSERT INTO t VALUES (1), (2)");
    ExpectRefused(db, "SELECT replication_start(?)", {Url()}, "BAD_ARGUMENT", SQLITE_ERROR,
                  "needs a database file");
    for (const char* call : {"replication_sync()", "replication_stop()", "snapshot_create()"}) {
      ExpectRefused(db, "SELECT " + std::string(call), {}, "NOT_REPLICATED", SQLITE_ERROR,
                    "replication_start(url)");
    }
    for (const std::string& call :
         {std::string("snapshot_verify()"), "snapshot_restore('" + Path("new.db") + "')"}) {
      ExpectRefused(db, "SELECT " + call, {}, "BAD_ARGUMENT", SQLITE_ERROR, "no url given");
    }
    db.Ok("INSERT INTO t VALUES (3)");
    EXPECT_EQ(db.Text("SELECT count(*) FROM t"), "3");
  }
  EXPECT_THAT(NamesIn(Path("")), IsEmpty());
}

TEST_F(BadInputTest, AFileThatIsNoDatabaseIsLeftAlone) {
  SqlProcess process;
  for (const std::string& bytes :
       {std::string("Dear diary"), std::string(10000, 'x'),
        std::string("SQLite format 3\0", 16) + std::string(5000, '\xff')}) {
    WriteFileBytes(Path("diary.txt"), bytes);
    Connection db = process.Open(Path("diary.txt"));
    db.Load();
    ExpectRefused(db, "SELECT replication_start(?)", {Url()}, "BAD_ARGUMENT", SQLITE_ERROR,
                  "file is not a database");
    EXPECT_EQ(db.Close(), SQLITE_OK);
    EXPECT_EQ(FileBytes(Path("diary.txt")), bytes);
  }
  EXPECT_EQ(NamesIn(Path("")), std::vector<std::string>{"diary.txt"});
}

TEST_F(BadInputTest, UnknownAndIllTypedOptionsAreNamed) {
  SqlProcess process;
  Connection db = Application(process);
  struct Case {
    const char* options;
    const char* says;
  };
  for (const Case& c : std::vector<Case>{
           {"5", "not a JSON object"},
           {"[]", "not a JSON object"},
           {"sync_interval_ms=5", "not a JSON object"},
           {"{\"sync_interval_ms\":5", "not a JSON object"},
           {"{\"sync_interval\":5}", "option 'sync_interval' is unknown; there are url, "},
           {"{\"GUILDLITE_WAL\":true}", "option 'GUILDLITE_WAL' is unknown"},
           {"{\"sync_interval_ms\":\"5\"}", "'sync_interval_ms' must be an integer from 0 to "},
           {"{\"sync_interval_ms\":0.5}", "'sync_interval_ms' must be an integer"},
           {"{\"sync_interval_ms\":-1}", "'sync_interval_ms' must be an integer"},
           {"{\"sync_interval_ms\":null}", "'sync_interval_ms' must be an integer"},
           {"{\"spool_limit_bytes\":1}", "'spool_limit_bytes' must be an integer from 65536"},
           {"{\"wal\":1}", "'wal' must be true or false"},
           {"{\"wal\":\"yes\"}", "'wal' must be true or false"},
           {"{\"restore\":\"maybe\"}", "'restore' must be one of 'if_missing' 'never'"},
           {"{\"durability\":\"strict\"}", "this version has only async"},
           {"{\"wal\":true,\"wal_limit_bytes\":[1]}", "'wal_limit_bytes' must be an integer"},
       }) {
    SCOPED_TRACE(c.options);
    ExpectRefused(db, "SELECT replication_start(?, ?)", {Url(), std::string(c.options)},
                  "BAD_ARGUMENT", SQLITE_ERROR, c.says);
  }
  ExpectRefused(db, "SELECT replication_start(?, ?)", {Url(), Blob{"{}"}}, "BAD_ARGUMENT",
                SQLITE_ERROR, "options must be TEXT");
  ExpectUsableAsBefore(db);
}

// -- The target of a restore ---------------------------------------------------------------------

TEST_F(BadInputTest, WhateverExistsUnderTheTargetsNamesStays) {
  SqlProcess process;
  Connection db = Application(process);
  const Quiet quiet = MakeStore();
  for (const char* suffix : {"", "-wal", "-shm", "-journal"}) {
    const std::string there = Path(std::string("new.db") + suffix);
    for (const char* bytes : {"", "mine"}) {
      WriteFileBytes(there, bytes);
      ExpectRefused(db, "SELECT snapshot_restore(?, ?)", {Path("new.db"), Url()}, "EXISTS",
                    SQLITE_CANTOPEN, there + " exists");
    }
    fs::remove(there);
    fs::create_symlink("nowhere", there);
    ExpectRefused(db, "SELECT snapshot_restore(?, ?)", {Path("new.db"), Url()}, "EXISTS",
                  SQLITE_CANTOPEN, there + " exists");
    fs::remove(there);
    fs::create_directory(there);
    ExpectRefused(db, "SELECT snapshot_restore(?, ?)", {Path("new.db"), Url()}, "EXISTS",
                  SQLITE_CANTOPEN, there + " exists");
    fs::remove(there);
  }
  // Above all the database at work.
  ExpectRefused(db, "SELECT snapshot_restore(?, ?)", {Path("a.db"), Url()}, "EXISTS",
                SQLITE_CANTOPEN, Path("a.db") + " exists");
  ExpectUsableAsBefore(db);
  EXPECT_EQ(Difference(quiet.content, Restored(Url())), "");
}

TEST_F(BadInputTest, ATargetNeedsADirectoryAndAName) {
  SqlProcess process;
  Connection db = Application(process);
  MakeStore();
  WriteFileBytes(Path("file"), "mine");
  for (const char* path : {"none/new.db", "file/new.db", "none/"}) {
    ExpectRefused(db, "SELECT snapshot_restore(?, ?)", {Path(path), Url()}, "BAD_ARGUMENT",
                  SQLITE_ERROR, "director");
  }
  ExpectUsableAsBefore(db);
}

// -- Damage --------------------------------------------------------------------------------------

// The objects of a store; what else lies there is no object.
std::vector<std::string> ObjectsOf(const std::string& store) {
  std::vector<std::string> keys = FilesBelow(store);
  EXPECT_GE(keys.size(), 8u);
  return keys;
}

TEST_F(BadInputTest, AFlippedByteInAnyObjectIsNoticedOrTheObjectWasNotNeeded) {
  const Quiet quiet = MakeStore();
  size_t needed = 0;
  for (const std::string& key : ObjectsOf(Path("store"))) {
    const std::string path = Path("store/" + key);
    const std::string good = FileBytes(path);
    for (const size_t at : {size_t{0}, good.size() / 3, good.size() / 2, good.size() - 1}) {
      SCOPED_TRACE(key + " at " + std::to_string(at));
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ 4);
      WriteFileBytes(path, bad);
      const Answer answer = RestoreAndVerify(Url());
      if (answer.ok()) {
        EXPECT_NE(key, kManifestKey);
        EXPECT_EQ(answer.Text(), quiet.position);
        EXPECT_EQ(Difference(quiet.content, restored_), "");
        fs::remove(path);
        EXPECT_EQ(RestoreAndVerify(Url()).Text(), quiet.position) << "it was not needed";
      } else {
        ++needed;
        EXPECT_THAT(answer, Fails("CHAIN_BROKEN", SQLITE_CORRUPT));
        EXPECT_THAT(answer.message, HasSubstr(key));
      }
    }
    WriteFileBytes(path, good);
  }
  EXPECT_GE(needed, 4 * 5u) << "manifest, snapshot, three transactions";
  EXPECT_EQ(RestoreAndVerify(Url()).Text(), quiet.position);
}

TEST_F(BadInputTest, ATruncatedObjectIsNoticedOrWasNotNeeded) {
  const Quiet quiet = MakeStore();
  for (const std::string& key : ObjectsOf(Path("store"))) {
    const std::string path = Path("store/" + key);
    const std::string good = FileBytes(path);
    for (const size_t size : {size_t{0}, good.size() / 2, good.size() - 1}) {
      SCOPED_TRACE(key + " cut to " + std::to_string(size));
      WriteFileBytes(path, good.substr(0, size));
      const Answer answer = RestoreAndVerify(Url());
      if (answer.ok()) {
        EXPECT_EQ(answer.Text(), quiet.position);
        EXPECT_EQ(Difference(quiet.content, restored_), "");
      } else {
        EXPECT_THAT(answer, Fails("CHAIN_BROKEN", SQLITE_CORRUPT));
        EXPECT_THAT(answer.message, HasSubstr(key));
      }
    }
    WriteFileBytes(path, good);
  }
}

TEST_F(BadInputTest, AMissingObjectIsNoticedOrWasNotNeeded) {
  const Quiet quiet = MakeStore();
  std::string last;
  for (const std::string& key : ObjectsOf(Path("store"))) {
    if (ParseLogKey(key)) last = std::max(last, key);
  }
  size_t needed = 0;
  for (const std::string& key : ObjectsOf(Path("store"))) {
    SCOPED_TRACE(key);
    const std::string path = Path("store/" + key);
    const std::string good = FileBytes(path);
    fs::remove(path);
    const Answer answer = RestoreAndVerify(Url());
    if (key == kManifestKey) {
      EXPECT_THAT(answer, Fails("NO_BACKUP", SQLITE_NOTFOUND));
      EXPECT_THAT(answer.message, HasSubstr(key));
    } else if (key == last) {
      // A store without its last object is the store of a moment before: nothing can tell.
      EXPECT_TRUE(answer.ok()) << answer.Text();
      EXPECT_NE(answer.Text(), quiet.position);
    } else if (answer.ok()) {
      EXPECT_EQ(answer.Text(), quiet.position);
      EXPECT_EQ(Difference(quiet.content, restored_), "");
    } else {
      ++needed;
      EXPECT_THAT(answer, Fails("CHAIN_BROKEN", SQLITE_CORRUPT));
      EXPECT_THAT(answer.message, HasSubstr(key));
    }
    WriteFileBytes(path, good);
  }
  EXPECT_GE(needed, 3u) << "snapshot and two transactions";
  EXPECT_EQ(RestoreAndVerify(Url()).Text(), quiet.position);
}

TEST_F(BadInputTest, DamageLeavesEarlierMomentsRestorable) {
  MakeStore();
  const std::string monday = RestoreAndVerify(Url(), std::string("label:monday")).Text();
  const std::string content = restored_;
  std::string last;
  for (const std::string& key : ObjectsOf(Path("store"))) {
    if (ParseLogKey(key)) last = std::max(last, key);
  }
  WriteFileBytes(Path("store/" + last), "damaged");
  EXPECT_THAT(RestoreAndVerify(Url()), Fails("CHAIN_BROKEN", SQLITE_CORRUPT));
  EXPECT_EQ(RestoreAndVerify(Url(), std::string("label:monday")).Text(), monday);
  EXPECT_EQ(Difference(content, restored_), "");
}

// A manifest we cannot judge is not built upon either, and not replaced.
class ManifestTest : public BadInputTest {
 protected:
  void ExpectRefusedByAll(const std::string& manifest, const std::string& tag, int code,
                          const std::string& hint) {
    WriteFileBytes(Path("store/manifest.json"), manifest);
    SqlProcess process;
    Connection db = Application(process);
    for (const std::string& call :
         {std::string("SELECT replication_start(?)"), std::string("SELECT snapshot_verify(?)"),
          std::string("SELECT * FROM snapshot_list(?)"),
          "SELECT snapshot_restore('" + Path("new.db") + "', ?)"}) {
      ExpectRefused(db, call, {Url()}, tag, code, hint);
    }
    ExpectUsableAsBefore(db);
    EXPECT_EQ(db.Close(), SQLITE_OK);
    fs::remove(Path("a.db"));
  }
};

TEST_F(ManifestTest, ATruncatedOneIsDamage) {
  MakeStore();
  const std::string good = FileBytes(Path("store/manifest.json"));
  for (const size_t size : {size_t{0}, size_t{1}, good.size() / 2, good.size() - 1}) {
    ExpectRefusedByAll(good.substr(0, size), "CHAIN_BROKEN", SQLITE_CORRUPT, "manifest.json");
  }
}

TEST_F(ManifestTest, SomebodyElsesIsLeftAlone) {
  ExpectRefusedByAll("{\"name\":\"my-app\",\"icons\":[]}", "CHAIN_BROKEN", SQLITE_CORRUPT,
                     "manifest.json");
}

TEST_F(ManifestTest, ANewerFormatIsToBeReadByANewerVersion) {
  MakeStore();
  std::string newer = FileBytes(Path("store/manifest.json"));
  newer = "{" + newer.substr(newer.find('\n', 3));  // without the checksum of the old
  for (const char* member : {"\"format\": ", "\"min_reader\": "}) {
    const size_t at = newer.find(member);
    ASSERT_NE(at, std::string::npos);
    newer[at + std::string(member).size()] = '7';
  }
  ExpectRefusedByAll(SealManifest(newer), "FORMAT_TOO_NEW", SQLITE_CANTOPEN,
                     "use the version that wrote it");
}

TEST_F(BadInputTest, TheOwnerOfADamagedStoreGoesOnWriting) {
  SqlProcess process;
  Connection db = OpenStarted(process, Path("a.db"), Url());
  db.Ok("CREATE TABLE t(a); INSERT INTO t VALUES (1); SELECT replication_sync()");
  WriteFileBytes(Path("store/manifest.json"), "damaged");
  for (int i = 0; i < 10; ++i) db.Ok("INSERT INTO t VALUES (2)");
  EXPECT_THAT(db.Run("SELECT snapshot_verify()"), Fails("CHAIN_BROKEN", SQLITE_CORRUPT));
  EXPECT_THAT(db.Run("SELECT snapshot_create()"), Fails("CHAIN_BROKEN", SQLITE_CORRUPT));
  EXPECT_THAT(db.Text("SELECT replication_error()"), HasSubstr("CHAIN_BROKEN: "));
  db.Ok("INSERT INTO t VALUES (3)");
  EXPECT_EQ(Shell(Path("a.db"), "SELECT count(*) FROM t").output, "12");
}

// -- Other programs ------------------------------------------------------------------------------

TEST_F(BadInputTest, OtherProgramsFilesInTheStoreAreIgnoredAndUntouched) {
  const std::vector<std::string> names = {"notes.txt",
                                          ".hidden",
                                          ".tmp-mine",
                                          "lost+found/inode",
                                          "log/README",
                                          "log/000000000000000",
                                          "log/0000000000000002.bak",
                                          "log/00000000000000FF",
                                          "log/ffffffffffffffff0",
                                          "log/below/0000000000000003",
                                          "snapshot/mine",
                                          "snapshot/old/0000000000000001",
                                          "parts/mine",
                                          "segments/0/mine",
                                          "orphans/mine",
                                          "manifest.json.bak",
                                          "manifest.json~",
                                          "b\xC3\xBC"
                                          "cher/a b"};
  for (const std::string& name : names) WriteFileBytes(Path("store/" + name), "of " + name);
  WriteFileBytes(Path("elsewhere"), "linked");
  fs::create_symlink(Path("elsewhere"), Path("store/link"));
  {
    SqlProcess process;
    Connection db = OpenStarted(process, Path("a.db"), Url());
    db.Ok("CREATE TABLE t(a); INSERT INTO t VALUES (randomblob(100000))");
    ExpectInStore(db, Url());
    db.Ok("SELECT snapshot_create()");
    db.Ok("INSERT INTO t VALUES (2)");
    EXPECT_EQ(db.Close(), SQLITE_OK);
  }
  {
    SqlProcess process;
    Connection db = OpenLoaded(process, Path("a.db"));
    db.Ok("INSERT INTO t VALUES (3)");
    ExpectInStore(db, Url());
    EXPECT_EQ(db.Text("SELECT count(*) FROM snapshot_list WHERE bytes > 0"),
              db.Text("SELECT count(*) FROM snapshot_list"));
  }
  for (const std::string& name : names) {
    EXPECT_EQ(FileBytes(Path("store/" + name)), "of " + name) << name;
  }
  EXPECT_TRUE(fs::is_symlink(Path("store/link")));
  EXPECT_EQ(FileBytes(Path("elsewhere")), "linked");
}

}  // namespace
}  // namespace guildlite::testing
