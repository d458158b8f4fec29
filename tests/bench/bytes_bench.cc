// Bytes shipped for one-row transactions, one object each, on a moderation-bot-like table of
// 200,000 rows with two indices (a log of moderated messages: ids, times, a sentence of a
// vocabulary where few words are common and most are rare), against every changed page compressed
// by itself with LZ4 (what a file of page-wise compressed transactions takes: 131 bytes a file and
// 10 a page besides).

#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <lz4.h>
#include <sqlite3.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>
#include <vector>

#include "vfs/base/checksum.h"
#include "vfs/base/file_io.h"
#include "vfs/capture/wal_tailer.h"
#include "vfs/format/segment_writer.h"

namespace guildlite::bench {
namespace {

namespace fs = std::filesystem;

void Exec(sqlite3* db, const char* sql) {
  if (sqlite3_exec(db, sql, nullptr, nullptr, nullptr) != SQLITE_OK) std::abort();
}

// Sentences: word w of the vocabulary has a weight of about 1/w, as words of a language do.
class Sentences {
 public:
  explicit Sentences(std::mt19937_64& random) : random_(random) {
    static constexpr const char* kSyllables[] = {
        "ba", "con", "der", "el",  "fri", "gu",  "han", "il", "ju",  "ka", "lo", "men",
        "no", "op",  "per", "qua", "ri",  "sta", "tu",  "un", "ver", "wo", "xi", "yo"};
    for (int w = 0; w < 5000; ++w) {
      std::string word;
      for (uint64_t n = 1 + random_() % 4; n > 0; --n) word += kSyllables[random_() % 24];
      words_.push_back(word);
    }
  }
  std::string Next() {
    std::string text;
    for (uint64_t n = 3 + random_() % 18; n > 0; --n) {
      const double u = static_cast<double>(random_() >> 11) / 9007199254740992.0;
      text += words_[static_cast<size_t>(std::pow(5000.0, u)) - 1];
      text += ' ';
    }
    return text;
  }

 private:
  std::mt19937_64& random_;
  std::vector<std::string> words_;
};

struct Bytes {
  double ours = 0;
  double lz4 = 0;
  double pages = 0;
  int64_t transactions = 0;
};

constexpr char kInsert[] =
    "INSERT INTO m(guild, author, at, body) VALUES(CAST(100000000000000000 + ?1 % 400 AS TEXT),"
    " CAST(200000000000000000 + ?1 % 20000 AS TEXT), ?2, ?3)";
constexpr char kUpdate[] = "UPDATE m SET at = ?2, body = ?3 WHERE id = 1 + ?1 % 200000";

Bytes Measure(const char* statement_sql, int commits) {
  std::string directory = (fs::temp_directory_path() / "guildlite-bytes-XXXXXX").string();
  if (!::mkdtemp(directory.data())) std::abort();
  const std::string path = directory + "/app.db";
  sqlite3* db = nullptr;
  if (sqlite3_open(path.c_str(), &db) != SQLITE_OK) std::abort();
  Exec(db,
       "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=0;"
       "CREATE TABLE m(id INTEGER PRIMARY KEY, guild TEXT, author TEXT, at INT, body TEXT);"
       "CREATE INDEX m_guild ON m(guild, at); CREATE INDEX m_author ON m(author); BEGIN");
  std::mt19937_64 random(11);
  Sentences sentences(random);
  const auto step = [](sqlite3_stmt* s, int64_t n, int64_t at, const std::string& body) {
    sqlite3_bind_int64(s, 1, n);
    sqlite3_bind_int64(s, 2, at);
    sqlite3_bind_text(s, 3, body.data(), static_cast<int>(body.size()), SQLITE_TRANSIENT);
    if (sqlite3_step(s) != SQLITE_DONE) std::abort();
    sqlite3_reset(s);
  };
  sqlite3_stmt* fill = nullptr;
  if (sqlite3_prepare_v2(db, kInsert, -1, &fill, nullptr) != SQLITE_OK) std::abort();
  for (int i = 0; i < 200000; ++i) {
    step(fill, static_cast<int64_t>(random() >> 2), 1700000000 + i, sentences.Next());
  }
  sqlite3_finalize(fill);
  Exec(db, "COMMIT; PRAGMA wal_checkpoint(TRUNCATE)");
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v2(db, statement_sql, -1, &statement, nullptr) != SQLITE_OK) std::abort();
  for (int i = 0; i < commits; ++i) {
    step(statement, static_cast<int64_t>(random() >> 2), 1800000000 + i, sentences.Next());
  }
  // The database file is as before the commits: their bases.
  auto database = File::Open(path, O_RDONLY);
  auto wal = File::Open(path + "-wal", O_RDONLY);
  if (!database.ok() || !wal.ok()) std::abort();
  WalTailer tailer(*wal);
  const uint32_t page_size = tailer.ReadHeader()->page_size;
  WalMark at = WalTailer::Start(*tailer.ReadHeader());
  std::map<uint32_t, std::vector<std::byte>> newest;
  std::vector<char> compressed(static_cast<size_t>(LZ4_compressBound(static_cast<int>(page_size))));
  Bytes bytes;
  uint64_t history = 1;
  for (;;) {
    auto next = tailer.Next(at, std::nullopt);
    if (!next.ok() || next->end != WalTailer::End::kTransaction) break;
    const WalTransaction& w = next->transaction;
    at = w.end;
    Transaction t;
    t.txid = Txid(static_cast<uint64_t>(++bytes.transactions));
    t.mark = w.end;
    t.time_ms = 1700000000000 + bytes.transactions;
    t.database_pages = w.database_pages;
    t.rolling_known = true;
    t.rolling_checksum = random();
    HistoryHash hash(history, t.txid, t.database_pages);
    for (const FrameRef& ref : w.pages) hash.Add(ref.pgno, ref.hash);
    t.history_hash = history = hash.Finish();
    BatchWriter writer(BatchWriter::Settings{.page_size = page_size});
    writer.BeginTransaction(t);
    bytes.lz4 += 131;
    for (size_t i = 0; i < w.pages.size(); ++i) {
      const Pgno pgno = w.pages[i].pgno;
      const auto image = std::span(w.images).subspan(i * page_size, page_size);
      writer.AddPage(pgno, w.pages[i].hash, image, [&](std::span<std::byte> out) {
        if (const auto it = newest.find(pgno.value); it != newest.end()) {
          std::copy(it->second.begin(), it->second.end(), out.begin());
          return true;
        }
        auto n = database->ReadAt(uint64_t{pgno.value - 1} * page_size, out);
        return n.ok() && *n == out.size();
      });
      newest[pgno.value].assign(image.begin(), image.end());
      bytes.lz4 += 10 + LZ4_compress_default(reinterpret_cast<const char*>(image.data()),
                                             compressed.data(), static_cast<int>(page_size),
                                             static_cast<int>(compressed.size()));
      bytes.pages += 1;
    }
    writer.EndTransaction();
    ObjectHeader header;
    header.lineage = Lineage(random());
    header.session = Session(random());
    header.epoch = Epoch(1);
    header.slot = header.last_slot = Slot(static_cast<uint64_t>(bytes.transactions) + 1);
    header.first_txid = header.last_txid = header.continues_from = t.txid;
    header.time_ms = t.time_ms;
    header.page_size = page_size;
    header.database_pages = t.database_pages;
    header.mark = t.mark;
    header.history_hash = t.history_hash;
    header.rolling_known = true;
    header.rolling_checksum = t.rolling_checksum;
    header.previous_hash = random();
    bytes.ours += static_cast<double>(EncodeObject(header, writer.Seal()).size());
  }
  sqlite3_finalize(statement);
  sqlite3_close(db);
  fs::remove_all(directory);
  return bytes;
}

void Report(benchmark::State& state, const char* sql) {
  Bytes bytes;
  for (auto _ : state) bytes = Measure(sql, 2000);
  const auto n = static_cast<double>(bytes.transactions);
  state.counters["bytes_per_transaction"] = bytes.ours / n;
  state.counters["lz4_per_transaction"] = bytes.lz4 / n;
  state.counters["pages_per_transaction"] = bytes.pages / n;
  state.counters["lz4_over_ours"] = bytes.lz4 / bytes.ours;
}

void BM_BytesPerOneRowInsert(benchmark::State& state) { Report(state, kInsert); }
BENCHMARK(BM_BytesPerOneRowInsert)->Iterations(1)->Unit(benchmark::kSecond);

void BM_BytesPerOneRowUpdate(benchmark::State& state) { Report(state, kUpdate); }
BENCHMARK(BM_BytesPerOneRowUpdate)->Iterations(1)->Unit(benchmark::kSecond);

}  // namespace
}  // namespace guildlite::bench
