// Makes the golden WALs of this folder with the SQLite it is linked with. By hand, from the root:
//
//   g++ -std=c++20 -Iinclude -I. tests/data/wal/make_golden_wals.cc vfs/base/checksum.cc
//       -lsqlite3 -o /tmp/make_golden_wals && /tmp/make_golden_wals tests/data/wal
//
// Those in the tree were made by SQLite 3.40.1: the broken_ ones need a version with the bug.
//
// NAME.db   the database file as it was before the first frame of the WAL
// NAME.wal  the -wal file, copied while the connection was open
// NAME.txt  page_size N
//           recovers K    transactions that a stock SQLite finds in NAME.db and NAME.wal
//           transaction END_FRAME DATABASE_PAGES CKSUM1 CKSUM2 CONTENT
//           page PGNO HASH    each page that is new or other than before the transaction
//
// Nothing here follows a WAL. END_FRAME, DATABASE_PAGES and the checksums are what SQLite published
// in the wal-index; the content after each transaction is read by a second connection. In EXCLUSIVE
// mode, which has no wal-index in a file and admits no second connection: from the last frame of
// the file, and by a stock SQLite from a copy of both files. CONTENT is the sum of the page hashes.
#include <sqlite3.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"

namespace {

using guildlite::AsBytes;
using guildlite::LoadBig32;
using guildlite::Pgno;

void Require(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "make_golden_wals: %s\n", what.c_str());
  std::exit(1);
}

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void WriteFile(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<long>(bytes.size()));
}

sqlite3* Open(const std::string& uri) {
  sqlite3* db = nullptr;
  Require(sqlite3_open_v2(uri.c_str(), &db,
                          SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI,
                          nullptr) == SQLITE_OK,
          "open " + uri);
  return db;
}

void Exec(sqlite3* db, const std::string& sql) {
  char* error = nullptr;
  const int rc = sqlite3_exec(db, sql.c_str(), nullptr, nullptr, &error);
  Require(rc == SQLITE_OK, sql + ": " + (error ? error : ""));
}

std::string Serialize(sqlite3* db) {
  sqlite3_int64 size = 0;
  unsigned char* bytes = sqlite3_serialize(db, "main", &size, 0);
  Require(bytes != nullptr, "serialize");
  std::string content(reinterpret_cast<char*>(bytes), static_cast<size_t>(size));
  sqlite3_free(bytes);
  return content;
}

// What a stock SQLite makes of these two files alone.
std::string Recover(const std::string& db_bytes, const std::string& wal_bytes) {
  const std::string path = "/tmp/golden-recover.db";
  for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path + suffix);
  WriteFile(path, db_bytes);
  WriteFile(path + "-wal", wal_bytes);
  sqlite3* db = Open("file:" + path);
  Exec(db, "SELECT * FROM sqlite_schema");
  const std::string content = Serialize(db);
  sqlite3_close(db);
  return content;
}

struct Step {
  uint32_t end_frame = 0;
  uint32_t cksum1 = 0, cksum2 = 0;
  std::string content;
};

class Golden {
 public:
  Golden(std::string name, uint32_t page_size, const std::string& parameters = "")
      : name_(std::move(name)), page_size_(page_size), path_("/tmp/golden.db") {
    for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path_ + suffix);
    db_ = Open("file:" + path_ + parameters);
    Run("PRAGMA page_size=" + std::to_string(page_size));
  }
  ~Golden() {
    sqlite3_close(reader_);
    sqlite3_close(db_);
  }

  // Outside the WAL that is kept, or part of a transaction that Commit() ends.
  void Run(const std::string& sql) { Exec(db_, sql); }

  // The WAL is empty from here; the file is the whole database.
  void Begin(const std::string& checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)") {
    Run("PRAGMA journal_mode=WAL");
    Run("PRAGMA wal_autocheckpoint=0");
    Run(checkpoint);
    base_ = ReadFile(path_);
    steps_.clear();
  }
  void Exclusive() { exclusive_ = true; }

  // Runs `sql`, which commits exactly one transaction.
  void Commit(const std::string& sql) {
    Run(sql);
    Step step;
    if (exclusive_) {  // no wal-index in a file; nothing stale lies beyond the last frame
      const std::string wal = ReadFile(path_ + "-wal");
      step.end_frame = static_cast<uint32_t>((wal.size() - 32) / (24 + page_size_));
      const char* last = wal.data() + wal.size() - page_size_ - 24;
      step.cksum1 = LoadBig32(last + 16);
      step.cksum2 = LoadBig32(last + 20);
      step.content = Recover(ReadFile(path_), wal);
    } else {
      if (!reader_) reader_ = Open("file:" + path_);
      const std::string shm = ReadFile(path_ + "-shm");  // WalIndexHdr in wal.c, native integers
      std::memcpy(&step.end_frame, shm.data() + 16, 4);
      std::memcpy(&step.cksum1, shm.data() + 24, 4);
      std::memcpy(&step.cksum2, shm.data() + 28, 4);
      uint32_t database_pages;
      std::memcpy(&database_pages, shm.data() + 20, 4);
      step.content = Serialize(reader_);
      Require(step.content.size() == uint64_t{database_pages} * page_size_, "size of the content");
    }
    const uint32_t before = steps_.empty() ? 0 : steps_.back().end_frame;
    Require(step.end_frame > before, name_ + ": nothing was committed by " + sql);
    steps_.push_back(step);
  }

  // Writes the three files; `change` may damage the WAL first. `recovers`: checked, -1 for all.
  void Save(const std::string& folder, int recovers = -1,
            const std::function<void(std::string*)>& change = nullptr) {
    std::string wal = ReadFile(path_ + "-wal");
    Require(ReadFile(path_) == base_, name_ + ": the database file changed under the WAL");
    if (change) change(&wal);
    std::string content = Recover(base_, wal);
    size_t recovered = steps_.size();
    while (recovered > 0 && steps_[recovered - 1].content != content) --recovered;
    Require(recovered > 0 || content == base_, name_ + ": recovered to no known content");
    Require(recovers < 0 ? recovered == steps_.size() : recovered == static_cast<size_t>(recovers),
            name_ + ": recovers " + std::to_string(recovered));

    std::ostringstream out;
    out << "page_size " << page_size_ << "\nrecovers " << recovered << "\n";
    const std::string* previous = &base_;
    for (const Step& step : steps_) {
      uint64_t sum = 0;
      std::ostringstream pages;
      for (size_t at = 0; at < step.content.size(); at += page_size_) {
        const auto page = std::string_view(step.content).substr(at, page_size_);
        const Pgno pgno(static_cast<uint32_t>(at / page_size_ + 1));
        const uint64_t hash = guildlite::PageHash(pgno, AsBytes(page));
        sum += hash;
        if (at >= previous->size() || page != std::string_view(*previous).substr(at, page_size_)) {
          pages << "page " << pgno.value << " " << std::hex << hash << std::dec << "\n";
        }
      }
      out << "transaction " << step.end_frame << " " << step.content.size() / page_size_ << " "
          << std::hex << step.cksum1 << " " << step.cksum2 << " " << sum << std::dec << "\n"
          << pages.str();
      previous = &step.content;
    }
    WriteFile(folder + "/" + name_ + ".db", base_);
    WriteFile(folder + "/" + name_ + ".wal", wal);
    WriteFile(folder + "/" + name_ + ".txt", out.str());
    std::printf("%-24s %2zu transactions, %2zu recovered, %zu frames\n", name_.c_str(),
                steps_.size(), recovered, (wal.size() - 32) / (24 + page_size_));
  }

  void Rename(std::string name) { name_ = std::move(name); }
  std::vector<Step>& steps() { return steps_; }
  uint32_t page_size() const { return page_size_; }

 private:
  std::string name_;
  uint32_t page_size_;
  std::string path_;
  sqlite3* db_ = nullptr;
  sqlite3* reader_ = nullptr;
  bool exclusive_ = false;
  std::string base_;
  std::vector<Step> steps_;
};

// `rows` rows of `size` bytes into t.
std::string Insert(int rows, int size) {
  return "INSERT INTO t(b) SELECT randomblob(" + std::to_string(size) +
         ") FROM (WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<" +
         std::to_string(rows) + ") SELECT x FROM c)";
}

void Put32(std::string* bytes, size_t at, uint32_t value) {
  for (int i = 0; i < 4; ++i) (*bytes)[at + i] = static_cast<char>(value >> (24 - 8 * i));
}

// walChecksumBytes() over big-endian words, written here again.
void Sum(uint32_t s[2], const std::string& bytes, size_t at, size_t size) {
  for (size_t i = at; i < at + size; i += 8) {
    s[0] += LoadBig32(&bytes[i]) + s[1];
    s[1] += LoadBig32(&bytes[i + 4]) + s[0];
  }
}

constexpr const char* kTable = "CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)";

}  // namespace

int main(int argc, char** argv) {
  Require(argc == 2, "usage: make_golden_wals FOLDER");
  const std::string folder = argv[1];
  std::printf("SQLite %s\n", sqlite3_libversion());

  for (const uint32_t page_size : {512u, 1024u, 65536u}) {
    Golden g("pages_" + std::to_string(page_size), page_size);
    g.Run(kTable);
    g.Begin();
    const int size = static_cast<int>(page_size / 3);
    g.Commit(Insert(2, size));
    if (page_size < 65536)
      g.Commit("BEGIN; CREATE TABLE u(x); INSERT INTO t(b) VALUES (zeroblob(9)); COMMIT");
    if (page_size < 65536) g.Commit(Insert(12, size));
    g.Commit("UPDATE t SET b = randomblob(10) WHERE a = 1");
    g.Save(folder);
  }
  {
    Golden g("spill", 1024);
    g.Run(kTable);
    g.Begin();
    g.Run("PRAGMA cache_size=4; CREATE INDEX i ON t(b)");
    g.Begin();
    g.Commit(Insert(4, 100));
    g.Run("BEGIN");
    g.Run(Insert(60, 200));
    g.Run("UPDATE t SET b = randomblob(150) WHERE a % 3 = 0");  // spilled pages again
    g.Commit("COMMIT");
    g.Commit("DELETE FROM t WHERE a % 2 = 0");
    g.Save(folder);
  }
  {
    Golden g("savepoints", 1024);
    g.Run(kTable);
    g.Begin();
    g.Commit(Insert(10, 300));
    g.Run("BEGIN; SAVEPOINT one");
    g.Run(Insert(5, 400));
    g.Run("SAVEPOINT two; DELETE FROM t; ROLLBACK TO two; RELEASE two");
    g.Commit("RELEASE one; COMMIT");
    g.Run("BEGIN");
    g.Run(Insert(3, 100));
    g.Run("ROLLBACK");
    g.Commit(Insert(1, 10));
    g.Save(folder);

    // SQLite writes the machine's own byte order only: the same WAL with the other one.
    g.Rename("big_endian");
    g.Save(folder, -1, [&](std::string* wal) {
      Put32(wal, 0, 0x377f0683);
      uint32_t s[2] = {0, 0};
      Sum(s, *wal, 0, 24);
      Put32(wal, 24, s[0]);
      Put32(wal, 28, s[1]);
      uint32_t frame = 0;
      for (size_t at = 32; at < wal->size(); at += 24 + g.page_size()) {
        Sum(s, *wal, at, 8);
        Sum(s, *wal, at + 24, g.page_size());
        Put32(wal, at + 16, s[0]);
        Put32(wal, at + 20, s[1]);
        ++frame;
        for (Step& step : g.steps()) {
          if (step.end_frame == frame) step.cksum1 = s[0], step.cksum2 = s[1];
        }
      }
    });
  }
  {
    // sqlite.org/forum/forumpost/b490f726db: after the rollback, iReCksum of wal.c lies beyond the
    // frames the commit writes, so none of them gets salts or a checksum.
    Golden g("broken_chain", 1024);
    g.Run(kTable);
    g.Run("CREATE TABLE u(x)");
    g.Run(Insert(60, 200));
    g.Begin();
    g.Run("PRAGMA cache_size=4");
    g.Commit(Insert(2, 50));
    const auto spill_and_roll_back = [&] {
      g.Run("BEGIN; INSERT INTO u VALUES ('before'); SAVEPOINT s");
      g.Run("UPDATE t SET b = randomblob(200) WHERE a <= 60");
      g.Run("UPDATE t SET b = randomblob(200) WHERE a > 35");
      g.Run("ROLLBACK TO s");
    };
    spill_and_roll_back();
    g.Commit("COMMIT");
    g.Commit("UPDATE t SET b = 'after' WHERE a = 5");
    // More frames than were rolled back: the pass seals the last of them, from a false start.
    spill_and_roll_back();
    g.Run("UPDATE t SET b = randomblob(210)");
    g.Commit("COMMIT");
    g.Commit("UPDATE t SET b = 'last' WHERE a = 50");
    g.Save(folder, 1);
  }
  {
    // The same with pages that the rollback takes back altogether: the commit is far shorter than
    // what was spilled, the pass finds nothing to do, and the commit frame itself stays unsealed.
    Golden g("broken_commit", 1024);
    g.Run(kTable);
    g.Run("CREATE TABLE u(x)");
    g.Begin();
    g.Run("PRAGMA cache_size=4");
    g.Commit(Insert(2, 50));
    for (int i = 0; i < 2; ++i) {
      g.Run("BEGIN; INSERT INTO u VALUES ('before'); SAVEPOINT s");
      g.Run(Insert(60, 400));
      g.Run("UPDATE t SET b = zeroblob(400) WHERE a BETWEEN 50 AND 55; ROLLBACK TO s");
      g.Commit("COMMIT");
      g.Commit("INSERT INTO u VALUES ('after')");
    }
    g.Save(folder, 1);
  }
  {
    Golden g("rolled_back_spill", 1024);
    g.Run(kTable);
    g.Run(Insert(40, 200));
    g.Begin();
    g.Run("PRAGMA cache_size=4");
    g.Commit(Insert(2, 50));
    g.Run("BEGIN; UPDATE t SET b = randomblob(200); ROLLBACK");  // overwritten by the next two
    g.Commit("UPDATE t SET b = 'x' WHERE a = 3");
    g.Commit("UPDATE t SET b = 'y' WHERE a = 30");
    g.Run("BEGIN; UPDATE t SET b = randomblob(200); ROLLBACK");  // left at the end
    g.Save(folder);
  }
  {
    Golden g("padding", 512, "?psow=0");  // the commit frame is repeated to a sector of 4096
    g.Run(kTable);
    g.Begin();
    g.Run("PRAGMA synchronous=FULL");
    g.Commit(Insert(2, 100));
    g.Commit(Insert(20, 100));
    g.Commit("DELETE FROM t WHERE a < 5");
    g.Commit("UPDATE t SET b = 'z' WHERE a = 7");
    g.Save(folder);
  }
  {
    Golden g("vacuum", 512);
    g.Run(kTable);
    g.Run(Insert(60, 200));
    g.Run("DELETE FROM t WHERE a % 3 <> 0");
    g.Begin();
    g.Commit(Insert(3, 200));
    g.Commit("VACUUM");
    g.Commit(Insert(1, 200));
    g.Save(folder);
  }
  {
    Golden g("shrink_full", 512);
    g.Run("PRAGMA auto_vacuum=FULL");
    g.Run(kTable);
    g.Run(Insert(60, 200));
    g.Begin();
    g.Run("PRAGMA cache_size=4");
    g.Commit("DELETE FROM t WHERE a > 40");
    g.Run("BEGIN");
    g.Run(Insert(40, 200));  // spilled beyond the size it will have
    g.Commit("DELETE FROM t WHERE a > 10; COMMIT");
    g.Commit(Insert(2, 200));
    g.Save(folder);
  }
  {
    Golden g("shrink_incremental", 512);
    g.Run("PRAGMA auto_vacuum=INCREMENTAL");
    g.Run(kTable);
    g.Run(Insert(60, 200));
    g.Begin();
    g.Commit("DELETE FROM t WHERE a BETWEEN 10 AND 50");
    g.Commit("PRAGMA incremental_vacuum(7)");
    g.Commit("PRAGMA incremental_vacuum");
    g.Commit(Insert(1, 200));
    g.Save(folder);
  }
  {
    Golden g("stale_after_restart", 1024);
    g.Run(kTable);
    g.Begin();
    g.Run(Insert(40, 200));
    for (int i = 0; i < 6; ++i) g.Run("UPDATE t SET b = randomblob(20) WHERE a = 1");
    g.Begin("PRAGMA wal_checkpoint(RESTART)");  // the WAL keeps its size and its old frames
    g.Commit("UPDATE t SET b = 'new' WHERE a = 2");
    g.Commit(Insert(3, 200));
    g.Save(folder);
  }
  {
    Golden g("exclusive", 1024);
    g.Run("PRAGMA locking_mode=EXCLUSIVE");
    g.Exclusive();
    g.Run(kTable);
    g.Begin();
    g.Commit(Insert(5, 300));
    g.Commit("UPDATE t SET b = 'x' WHERE a = 3");
    g.Commit(Insert(1, 30));
    g.Save(folder);
  }
  {
    Golden g("torn_tail", 1024);
    g.Run(kTable);
    g.Begin();
    g.Commit(Insert(5, 300));
    g.Commit("UPDATE t SET b = 'x' WHERE a = 3");
    g.Run(Insert(10, 300));  // its last frame is cut in the middle of the page
    g.Save(folder, 2, [](std::string* wal) { wal->resize(wal->size() - 500); });
  }
}
