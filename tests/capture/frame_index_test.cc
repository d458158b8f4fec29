#include "vfs/capture/frame_index.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace guildlite {
namespace {

TEST(FrameIndex, SaysWhatAMapSays) {
  std::mt19937_64 random(1);
  FrameIndex index;
  for (const uint32_t pages : {1u, 100u, 20'000u, 0xffffffffu}) {
    index.Clear();
    EXPECT_TRUE(index.empty());
    std::map<uint32_t, uint32_t> model;
    for (uint32_t frame = 1; frame <= 30'000; ++frame) {
      const auto page = static_cast<uint32_t>(1 + random() % pages);
      index.Set(Pgno(page), frame);
      model[page] = frame;
    }
    EXPECT_FALSE(index.empty());
    for (const auto& [page, frame] : model) ASSERT_EQ(index.Get(Pgno(page)), frame) << page;
    for (int i = 0; i < 10'000; ++i) {
      const auto page = static_cast<uint32_t>(1 + random());
      if (page == 0) continue;
      const auto it = model.find(page);
      ASSERT_EQ(index.Get(Pgno(page)), it == model.end() ? 0 : it->second) << page;
    }
  }
}

TEST(FrameIndex, HoldsNothingAfterClear) {
  FrameIndex index;
  EXPECT_EQ(index.Get(Pgno(7)), 0u);
  for (const uint32_t pages : {10u, 100'000u}) {
    for (uint32_t page = 1; page <= pages; ++page) index.Set(Pgno(page), page);
    index.Clear();
    for (uint32_t page = 1; page <= pages; ++page) ASSERT_EQ(index.Get(Pgno(page)), 0u) << page;
  }
}

}  // namespace
}  // namespace guildlite
