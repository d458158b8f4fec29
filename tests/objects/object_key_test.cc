#include "vfs/objects/object_key.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

namespace guildlite {
namespace {

TEST(ObjectKey, IsWhatTheFormatSays) {
  EXPECT_EQ(LogKey(Slot(0x1f)), "log/000000000000001f");
  EXPECT_EQ(LogKey(Slot(UINT64_MAX)), "log/ffffffffffffffff");
  EXPECT_EQ(SnapshotKey(Txid(1), Txid(0xab), Epoch(3), 0xfedcba9876543210),
            "snapshot/0000000000000001-00000000000000ab-00000003-fedcba9876543210");
  EXPECT_EQ(PartKey(Epoch(2), 9, 1, 7),
            "parts/00000002-0000000000000009-00000001-0000000000000007");
  EXPECT_EQ(SegmentKey(1, Slot(2), Slot(3), Epoch(4), 5),
            "segments/1/0000000000000002-0000000000000003-00000004-0000000000000005");
  EXPECT_EQ(OrphanKey(Epoch(1), Session(3), Slot(2)),
            "orphans/00000001-0000000000000003/0000000000000002");
  EXPECT_EQ(ProbeKey(9, 10), "probe/0000000000000009-000000000000000a");
}

TEST(ObjectKey, EveryKeyMadeIsValid) {
  const uint64_t most = UINT64_MAX;
  EXPECT_TRUE(IsValidKey(kManifestKey));
  EXPECT_TRUE(IsValidKey(LogKey(Slot(most))));
  EXPECT_TRUE(IsValidKey(SnapshotKey(Txid(most), Txid(most), Epoch(UINT32_MAX), most)));
  EXPECT_TRUE(IsValidKey(PartKey(Epoch(UINT32_MAX), most, UINT32_MAX, most)));
  EXPECT_TRUE(IsValidKey(SegmentKey(UINT32_MAX, Slot(most), Slot(most), Epoch(1), most)));
  EXPECT_TRUE(IsValidKey(OrphanPartKey({Epoch(1), Session(most), Slot(most)}, 1, most)));
}

TEST(ObjectKey, ParsesBackWhatItMade) {
  EXPECT_EQ(ParseLogKey(LogKey(Slot(12345))), Slot(12345));
  const SnapshotName snapshot{Txid(1), Txid(UINT64_MAX), Epoch(UINT32_MAX), 77};
  EXPECT_EQ(ParseSnapshotKey(
                SnapshotKey(snapshot.as_of, snapshot.usable_from, snapshot.epoch, snapshot.random)),
            snapshot);
  const PartName part{Epoch(5), 6, 7, 8};
  EXPECT_EQ(ParsePartKey(PartKey(part.epoch, part.slot_or_txid, part.index, part.random)), part);
  EXPECT_EQ(ParseProbeKey(ProbeKey(1'790'000'000'000, 5)), 1'790'000'000'000u);
  EXPECT_EQ(ParseProbeKey("probe/0000000000000009"), std::nullopt);
  const OrphanName orphan{Epoch(5), Session(6), Slot(7)};
  EXPECT_EQ(ParseOrphanKey(OrphanKey(orphan.epoch, orphan.session, orphan.slot)), orphan);
  EXPECT_EQ(ParseOrphanKey(OrphanPartKey(orphan, 1, 2)), std::nullopt);
}

// Order of keys is order of numbers: a LIST of the log comes in slot order.
TEST(ObjectKey, KeysSortAsTheirNumbers) {
  EXPECT_LT(LogKey(Slot(9)), LogKey(Slot(10)));
  EXPECT_LT(LogKey(Slot(0xffff)), LogKey(Slot(0x10000)));
}

TEST(ObjectKey, RefusesEveryOneByteChangeThatIsNotAnotherKey) {
  for (const std::string& key :
       {LogKey(Slot(0xabcdef)), SnapshotKey(Txid(1), Txid(2), Epoch(3), 4),
        PartKey(Epoch(1), 2, 3, 4), OrphanKey(Epoch(1), Session(2), Slot(3))}) {
    const auto parses = [](const std::string& k) {
      return ParseLogKey(k).has_value() || ParseSnapshotKey(k).has_value() ||
             ParsePartKey(k).has_value() || ParseOrphanKey(k).has_value();
    };
    ASSERT_TRUE(parses(key));
    for (size_t i = 0; i < key.size(); ++i) {
      for (const char c : {'A', 'g', '/', '+', ' ', '\0'}) {
        std::string changed = key;
        if (changed[i] == c) continue;  // the 'g' of log
        changed[i] = c;
        EXPECT_FALSE(parses(changed)) << changed;
      }
      EXPECT_FALSE(parses(key.substr(0, i))) << "cut at " << i;
    }
    EXPECT_FALSE(parses(key + "0"));
    EXPECT_FALSE(parses("/" + key));
  }
}

TEST(ObjectKey, ValidKeysAreWhatTheStoreContractSays) {
  for (const char* key : {"a", "a/b", "A.b_c-9/...", "..a", "a..", "a/.b"}) {
    EXPECT_TRUE(IsValidKey(key)) << key;
  }
  for (const char* key : {"", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b", "a b",
                          "a\\b", "a%b", "\xc3\xbc", "a:b", "a\n"}) {
    EXPECT_FALSE(IsValidKey(key)) << key;
  }
  EXPECT_FALSE(IsValidKey(std::string("a\0b", 3)));
  EXPECT_TRUE(IsValidKey(std::string(255, 'a')));
  EXPECT_FALSE(IsValidKey(std::string(256, 'a')));
  EXPECT_TRUE(IsValidKey(std::string(255, 'a') + "/" + std::string(255, 'a')));
  EXPECT_FALSE(IsValidKey(std::string(255, 'a') + "/" + std::string(255, 'a') + "/b"));
}

}  // namespace
}  // namespace guildlite
