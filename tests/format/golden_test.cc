// Objects written once and kept for ever: today's reader must read them, and today's writer must
// still write these very bytes (as long as zstd is the same: its output may change from version to
// version).
//
// A file is never rewritten. A new format version adds files; GUILDLITE_GOLDEN_WRITE=1 writes those
// that are missing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zstd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "tests/support/segment_spec.h"
#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"

namespace guildlite {
namespace {

using namespace guildlite::testing;

constexpr uint64_t kHistoryBefore = 0x5eed5eed5eed5eed;
constexpr unsigned kZstdOfTheFiles = 10504;

struct Golden {
  std::string name;
  ObjectHeader header;
  std::vector<std::string> parts;  // the bytes of header.parts
  std::string inline_body;
  std::vector<IndexEntry> index;
  Images before;
  std::vector<TransactionSpec> history;
  bool check_history = true;

  std::string Object() const { return EncodeObject(header, inline_body, index); }
};

ObjectHeader HeaderOf(ObjectKind kind, uint32_t page_size, const Transaction& first,
                      const Transaction& last) {
  return {.kind = kind,
          .lineage = Lineage(0x0123456789abcdef),
          .epoch = Epoch(2),
          .session = Session(kind == ObjectKind::kData ? 0 : 0x1122334455667788),
          .slot = Slot(kind == ObjectKind::kSnapshot ? 0 : 300),
          .last_slot = Slot(kind == ObjectKind::kSnapshot ? 0 : 300),
          .first_txid = first.txid,
          .last_txid = last.txid,
          .time_ms = last.time_ms,
          .page_size = page_size,
          .database_pages = last.database_pages,
          .mark = last.mark,
          .history_hash = last.history_hash,
          .rolling_checksum = last.rolling_checksum,
          .rolling_known = last.rolling_known,
          .previous_hash = kind == ObjectKind::kSnapshot ? 0 : 0xa1a2a3a4a5a6a7a8,
          .continues_from = last.txid};
}

Images Database(uint32_t page_size, uint32_t pages) {
  Images images;
  for (uint32_t pgno = 1; pgno <= pages; ++pgno) images[pgno] = MakePage(page_size, pgno);
  return images;
}

// The worked example of FORMAT.md: one page of 512 bytes, no base.
Golden Tiny() {
  Golden golden{.name = "tiny"};
  TransactionSpec t;
  t.header = {.mark = {0x11111111, 0x22222222, 1, 0x33333333, 0x44444444},
              .time_ms = 1'800'000'000'000,
              .database_pages = 2,
              .rolling_known = true};
  t.pages.push_back({2, "hello" + std::string(507, '\0')});
  golden.history = {t};
  Chain(&golden.history, Txid(5), kHistoryBefore);
  golden.inline_body = EncodeBatch(golden.history, {}, {.page_size = 512});
  golden.header =
      HeaderOf(ObjectKind::kData, 512, golden.history[0].header, golden.history[0].header);
  return golden;
}

Golden Fence() {
  Golden golden{.name = "fence"};
  Transaction tip{.txid = Txid(77), .time_ms = 1'800'000'000'000, .database_pages = 9};
  golden.header = HeaderOf(ObjectKind::kFence, 4096, tip, tip);
  golden.header.continues_from = Txid(70);
  return golden;
}

// Everything a transaction header can say, growth, shrinking, second versions, several blocks.
Golden Data() {
  Golden golden{.name = "data", .before = Database(1024, 40)};
  std::mt19937_64 random(20261123);
  golden.history = RandomHistory(random, {.page_size = 1024, .transactions = 40}, golden.before,
                                 Txid(1000), kHistoryBefore);
  golden.inline_body =
      EncodeBatch(golden.history, golden.before, {.page_size = 1024, .block_pages_max = 50});
  golden.header = HeaderOf(ObjectKind::kData, 1024, golden.history.front().header,
                           golden.history.back().header);
  return golden;
}

// A transaction cut into two parts and an inline body, in the middle of blocks.
Golden Parts() {
  Golden golden{.name = "parts", .before = Database(512, 60)};
  TransactionSpec t;
  t.header.database_pages = 60;
  t.header.time_ms = 1'800'000'000'000;
  for (uint32_t pgno = 60; pgno >= 1; --pgno) {
    t.pages.push_back({pgno, EditPage(golden.before[pgno], pgno)});
  }
  golden.history = {t};
  Chain(&golden.history, Txid(9), kHistoryBefore);
  const std::string body =
      EncodeBatch(golden.history, golden.before, {.page_size = 512, .block_pages_max = 16});
  golden.header =
      HeaderOf(ObjectKind::kData, 512, golden.history[0].header, golden.history[0].header);
  golden.parts = {body.substr(0, 700), body.substr(700, 900)};
  golden.inline_body = body.substr(1600);
  for (size_t i = 0; i < golden.parts.size(); ++i) {
    golden.header.parts.push_back(
        {"parts/00000002-000000000000012c-0000000" + std::to_string(i) + "-00000000deadbeef",
         golden.parts[i].size(), Hash64(AsBytes(golden.parts[i]))});
  }
  return golden;
}

Golden Snapshot() {
  Golden golden{.name = "snapshot", .check_history = false};
  TransactionSpec t;
  t.header = {.txid = Txid(50),
              .time_ms = 1'800'000'000'000,
              .database_pages = 100,
              .free_pages = 3,
              .history_hash = 7,
              .rolling_checksum = 8,
              .rolling_known = true};
  for (const auto& [pgno, image] : Database(1024, 100)) t.pages.push_back({pgno, image});
  golden.history = {t};
  golden.inline_body = EncodeBatch(
      golden.history, {}, {.page_size = 1024, .level = 1, .block_pages_max = kSnapshotChunkPages},
      &golden.index);
  golden.header = HeaderOf(ObjectKind::kSnapshot, 1024, t.header, t.header);
  golden.header.last_txid = golden.header.continues_from = Txid(60);
  return golden;
}

// Two batches joined, with the index of both.
Golden Segment() {
  Golden golden{.name = "segment", .before = Database(512, 40)};
  std::mt19937_64 random(20261124);
  golden.history =
      RandomHistory(random, {.transactions = 20}, golden.before, Txid(1), kHistoryBefore);
  Images state = golden.before;
  BatchWriter writer({.page_size = 512, .block_pages_max = 30});
  for (size_t i = 0; i < golden.history.size(); ++i) {
    AddTo(&writer, golden.history[i], &state);
    if (i != 8 && i != 19) continue;
    const uint64_t start = golden.inline_body.size();
    golden.inline_body += writer.Seal();
    for (IndexEntry entry : writer.index()) {
      entry.offset += start;
      golden.index.push_back(entry);
    }
  }
  golden.header = HeaderOf(ObjectKind::kSegment, 512, golden.history.front().header,
                           golden.history.back().header);
  golden.header.last_slot = Slot(301);
  return golden;
}

std::vector<Golden> All() { return {Tiny(), Fence(), Data(), Parts(), Snapshot(), Segment()}; }

std::string Path(const std::string& file) {
  return std::string(GUILDLITE_TEST_DATA) + "/format/" + file;
}
std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path << ": GUILDLITE_GOLDEN_WRITE=1 writes missing files";
  return {std::istreambuf_iterator<char>(in), {}};
}
std::string FileName(const Golden& golden, size_t part) {
  return golden.name + ".v1.part" + std::to_string(part);
}
std::string FileName(const Golden& golden) { return golden.name + ".v1.object"; }

void WriteMissing(const std::string& file, const std::string& bytes) {
  if (std::getenv("GUILDLITE_GOLDEN_WRITE") == nullptr || std::filesystem::exists(Path(file))) {
    return;
  }
  std::ofstream(Path(file), std::ios::binary) << bytes;
}

TEST(GoldenFiles, TheWriterStillWritesThem) {
  if (ZSTD_versionNumber() != kZstdOfTheFiles) {
    GTEST_SKIP() << "made with zstd " << kZstdOfTheFiles << ", this is " << ZSTD_versionNumber();
  }
  for (const Golden& golden : All()) {
    SCOPED_TRACE(golden.name);
    WriteMissing(FileName(golden), golden.Object());
    EXPECT_TRUE(ReadFile(Path(FileName(golden))) == golden.Object());
    for (size_t i = 0; i < golden.parts.size(); ++i) {
      WriteMissing(FileName(golden, i), golden.parts[i]);
      EXPECT_TRUE(ReadFile(Path(FileName(golden, i))) == golden.parts[i]) << i;
    }
  }
}

TEST(GoldenFiles, TheReaderReadsThem) {
  for (const Golden& golden : All()) {
    SCOPED_TRACE(golden.name);
    const std::string object = ReadFile(Path(FileName(golden)));
    const Result<ObjectView> view = OpenObject(object, golden.name);
    ASSERT_TRUE(view.ok()) << view.status().ToString();
    // Sizes and hashes of compressed bytes are the file's own; all else is as described here.
    ObjectHeader described = golden.header;
    described.parts = view->header.parts;
    EXPECT_EQ(view->header, described);
    ASSERT_EQ(view->header.parts.size(), golden.header.parts.size());
    ASSERT_EQ(view->index.size(), golden.index.size());

    std::string body;
    for (size_t i = 0; i < view->header.parts.size(); ++i) {
      const std::string part = ReadFile(Path(FileName(golden, i)));
      EXPECT_EQ(view->header.parts[i].name, golden.header.parts[i].name);
      EXPECT_EQ(view->header.parts[i].size, part.size());
      EXPECT_EQ(view->header.parts[i].hash, Hash64(AsBytes(part)));
      body += part;
    }
    body += AsText(view->inline_body);
    for (size_t i = 0; i < view->index.size(); ++i) {
      EXPECT_EQ(view->index[i].first_pgno, golden.index[i].first_pgno);
      EXPECT_EQ(view->index[i].pages, golden.index[i].pages);
      EXPECT_EQ(view->index[i].last_txid, golden.index[i].last_txid);
      EXPECT_THAT(body.at(view->index[i].offset), ::testing::AnyOf('K', 'Z'));
    }
    Replica replica(golden.before);
    const Status status = Decode(body,
                                 {.page_size = view->header.page_size,
                                  .check_history = golden.check_history,
                                  .history_before = kHistoryBefore},
                                 replica);
    ASSERT_TRUE(status.ok()) << status.ToString();
    EXPECT_EQ(replica.seen, golden.history);
  }
}

// FORMAT.md shows tiny.v1.object byte by byte: lines "0000  47 4c 4f 42  meaning".
TEST(GoldenFiles, TheWorkedExampleOfTheFormatIsTheTinyOne) {
  std::istringstream document(ReadFile(std::string(GUILDLITE_TEST_DATA) + "/../../FORMAT.md"));
  std::string shown;
  for (std::string line; std::getline(document, line);) {
    if (line.size() < 8 || line.substr(4, 2) != "  " ||
        line.substr(0, 4).find_first_not_of("0123456789abcdef") != std::string::npos) {
      continue;
    }
    EXPECT_EQ(std::stoul(line.substr(0, 4), nullptr, 16), shown.size()) << line;
    const size_t end = line.find("  ", 6);
    std::istringstream bytes(line.substr(6, end == std::string::npos ? end : end - 6));
    for (std::string byte; bytes >> byte;) {
      shown.push_back(static_cast<char>(std::stoul(byte, nullptr, 16)));
    }
  }
  EXPECT_TRUE(shown == ReadFile(Path("tiny.v1.object")));
}

}  // namespace
}  // namespace guildlite
