#include "vfs/replicate/local_image.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "tests/replicate/sim_database.h"
#include "tests/support/temp_dir.h"

namespace guildlite {
namespace {

using testing::Must;
using testing::SimDatabase;
using testing::SimDatabaseFile;

std::string Read(SimDatabase& db, const Published& published) {
  SimDatabaseFile file(db.path());
  auto image = Must(LocalImage::Open(file, db.wal_path(), published));
  std::string content(size_t{image->pages()} * image->page_size(), '\0');
  for (uint32_t p = 1; p <= image->pages(); ++p) {
    const auto page = std::as_writable_bytes(std::span(content))
                          .subspan(size_t{p - 1} * image->page_size(), image->page_size());
    Must(image->Read(Pgno(p), page));
  }
  return content;
}

TEST(LocalImage, IsWhatIsPublishedWhereverItLies) {
  std::mt19937_64 random(11);
  TempDir dir;
  SimDatabase db(dir.File("app.db"), 512);
  EXPECT_EQ(Read(db, *db.published()), db.content());
  for (int i = 0; i < 60; ++i) {
    db.CommitRandom(random);
    if (i % 5 == 1) db.CheckpointPartly(700);
    if (i % 7 == 3) db.Checkpoint();
    ASSERT_EQ(Read(db, *db.published()), db.content()) << i;
  }
}

TEST(LocalImage, AnotherGenerationIsBusy) {
  std::mt19937_64 random(12);
  TempDir dir;
  SimDatabase db(dir.File("app.db"), 512);
  db.CommitRandom(random);
  const Published before = *db.published();
  db.CheckpointRestart();
  db.CommitRandom(random);
  SimDatabaseFile file(db.path());
  EXPECT_EQ(LocalImage::Open(file, db.wal_path(), before).status().tag(), Tag::kBusy);
}

TEST(LocalImage, TheChainTellsWhatRecoveryWouldPublish) {
  std::mt19937_64 random(13);
  TempDir dir;
  SimDatabase db(dir.File("app.db"), 512);
  EXPECT_EQ(Must(PublishedByChain(db.wal_path())), Published());
  for (int i = 0; i < 20; ++i) {
    db.CommitRandom(random);
    const Published published = Must(PublishedByChain(db.wal_path()));
    EXPECT_EQ(published.max_frame, db.published()->max_frame);
    EXPECT_EQ(Read(db, published), db.content());
  }
}

}  // namespace
}  // namespace guildlite
