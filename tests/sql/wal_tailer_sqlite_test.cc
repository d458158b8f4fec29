// WalTailer against a real SQLite: random work, and after every commit the state rebuilt from what
// the tailer delivered must be, page by page, what a second connection reads.
//
// A copy of database and WAL taken at any commit ("crash copy") must be recovered by the tailer
// without a bound to exactly what a stock SQLite recovers from it. Whether that is also what the
// living connection had committed is another question: versions before the fix lose transactions
// after spill + ROLLBACK TO (sqlite.org/forum/forumpost/b490f726db), so a crash copy of a
// generation in which the tailer met a broken chain is not held against the living content.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <cstring>
#include <filesystem>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "tests/support/wal_builder.h"
#include "vfs/base/bytes.h"
#include "vfs/base/file_io.h"
#include "vfs/capture/wal_tailer.h"

namespace guildlite {
namespace {

using End = WalTailer::End;

struct Connection {
  explicit Connection(const std::string& uri) {
    EXPECT_EQ(
        sqlite3_open_v2(uri.c_str(), &db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, nullptr),
        SQLITE_OK);
  }
  Connection(const Connection&) = delete;
  ~Connection() { sqlite3_close(db); }
  void Run(const std::string& sql) {
    char* error = nullptr;
    EXPECT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, &error), SQLITE_OK)
        << sql << ": " << (error ? error : "");
    sqlite3_free(error);
  }
  std::string Content() {
    sqlite3_int64 size = 0;
    unsigned char* bytes = sqlite3_serialize(db, "main", &size, 0);
    EXPECT_NE(bytes, nullptr);
    std::string content(reinterpret_cast<char*>(bytes), bytes ? static_cast<size_t>(size) : 0);
    sqlite3_free(bytes);
    return content;
  }
  sqlite3* db = nullptr;
};

// The wal-index header (WalIndexHdr in wal.c). The descriptor stays open until the process ends:
// close(2) would drop the locks that SQLite holds on the file.
class WalIndex {
 public:
  explicit WalIndex(const std::string& path) {
    static auto* const descriptors = new std::vector<File>;
    auto file = File::Open(path, O_RDONLY);
    EXPECT_TRUE(file.ok()) << file.status().ToString();
    if (!file.ok()) return;
    descriptors->push_back(*std::move(file));
    void* p = ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, descriptors->back().fd(), 0);
    if (p != MAP_FAILED) header_ = static_cast<const char*>(p);
    EXPECT_NE(header_, nullptr);
  }
  WalIndex(const WalIndex&) = delete;
  ~WalIndex() {
    if (header_) ::munmap(const_cast<char*>(header_), 4096);
  }
  Published Read() const {
    EXPECT_EQ(std::memcmp(header_, header_ + 48, 48), 0);
    return {LoadBig32(header_ + 32),
            LoadBig32(header_ + 36),
            Native(16),
            Native(20),
            Native(24),
            Native(28)};
  }

 private:
  uint32_t Native(size_t offset) const {
    uint32_t value;
    std::memcpy(&value, header_ + offset, 4);
    return value;
  }
  const char* header_ = nullptr;
};

// A database rebuilt from delivered transactions.
struct Rebuilt {
  uint32_t page_size = 0;
  std::string content;

  void Apply(const WalTailer& tailer, const WalTransaction& t) {
    content.resize(uint64_t{t.database_pages} * page_size);
    std::vector<std::byte> page(page_size);
    for (size_t i = 0; i < t.pages.size(); ++i) {
      const FrameRef& p = t.pages[i];
      if (t.images.empty()) {
        const Status read = tailer.ReadPage(p.frame, page_size, page);
        ASSERT_TRUE(read.ok()) << read.ToString();
      } else {
        std::memcpy(page.data(), &t.images[i * page_size], page_size);
      }
      ASSERT_EQ(PageHash(p.pgno, page), p.hash);
      content.replace(uint64_t{p.pgno.value - 1} * page_size, page_size, AsText(page));
    }
  }
  // The first page that differs; 0 if none.
  uint32_t Difference(const std::string& other) const {
    for (size_t at = 0; at < std::max(content.size(), other.size()); at += page_size) {
      if (at >= content.size() || at >= other.size() ||
          content.compare(at, page_size, other, at, page_size) != 0) {
        return static_cast<uint32_t>(at / page_size) + 1;
      }
    }
    return 0;
  }
};

class Workload {
 public:
  Workload(uint64_t seed, std::string folder)
      : random_(seed), folder_(std::move(folder)), path_(folder_ + "/app.db") {
    const uint32_t sizes[] = {512, 512, 1024, 1024, 2048, 4096, 4096, 65536};
    rebuilt_.page_size = sizes[Below(8)];
    writer_.emplace("file:" + path_ + (Chance(25) ? "?psow=0" : ""));
    Run("PRAGMA page_size=" + std::to_string(rebuilt_.page_size));
    Run("PRAGMA auto_vacuum=" + std::to_string(Below(3)));
    Run("CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB); CREATE INDEX i ON t(substr(b, 1, 20))");
    Run("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0");
    Run(Chance(50) ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL");
    Run(Chance(30) ? "PRAGMA secure_delete=ON" : "PRAGMA secure_delete=OFF");
    Run(Insert(5));
    Run("PRAGMA wal_checkpoint(TRUNCATE)");
    reader_.emplace("file:" + path_);
    rebuilt_.content = reader_->Content();
    index_.emplace(path_ + "-shm");
    wal_ = *File::Open(path_ + "-wal", O_RDONLY);
    tailer_.emplace(wal_);
  }

  void RunSteps(int steps) {
    while (steps-- > 0 && !::testing::Test::HasFailure()) {
      Run("PRAGMA cache_size=" + std::to_string(Chance(60) ? 2 + Below(8) : 500));
      const unsigned kind = Below(100);
      if (kind < 45) {
        Run(Statement());
      } else if (kind < 80) {
        SavepointTransaction();
      } else if (kind < 86) {
        Run("VACUUM");
      } else if (kind < 92) {
        Run("PRAGMA incremental_vacuum(" + std::to_string(Below(9)) + ")");
      } else if (kind < 93) {
        Run(Insert(400));
      } else {
        // Several commits between two looks. The first may have reset the WAL.
        Run(Statement());
        CatchUp();
        for (unsigned n = Below(6); n > 0; --n) {
          Chance(50) ? Run(Statement()) : SavepointTransaction();
        }
      }
      CatchUp();
      Compare();
      if (Chance(15)) CompareCrashCopies();
      if (Chance(20)) {
        const char* modes[] = {"PASSIVE", "FULL", "RESTART", "TRUNCATE"};
        Run(std::string("PRAGMA wal_checkpoint(") + modes[Below(4)] + ")");
        CatchUp();
        Compare();
      }
    }
  }
  uint64_t chain_breaks() const { return tailer_->chain_breaks(); }
  uint64_t transactions() const { return transactions_; }

 private:
  unsigned Below(unsigned n) { return static_cast<unsigned>(random_() % n); }
  bool Chance(unsigned percent) { return Below(100) < percent; }
  void Run(const std::string& sql) { writer_->Run(sql); }

  std::string Insert(unsigned rows) {
    return "INSERT INTO t(b) SELECT randomblob(" +
           std::to_string(1 + Below(Chance(20) ? 6000 : 400)) +
           ") FROM (WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<" +
           std::to_string(rows) + ") SELECT x FROM c);";
  }
  std::string Range() {
    const unsigned low = Below(100);
    return " WHERE a BETWEEN (SELECT ifnull(max(a),0) FROM t)*" + std::to_string(low) +
           "/100 AND (SELECT ifnull(max(a),0) FROM t)*" +
           std::to_string(low + Below(101 - low) + 1) + "/100;";
  }
  std::string Statement() {
    switch (Below(10)) {
      case 0:
      case 1:
      case 2:
        return Insert(1 + Below(60));
      case 3:
      case 4:
      case 5:
      case 6:
        return "UPDATE t SET b=randomblob(" + std::to_string(Below(500)) + ")" + Range();
      case 7:
      case 8:
        return "DELETE FROM t" + Range();
      default:
        return "DROP TABLE IF EXISTS u; CREATE TABLE u(x); INSERT INTO u SELECT b FROM t" + Range();
    }
  }
  void SavepointTransaction() {
    Run("BEGIN");
    int depth = 0;
    for (unsigned n = 1 + Below(8); n > 0; --n) {
      const unsigned kind = Below(10);
      if (kind < 3 && depth < 3) {
        Run("SAVEPOINT s" + std::to_string(++depth));
      } else if (kind < 6 && depth > 0) {
        Run("ROLLBACK TO s" + std::to_string(depth));
      } else if (kind < 7 && depth > 0) {
        Run("RELEASE s" + std::to_string(depth--));
      } else {
        Run(Statement());
      }
    }
    Run(Chance(85) ? "COMMIT" : "ROLLBACK");
  }

  // Everything published since the last time.
  void CatchUp() {
    const Published published = index_->Read();
    if (published.max_frame == 0) return;  // reset; the file may still have the old header
    if (published.salt1 != mark_.salt1 || published.salt2 != mark_.salt2) {
      auto header = tailer_->ReadHeader();
      ASSERT_TRUE(header.ok()) << header.status().ToString();
      mark_ = WalTailer::Start(*header);
      breaks_before_ = tailer_->chain_breaks();
    }
    for (;;) {
      auto outcome = tailer_->Next(mark_, published);
      ASSERT_TRUE(outcome.ok()) << outcome.status().ToString();
      mark_ = outcome->mark;
      if (outcome->end != End::kTransaction) {
        ASSERT_EQ(outcome->end, End::kBound);
        break;
      }
      rebuilt_.Apply(*tailer_, outcome->transaction);
      ++transactions_;
    }
    ASSERT_EQ(mark_, (WalMark{published.salt1, published.salt2, published.max_frame,
                              published.cksum1, published.cksum2}));
    ASSERT_TRUE(*tailer_->Contains(mark_));
  }
  void Compare() { ASSERT_EQ(rebuilt_.Difference(reader_->Content()), 0u); }

  void CompareCrashCopies() {
    const std::string copy = folder_ + "/copy.db";
    std::filesystem::remove(copy + "-shm");
    for (const char* suffix : {"", "-wal"}) {
      // Closing the copied database drops this process's locks on it. Writer and reader are idle,
      // nobody else knows the file, and among themselves they keep count without the kernel.
      std::filesystem::copy_file(path_ + suffix, copy + suffix,
                                 std::filesystem::copy_options::overwrite_existing);
    }
    Rebuilt recovered{rebuilt_.page_size, *ReadWholeFile(copy)};
    {
      const File wal = *File::Open(copy + "-wal", O_RDONLY);
      WalTailer tailer(wal);
      if (auto header = tailer.ReadHeader(); header.ok()) {
        WalMark mark = WalTailer::Start(*header);
        for (;;) {
          auto outcome = tailer.Next(mark, std::nullopt);
          ASSERT_TRUE(outcome.ok()) << outcome.status().ToString();
          if (outcome->end != End::kTransaction) break;
          recovered.Apply(tailer, outcome->transaction);
          mark = outcome->mark;
        }
      }
    }
    Connection stock("file:" + copy);
    ASSERT_EQ(recovered.Difference(stock.Content()), 0u);
    if (tailer_->chain_breaks() == breaks_before_) {
      ASSERT_EQ(recovered.Difference(rebuilt_.content), 0u);
    }
  }

  std::mt19937_64 random_;
  std::string folder_, path_;
  std::optional<Connection> writer_, reader_;
  std::optional<WalIndex> index_;
  File wal_;
  std::optional<WalTailer> tailer_;
  WalMark mark_;
  uint64_t breaks_before_ = 0;  // in earlier generations
  uint64_t transactions_ = 0;
  Rebuilt rebuilt_;
};

TEST(WalTailerSqlite, RebuildsEveryCommitOfARandomWorkload) {
  const uint64_t seed = testing::TestSeed();
  uint64_t transactions = 0, chain_breaks = 0;
  for (uint64_t round = 0; round < 24 && !HasFailure(); ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    // Where fsync costs nothing: the test is of bytes, not of disks.
    std::string folder =
        std::filesystem::is_directory("/dev/shm") ? "/dev/shm/" : ::testing::TempDir();
    folder += "wal_tailer_XXXXXX";
    ASSERT_NE(::mkdtemp(folder.data()), nullptr);
    {
      Workload workload(seed + round, folder);
      workload.RunSteps(60);
      transactions += workload.transactions();
      chain_breaks += workload.chain_breaks();
    }
    std::filesystem::remove_all(folder);
  }
  std::printf("SQLite %s: %llu transactions, %llu by position\n", sqlite3_libversion(),
              static_cast<unsigned long long>(transactions),
              static_cast<unsigned long long>(chain_breaks));
  EXPECT_GT(transactions, 0u);
}

}  // namespace
}  // namespace guildlite
