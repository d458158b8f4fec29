// A node lives from the first open to the last close; who comes while the host is at work waits;
// our own handles on the database file take nothing away from SQLite.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <future>
#include <thread>

#include "tests/shim/shim_fixture.h"
#include "vfs/base/file_io.h"
#include "vfs/shim/boundary.h"
#include "vfs/shim/node_registry.h"

namespace guildlite::testing {
namespace {

using Calls = std::vector<std::string>;

class Nodes : public ShimTest {
 protected:
  Nodes() {
    Host().first_opened = [this](Node& node) {
      const std::lock_guard lock(mutex_);
      opened_.push_back(std::filesystem::path(node.path()).filename());
      return Status::Ok();
    };
    Host().last_closing = [this](Node& node) {
      const std::lock_guard lock(mutex_);
      closed_.push_back(std::filesystem::path(node.path()).filename());
      wal_at_close_ = FileExists(node.wal_path());
    };
  }
  std::mutex mutex_;
  Calls opened_;
  Calls closed_;
  bool wal_at_close_ = false;
};

TEST_F(Nodes, FirstOpenedAndLastClosingOnceEach) {
  {
    Connection a = OpenWal();
    Connection b(Path("a.db"));
    Connection c(Path("a.db"));
    b.Ok("INSERT INTO t VALUES(1)");
    EXPECT_EQ(opened_, Calls{"a.db"});
    EXPECT_EQ(a.Close(), SQLITE_OK);
    EXPECT_EQ(b.Close(), SQLITE_OK);
    EXPECT_EQ(closed_, Calls{});
  }
  EXPECT_EQ(closed_, Calls{"a.db"});
  EXPECT_EQ(FindNodeByPath(Path("a.db")), nullptr);
  Connection again(Path("a.db"));
  EXPECT_EQ(opened_, (Calls{"a.db", "a.db"}));
}

TEST_F(Nodes, TheWalIsGoneWhenTheLastCloses) {
  OpenWal().Close();
  EXPECT_EQ(closed_, Calls{"a.db"});
  EXPECT_FALSE(wal_at_close_);
}

TEST_F(Nodes, TheWalIsKeptWhenItsDeletionWasRefused) {
  Connection c = OpenWal();
  events_->may_discard = false;
  EXPECT_EQ(c.Close(), SQLITE_OK);
  EXPECT_TRUE(wal_at_close_);
}

TEST_F(Nodes, ANodeOutlivesItsFilesWhileSomebodyHoldsIt) {
  Connection c = OpenWal();
  const std::shared_ptr<Node> node = FindNode(c.db());
  EXPECT_EQ(c.Close(), SQLITE_OK);
  EXPECT_EQ(node->path(), Path("a.db"));
  EXPECT_TRUE(node->OpenDatabaseFile().ok());
}

TEST_F(Nodes, TwoDatabasesHaveTwoNodes) {
  Connection a = OpenWal("a.db");
  Connection b = OpenWal("b.db");
  EXPECT_NE(FindNode(a.db()), FindNode(b.db()));
  EXPECT_EQ(FindNodeByPath(Path("b.db")), FindNode(b.db()));
  EXPECT_EQ(opened_, (Calls{"a.db", "b.db"}));
}

TEST_F(Nodes, ASymbolicLinkLeadsToTheSameNode) {
  Connection a = OpenWal("a.db");
  std::filesystem::create_symlink(Path("a.db"), Path("link.db"));
  Connection b(Path("link.db"));
  EXPECT_EQ(FindNode(a.db()), FindNode(b.db()));
}

TEST_F(Nodes, AReplacedFileGetsANodeOfItsOwn) {
  Connection old = OpenWal("a.db");
  old.Ok("INSERT INTO t VALUES('old')");
  OpenWal("b.db").Close();
  std::filesystem::rename(Path("a.db"), Path("old.db"));
  std::filesystem::rename(Path("a.db-wal"), Path("old.db-wal"));
  std::filesystem::rename(Path("a.db-shm"), Path("old.db-shm"));
  std::filesystem::rename(Path("b.db"), Path("a.db"));
  Connection now(Path("a.db"));
  EXPECT_NE(FindNode(old.db()), FindNode(now.db()));
  EXPECT_EQ(FindNodeByPath(Path("a.db")), FindNode(now.db()));
  EXPECT_EQ(now.Text("SELECT count(*) FROM t"), "0");
  EXPECT_EQ(old.Text("SELECT count(*) FROM t"), "1");
  EXPECT_EQ(old.Close(), SQLITE_OK);
  EXPECT_EQ(FindNodeByPath(Path("a.db")), FindNode(now.db()));
}

TEST_F(Nodes, AnErrorOfFirstOpenedFailsTheOpenAndLeavesNoFile) {
  Host().first_opened = [](Node&) { return Status(Tag::kNoBucket, "x"); };
  {
    Connection c(Path("a.db"));
    EXPECT_EQ(c.open_code(), SQLITE_CANTOPEN);
  }
  EXPECT_FALSE(FileExists(Path("a.db")));
  EXPECT_EQ(closed_, Calls{});
  EXPECT_EQ(FindNodeByPath(Path("a.db")), nullptr);

  const size_t descriptors = OpenDescriptors();
  ASSERT_TRUE(ReplaceFile(Path("a.db"), "").ok());
  Host().first_opened = [](Node&) { return Status(Tag::kBusy, "x"); };
  {
    Connection c(Path("a.db"));
    EXPECT_EQ(c.open_code(), SQLITE_BUSY);
  }
  Host().first_opened = [](Node&) -> Status { throw std::runtime_error("x"); };
  {
    Connection c(Path("a.db"));
    EXPECT_EQ(c.open_code(), SQLITE_CANTOPEN);
  }
  EXPECT_EQ(OpenDescriptors(), descriptors);
}

TEST_F(Nodes, FirstOpenedMayPutTheDatabaseInPlace) {
  for (const bool empty_file_first : {false, true}) {
    OpenWal("source.db").Close();
    std::filesystem::remove(Path("a.db"));
    if (empty_file_first) {
      ASSERT_TRUE(ReplaceFile(Path("a.db"), "").ok());
    }
    Host().first_opened = [this](Node& node) {
      EXPECT_EQ(FileExists(node.path()) ? std::filesystem::file_size(node.path()) : 0u, 0u);
      std::filesystem::rename(Path("source.db"), node.path());
      return Status::Ok();
    };
    Connection c(Path("a.db"));
    Host().first_opened = nullptr;
    EXPECT_EQ(c.Text("SELECT count(*) FROM t"), "0");
    c.Ok("INSERT INTO t VALUES(1)");
    Connection other(Path("a.db"));
    EXPECT_EQ(FindNode(other.db()), FindNode(c.db()));
    EXPECT_EQ(other.Text("SELECT count(*) FROM t"), "1");
  }
}

TEST_F(Nodes, ASecondOpenWaitsForFirstOpened) {
  std::atomic<bool> done = false;
  std::future<bool> second;
  Host().first_opened = [&](Node& node) {
    second = std::async(std::launch::async, [this, &done, path = node.path()] {
      Connection c(path);
      return c.open_code() == SQLITE_OK && done.load();
    });
    // The host may use the file through the base VFS, and even through ours, meanwhile.
    Connection base(node.path(), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "unix");
    base.Ok("CREATE TABLE t(a)");
    Connection ours(node.path());
    EXPECT_EQ(ours.Text("SELECT count(*) FROM t"), "0");
    done = true;
    return Status::Ok();
  };
  Connection c(Path("a.db"));
  EXPECT_TRUE(second.get());
  c.Ok("INSERT INTO t VALUES(1)");
}

TEST_F(Nodes, AnOpenWaitsForLastClosing) {
  std::atomic<bool> done = false;
  std::future<bool> next;
  Host().last_closing = [&](Node& node) {
    Host().last_closing = nullptr;
    next = std::async(std::launch::async, [&done, path = node.path()] {
      Connection c(path);
      return c.open_code() == SQLITE_OK && done.load();
    });
    Connection ours(node.path());
    EXPECT_EQ(ours.Text("SELECT count(*) FROM t"), "0");
    EXPECT_EQ(ours.Close(), SQLITE_OK);
    done = true;
  };
  Connection c = OpenWal();
  EXPECT_EQ(c.Close(), SQLITE_OK);
  EXPECT_TRUE(next.get());
}

TEST_F(Nodes, EventsInstalledLateLearnOfTheIndexAndRemovedOnesForgetIt) {
  Connection c = OpenWal();
  const std::shared_ptr<Node> node = FindNode(c.db());
  EXPECT_EQ(node->events(), events_);
  auto later = std::make_shared<RecordingEvents>();
  node->Install(later);
  EXPECT_EQ(events_->Take(), Calls{"unmap"});
  EXPECT_EQ(later->Take(), Calls{"map"});
  EXPECT_TRUE(later->ReadIndex());
  node->Remove();
  EXPECT_EQ(later->Take(), Calls{"unmap"});
  EXPECT_EQ(node->events(), nullptr);
  node->Install(later);
  EXPECT_EQ(later->Take(), Calls{"map"});
  EXPECT_EQ(c.Close(), SQLITE_OK);
  EXPECT_EQ(later->mapped(), 0u);
}

// The entry that SQLite runs at the end of each sqlite3_open(), while in scope.
class AutoExtension {
 public:
  AutoExtension() { sqlite3_auto_extension(reinterpret_cast<void (*)(void)>(&Entry)); }
  ~AutoExtension() { sqlite3_cancel_auto_extension(reinterpret_cast<void (*)(void)>(&Entry)); }

 private:
  static int Entry(sqlite3* db, char** message, const sqlite3_api_routines*) {
    const Status status = ConfirmMain(db);
    if (!status.ok()) *message = sqlite3_mprintf("%s", status.ToString().c_str());
    return OpenCode(status);
  }
};

TEST_F(Nodes, AFileIsConfirmedAsMainOnceAndNotWhenAttached) {
  const AutoExtension entry;
  Calls mains;
  Host().opened_as_main = [&](Node& node, sqlite3* db) {
    EXPECT_EQ(FindNode(db).get(), &node);
    mains.push_back(std::filesystem::path(node.path()).filename());
    return Status::Ok();
  };
  Connection a(Path("a.db"));
  a.Ok("ATTACH 'file:" + Path("b.db") + "' AS b; CREATE TABLE b.t(x)");
  a.Ok("VACUUM INTO 'file:" + Path("c.db") + "'");
  Connection second(Path("a.db"));
  Connection memory(":memory:");
  EXPECT_EQ(mains, Calls{"a.db"});
  EXPECT_EQ(opened_, (Calls{"a.db", "b.db", "c.db"}));
  Connection b(Path("b.db"));
  EXPECT_EQ(mains, (Calls{"a.db", "b.db"}));
  EXPECT_EQ(b.Close(), SQLITE_OK);
  Connection again(Path("b.db"));
  EXPECT_EQ(mains, (Calls{"a.db", "b.db"})) << "it was open as an attached one all the time";
}

TEST_F(Nodes, AnErrorOfOpenedAsMainFailsTheOpenWithItsText) {
  const AutoExtension entry;
  Host().opened_as_main = [](Node&, sqlite3*) { return Status(Tag::kPrefixClash, "of x and y"); };
  {
    Connection c(Path("a.db"));
    EXPECT_EQ(c.open_code(), SQLITE_CANTOPEN);
    EXPECT_NE(std::string(sqlite3_errmsg(c.db())).find("PREFIX_CLASH: of x and y"),
              std::string::npos);
  }
  EXPECT_EQ(closed_, Calls{"a.db"});
  int calls = 0;
  Host().opened_as_main = [&](Node&, sqlite3*) -> Status {
    if (++calls == 1) throw std::runtime_error("x");
    return Status::Ok();
  };
  Connection attached(":memory:");
  attached.Ok("ATTACH 'file:" + Path("a.db") + "' AS a");
  EXPECT_NE(Connection(Path("a.db")).open_code(), SQLITE_OK);
  EXPECT_EQ(Connection(Path("a.db")).open_code(), SQLITE_OK) << "the next is asked again";
  EXPECT_EQ(Connection(Path("a.db")).open_code(), SQLITE_OK);
  EXPECT_EQ(calls, 2);
}

TEST_F(Nodes, ASecondMainWaitsForTheFirst) {
  const AutoExtension entry;
  std::promise<void> entered, go_on;
  std::atomic<bool> done = false;
  Host().opened_as_main = [&](Node&, sqlite3*) {
    entered.set_value();
    go_on.get_future().wait();
    done = true;
    return Status::Ok();
  };
  std::thread first([&] { Connection c(Path("a.db")); });
  entered.get_future().wait();
  std::thread second([&] {
    Connection c(Path("a.db"));
    EXPECT_TRUE(done);
  });
  go_on.set_value();
  first.join();
  second.join();
}

TEST_F(Nodes, EventsInstalledByFirstOpenedSeeTheFirstStatement) {
  Host().first_opened = [this](Node& node) {
    node.Install(events_);
    return Status::Ok();
  };
  Connection c(Path("a.db"));
  c.Ok("PRAGMA journal_mode=WAL");
  c.Ok("CREATE TABLE t(a)");
  EXPECT_EQ(events_->Count("map"), 1u);
  EXPECT_EQ(events_->Count("header"), 1u);
}

TEST_F(Nodes, OurHandleReadsWhatIsInTheFile) {
  Connection c = OpenWal();
  c.Ok("INSERT INTO t VALUES(randomblob(300000)); PRAGMA wal_checkpoint(TRUNCATE)");
  const std::string truth = ReadWholeFile(Path("a.db")).value();
  Result<std::unique_ptr<DatabaseFile>> file = FindNode(c.db())->OpenDatabaseFile();
  ASSERT_TRUE(file.ok());
  EXPECT_EQ((*file)->Size().value(), truth.size());
  std::string got(truth.size() + 1000, 'x');
  EXPECT_EQ((*file)->ReadAt(0, std::as_writable_bytes(std::span(got))).value(), truth.size());
  EXPECT_EQ(got.substr(0, truth.size()), truth);
  EXPECT_EQ((*file)->ReadAt(truth.size() - 10, std::as_writable_bytes(std::span(got))).value(),
            10u);
  EXPECT_EQ(got.substr(0, 10), truth.substr(truth.size() - 10));
  EXPECT_EQ((*file)->ReadAt(truth.size() + 5, std::as_writable_bytes(std::span(got))).value(), 0u);
  EXPECT_EQ((*file)->ReadAt(4096, std::span<std::byte>()).value(), 0u);
}

TEST_F(Nodes, OurHandleOfAMissingFileIsAnError) {
  Connection c(Path("a.db"));
  const std::shared_ptr<Node> node = FindNode(c.db());
  std::filesystem::remove(Path("a.db"));
  EXPECT_EQ(node->OpenDatabaseFile().status().tag(), Tag::kLocalIo);
}

// close(2) of any descriptor of a file drops all POSIX locks of the process on it (fcntl(2));
// os_unix.c defers it for handles it knows. Another process is asked, as a process does not see its
// own locks.
TEST_F(Nodes, ClosingOurHandleDropsNoLock) {
  Connection c(Path("a.db"));
  c.Ok("CREATE TABLE t(a); BEGIN IMMEDIATE; INSERT INTO t VALUES(1)");
  const auto reserved_is_held = [this] {
    const pid_t child = fork();
    if (child == 0) {
      const int fd = open(Path("a.db").c_str(), O_RDWR);
      struct flock lock {};
      lock.l_type = F_WRLCK;
      lock.l_whence = SEEK_SET;
      lock.l_start = 0x40000000 + 1;  // RESERVED_BYTE
      lock.l_len = 1;
      _exit(fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
  };
  EXPECT_TRUE(reserved_is_held());
  {
    Result<std::unique_ptr<DatabaseFile>> file = FindNode(c.db())->OpenDatabaseFile();
    ASSERT_TRUE(file.ok());
    std::byte b[100];
    EXPECT_EQ((*file)->ReadAt(0, b).value(), 100u);
  }
  EXPECT_TRUE(reserved_is_held());
  c.Ok("COMMIT");
  EXPECT_FALSE(reserved_is_held());
}

TEST_F(Nodes, NothingLeavesDescriptorsBehind) {
  const size_t descriptors = OpenDescriptors();
  for (int i = 0; i < 5; ++i) {
    Connection c = OpenWal();
    auto file = FindNode(c.db())->OpenDatabaseFile();
    c.Ok("INSERT INTO t VALUES(1); DROP TABLE t");
    Connection other(Path("a.db"));
    other.Ok("SELECT * FROM sqlite_master");
  }
  EXPECT_EQ(OpenDescriptors(), descriptors);
}

// In a forked child the hooks are silent, whatever it does with what it inherited or opens anew.
TEST_F(Nodes, AForkedChildPassesStraightThrough) {
  Connection c = OpenWal();
  c.Ok("INSERT INTO t VALUES(1)");
  events_->Take();
  opened_.clear();
  const pid_t child = fork();
  if (child == 0) {
    int failed = InForkedChild() ? 0 : 1;
    Connection own(Path("child.db"));
    failed |= own.Run("PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1)") << 1;
    if (FindNode(own.db()) != nullptr) failed |= 4;
    if (Adopt(own.db()).ok()) failed |= 8;
    if (own.Close() != SQLITE_OK) failed |= 16;
    // sqlite.org/howtocorrupt.html forbids the use of an inherited connection; closing it still
    // happens when a program exits.
    c.Close();
    if (!events_->Take().empty() || !opened_.empty() || !closed_.empty()) failed |= 32;
    _exit(failed);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_FALSE(InForkedChild());
}

}  // namespace
}  // namespace guildlite::testing
