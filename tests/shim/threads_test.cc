// Many threads at once, meant for the thread sanitizer: connections that commit, checkpoint and
// close, while events come and go and a worker reads the index and the file.
#include <thread>

#include "tests/shim/shim_fixture.h"

namespace guildlite::testing {
namespace {

using Threads = ShimTest;

TEST_F(Threads, CommitsCheckpointsInstallsAndReadersTogether) {
  constexpr int kWriters = 4;
  constexpr int kCommits = 60;
  OpenWal().Close();
  std::atomic<bool> stop = false;
  std::atomic<int> failures = 0;

  std::vector<std::thread> writers;
  for (int w = 0; w < kWriters; ++w) {
    writers.emplace_back([&, w] {
      for (int i = 0; i < kCommits;) {
        Connection c(Path("a.db"));
        sqlite3_busy_timeout(c.db(), 60'000);
        if (const std::shared_ptr<Node> node = FindNode(c.db())) {
          if (w == 0) node->Install(events_);
        } else {
          ++failures;
        }
        for (int n = 0; n < 15; ++n, ++i) {
          const int code = c.Run("INSERT INTO t VALUES(randomblob(2000))");
          EXPECT_EQ(code, SQLITE_OK) << sqlite3_errmsg(c.db());
          if (n % 5 == w) c.Run("PRAGMA wal_checkpoint(TRUNCATE)");
        }
      }
    });
  }
  std::thread worker([&] {
    std::vector<std::byte> page(4096);
    while (!stop) {
      events_->ReadIndex();
      events_->Take();
      const std::shared_ptr<Node> node = FindNodeByPath(Path("a.db"));
      if (node == nullptr) continue;
      Result<std::unique_ptr<DatabaseFile>> file = node->OpenDatabaseFile();
      if (!file.ok() || !(*file)->ReadAt(0, page).ok()) ++failures;
      node->Remove();
      node->Install(events_);
      events_->may_discard = !events_->may_discard;
    }
  });
  for (std::thread& writer : writers) writer.join();
  stop = true;
  worker.join();
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(events_->mapped(), 0u);
  events_->may_discard = true;
  Connection c(Path("a.db"));
  EXPECT_EQ(c.Text("SELECT count(*) FROM t"), std::to_string(kWriters * kCommits));
  EXPECT_EQ(c.Text("PRAGMA integrity_check"), "ok");
}

TEST_F(Threads, FirstAndLastOfOnePathNeverOverlap) {
  std::atomic<int> inside = 0;
  std::atomic<int> overlaps = 0;
  std::atomic<int> balance = 0;
  Host().first_opened = [&](Node&) {
    if (inside.fetch_add(1) != 0) ++overlaps;
    if (balance.fetch_add(1) != 0) ++overlaps;
    inside.fetch_sub(1);
    return Status::Ok();
  };
  Host().last_closing = [&](Node&) {
    if (inside.fetch_add(1) != 0) ++overlaps;
    if (balance.fetch_sub(1) != 1) ++overlaps;
    inside.fetch_sub(1);
  };
  OpenWal().Close();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this] {
      for (int i = 0; i < 50; ++i) {
        Connection c(Path("a.db"));
        sqlite3_busy_timeout(c.db(), 60'000);
        EXPECT_EQ(c.Text("SELECT count(*) FROM t"), "0");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(overlaps, 0);
  EXPECT_EQ(balance, 0);
  EXPECT_EQ(FindNodeByPath(Path("a.db")), nullptr);
}

}  // namespace
}  // namespace guildlite::testing
