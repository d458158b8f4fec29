#include "vfs/objects/part_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/fault_store.h"
#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"
#include "vfs/objects/memory_store.h"

namespace guildlite {
namespace {

using ::testing::HasSubstr;

class PartSourceTest : public ::testing::TestWithParam<size_t> {
 protected:
  PartSourceTest() {
    store_.set_gets_at_once(GetParam());
    for (int i = 0; i < 20; ++i) {
      const std::string bytes(static_cast<size_t>(100 + i), static_cast<char>('a' + i));
      const std::string key = "parts/" + std::to_string(i);
      EXPECT_TRUE(memory_.Put(key, bytes, PutCondition::Create()).ok());
      object_.header.parts.push_back({key, bytes.size(), Hash64(AsBytes(bytes))});
      whole_ += bytes;
    }
    object_.inline_body = AsBytes(rest_);
    whole_ += rest_;
  }
  // Everything the source yields.
  Result<std::string> Read() {
    PartSource source(store_, object_, "the object");
    std::string all;
    for (;;) {
      const auto piece = source.Next();
      if (!piece.ok()) return piece.status();
      if (piece->empty()) return all;
      all += AsText(*piece);
    }
  }
  void ExpectBroken(const std::string& says) {
    const auto read = Read();
    ASSERT_FALSE(read.ok()) << says;
    EXPECT_EQ(read.status().tag(), Tag::kChainBroken);
    EXPECT_THAT(read.status().message(), HasSubstr(says));
  }

  MemoryStore memory_;
  FaultStore store_{memory_};
  ObjectView object_;
  const std::string rest_ = "the rest";
  std::string whole_;
};
INSTANTIATE_TEST_SUITE_P(GetsAtOnce, PartSourceTest, ::testing::Values(1, 4));

TEST_P(PartSourceTest, ComeInOrderAndThenTheRest) {
  EXPECT_EQ(*Read(), whole_);
  EXPECT_EQ(store_.calls(FaultStore::kGet), 20u);
  object_.header.parts.clear();
  EXPECT_EQ(*Read(), rest_);
  object_.inline_body = {};
  EXPECT_EQ(*Read(), "");
}

TEST_P(PartSourceTest, AreNotBelievedUnlessTheyAreWhatTheObjectWasMadeOf) {
  auto& parts = object_.header.parts;
  for (const size_t i : {0u, 7u, 19u}) {
    const BodyPart good = parts[i];
    parts[i].size += 1;
    ExpectBroken(good.name + ": has ");
    parts[i] = good;
    parts[i].hash ^= 1;
    ExpectBroken(good.name + ": its bytes are not those the object was made of");
    parts[i] = good;
    parts[i].name = "../etc";
    ExpectBroken("the object: names a part \"../etc\"");
    parts[i] = good;
  }
  ASSERT_TRUE(memory_.Delete(parts[7].name).ok());
  EXPECT_EQ(Read().status().tag(), Tag::kNotFound) << "whether that is damage is not its to say";
}

}  // namespace
}  // namespace guildlite
