#include "vfs/replicate/recorder.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "tests/replicate/sim_database.h"
#include "tests/replicate/writer_rig.h"
#include "tests/support/fault_store.h"
#include "tests/support/sim_clock.h"
#include "tests/support/temp_dir.h"
#include "vfs/objects/memory_store.h"

namespace guildlite {
namespace {

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
  // Every txid that can be restored is a state that was committed, in order; the latest is the
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
        ADD_FAILURE() << "txid " << txid << " restores to what was never committed after state "
                      << at;
        continue;
      }
      at = i;
    }
    EXPECT_EQ(Restored("") == db_->content(), true) << "the latest is not what is committed";
    return points;
  }
  void Make(uint32_t page_size = 512) {
    db_ = std::make_unique<SimDatabase>(dir_.File("app.db"), page_size);
  }
  WriterRig& Start(RigSettings settings = {}) {
    rig_.reset();
    rig_ = std::make_unique<WriterRig>(*db_, store_, clock_, random_, std::move(settings));
    return *rig_;
  }

  TempDir dir_;
  MemoryStore memory_;
  FaultStore store_{memory_};
  SimClock clock_;
  SimRandom random_{1};
  std::unique_ptr<SimDatabase> db_;
  std::unique_ptr<WriterRig> rig_;
};

TEST_F(RecorderTest, RestoresEveryTransactionAcrossCheckpointsAndResets) {
  Make();
  auto& rig = Start();
  rig.BeginFirst();
  rig.Settle();
  std::mt19937_64 random(testing::TestSeed());
  for (int i = 0; i < 200; ++i) {
    db_->CommitRandom(random);
    if (random() % 3 == 0) db_->Checkpoint();
    if (random() % 3 == 0) Must(rig.recorder->CatchUp(UINT64_MAX));
    if (random() % 8 == 0) rig.Run();
  }
  rig.Run();
  EXPECT_EQ(rig.recorder->counters().heals, 0u);
  EXPECT_EQ(rig.shipper->durable()->txid, Txid(200));
  EXPECT_EQ(CheckAllPoints(200), 201);
}

}  // namespace
}  // namespace guildlite
