#include "vfs/objects/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/fault_store.h"
#include "tests/support/sim_clock.h"
#include "vfs/objects/memory_store.h"
#include "vfs/objects/object_key.h"

namespace guildlite {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

// As a writer of another version would have written it.
std::string Sealed(json root) {
  root.erase("checksum");
  return SealManifest(root.dump(1) + "\n");
}

Manifest Full() {
  Manifest m;
  m.rev = 0xfedcba9876543210;
  m.nonce = 7;
  m.lineage = Lineage(0x0123456789abcdef);
  m.epoch = Epoch(3);
  m.session = Session(UINT64_MAX);
  m.owner = "host \"a\" \xc3\xbc (pid 7)";
  m.claimed_ms = 1'700'000'000'000;
  m.released_ms = 1'700'000'000'001;
  m.floor = Slot(100);
  m.horizon = Slot(7);
  m.past_epochs = {{Epoch(1), Txid(10), 11, Slot(12), ""}, {Epoch(2), Txid(10), 11, Slot(15), ""}};
  SnapshotRecord snapshot;
  snapshot.key = SnapshotKey(Txid(20), Txid(25), Epoch(3), 9);
  snapshot.txid = Txid(20);
  snapshot.usable_from = Txid(25);
  snapshot.first_slot = Slot(101);
  snapshot.end_slot = Slot(105);
  snapshot.epoch = Epoch(3);
  snapshot.history_hash = 1ull << 63;
  snapshot.usable_history_hash = (1ull << 53) + 1;
  snapshot.time_ms = 1'700'000'000'000;
  snapshot.label = "before the migration\n";
  snapshot.bytes = 1;
  snapshot.database_bytes = 2;
  m.snapshots = {snapshot, snapshot};
  m.segments = {{SegmentKey(1, Slot(1), Slot(99), Epoch(3), 1), 1, Slot(1), Slot(99), Txid(1),
                 Txid(19), 1ull << 63, 12345, ""}};
  m.tombstones = {{LogKey(Slot(5)), Slot(0), 1'600'000'000'000, ""},
                  {LogKey(Slot(7)), Slot(99), 1'600'000'000'000, ""}};
  return m;
}

TEST(Manifest, EveryFieldSurvives) {
  const Manifest full = Full();
  ASSERT_TRUE(full.Validate().ok()) << full.Validate().ToString();
  const auto read = Manifest::Decode(full.Encode(), "m");
  ASSERT_TRUE(read.ok()) << read.status().ToString();
  EXPECT_EQ(*read, full);
  EXPECT_EQ(read->Encode(), full.Encode());
  const auto least = Manifest::Decode(Manifest{}.Encode(), "m");
  ASSERT_TRUE(least.ok());
  EXPECT_EQ(*least, Manifest{});
}

// Kept for ever: a manifest that version 1 wrote.
TEST(Manifest, IsWhatTheFormatSays) {
  Manifest m;
  m.nonce = 0xab;
  m.lineage = Lineage(1);
  m.session = Session(2);
  m.owner = "pod-0";
  m.tombstones = {{"log/0000000000000001", Slot(0), 16, ""}};
  EXPECT_EQ(m.Encode(), R"({
 "checksum": "e69ec0dd03af7f18",
 "epoch": 1,
 "floor": "0000000000000001",
 "format": 1,
 "horizon": "0000000000000001",
 "lineage": "0000000000000001",
 "min_reader": 1,
 "nonce": "00000000000000ab",
 "owner": "pod-0",
 "past_epochs": [],
 "rev": "0000000000000001",
 "segments": [],
 "session": "0000000000000002",
 "snapshots": [],
 "tombstones": [
  {
   "key": "log/0000000000000001",
   "last_slot": "0000000000000000",
   "since_ms": "0000000000000010"
  }
 ]
}
)");
}

TEST(Manifest, TellsItsClaimAsTheFormatSays) {
  Manifest m;
  m.claimed_ms = 0x18bcfe56800;
  EXPECT_THAT(m.Encode(), HasSubstr(R"(
 "claim_epoch": 1,
 "claimed_ms": "0000018bcfe56800",
 "epoch": 1,)"));
  EXPECT_THAT(m.Encode(), HasSubstr(R"(
 "released_ms": "0000000000000000",)"));
}

TEST(Manifest, KeepsWhatANewerWriterAdded) {
  json root = json::parse(Full().Encode());
  root["invented"] = {{"a", {1, 2.5, nullptr}}};
  root["snapshots"][0]["codec"] = "x";
  root["past_epochs"][1]["why"] = true;
  root["segments"][0]["index"] = json::array();
  root["tombstones"][0]["by"] = "y";
  auto read = Manifest::Decode(Sealed(root), "m");
  ASSERT_TRUE(read.ok()) << read.status().ToString();
  EXPECT_NE(*read, Full());
  read->rev += 1;
  root["rev"] = "fedcba9876543211";
  EXPECT_EQ(read->Encode(), Sealed(root));
}

// A writer that does not know these members keeps them when it claims the log.
TEST(Manifest, ATimeOfAnEarlierClaimSaysNothingOfThisOne) {
  json root = json::parse(Full().Encode());
  EXPECT_EQ(root["claim_epoch"], 3);
  root["claim_epoch"] = 2;
  const auto read = Manifest::Decode(Sealed(root), "m");
  ASSERT_TRUE(read.ok()) << read.status().ToString();
  EXPECT_EQ(read->claimed_ms, 0);
  EXPECT_EQ(read->released_ms, 0);
  EXPECT_FALSE(read->released());
  EXPECT_TRUE(Full().released());
  EXPECT_EQ(read->unknown_json, "");
}

TEST(Manifest, SaysWhichMemberIsWrong) {
  struct Case {
    const char* path;
    json value;
    const char* says;
  };
  const Case cases[] = {
      {"/rev", 1, "'rev'"},
      {"/rev", "1", "'rev'"},
      {"/rev", "FEDCBA9876543210", "'rev'"},
      {"/rev", "0000000000000000", "rev is 0"},
      {"/claim_epoch", "3", "'claim_epoch'"},
      {"/claimed_ms", nullptr, "'claimed_ms'"},
      {"/released_ms", 5, "'released_ms'"},
      {"/epoch", -1, "'epoch'"},
      {"/epoch", 1.0, "'epoch'"},
      {"/epoch", 4294967296u + 1ull, "'epoch'"},
      {"/epoch", 0, "epoch is 0"},
      {"/epoch", 4, "does not reach"},
      {"/floor", "0000000000000000", "floor is 0"},
      {"/format", "1", "'format'"},
      {"/format", 0, "format"},
      {"/owner", nullptr, "'owner'"},
      {"/owner", std::string(5000, 'x'), "owner"},
      {"/lineage", json::array(), "'lineage'"},
      {"/snapshots", json::object(), "'snapshots'"},
      {"/snapshots/1", 5, "'snapshots[1].not an object'"},
      {"/snapshots/1/txid", 5, "'snapshots[1].txid'"},
      {"/snapshots/1/txid", "ffffffffffffffff", "txid > usable_from"},
      {"/snapshots/1/usable_from", "0000000000000018", "ascending"},
      {"/snapshots/0/first_slot", "0000000000000000", "first_slot"},
      {"/snapshots/0/key", "../etc", "key"},
      {"/snapshots/0/epoch", 4, "epoch"},
      {"/snapshots/0/time_ms", "ffffffffffffffff", "'snapshots[0].time_ms'"},
      {"/past_epochs/1/epoch", 1, "dense"},
      {"/past_epochs/1/last_txid", "0000000000000009", "goes back"},
      {"/past_epochs/1/fence", "0000000000000001", "goes back"},
      {"/segments/0/first_slot", "0000000000000000", "ranges"},
      {"/segments/0/last_txid", "0000000000000000", "ranges"},
      {"/segments/0/level", "1", "'segments[0].level'"},
      {"/tombstones/0/key", "", "key"},
      {"/tombstones/0/since_ms", -1, "'tombstones[0].since_ms'"},
  };
  for (const Case& c : cases) {
    json root = json::parse(Full().Encode());
    root[json::json_pointer(c.path)] = c.value;
    const auto read = Manifest::Decode(Sealed(root), "the name");
    ASSERT_FALSE(read.ok()) << c.path << " " << c.value;
    EXPECT_EQ(read.status().tag(), Tag::kChainBroken) << c.path;
    EXPECT_THAT(read.status().message(), HasSubstr(c.says)) << c.path;
    EXPECT_THAT(read.status().message(), HasSubstr("the name"));
  }
}

TEST(Manifest, EveryMemberIsRequired) {
  const json full = json::parse(Full().Encode());
  for (const char* at : {"", "/snapshots/0", "/past_epochs/0", "/segments/0", "/tombstones/0"}) {
    const json record = full[json::json_pointer(at)];
    for (const auto& [name, value] : record.items()) {
      if (name == "checksum") continue;  // Sealed() gives it back
      json root = full;
      root[json::json_pointer(at)].erase(name);
      EXPECT_EQ(Manifest::Decode(Sealed(root), "m").status().tag(), Tag::kChainBroken)
          << at << "/" << name;
    }
  }
}

// Also where the JSON stays good: a slot's digit is worth as much as a page.
TEST(Manifest, NamesDamageAtEveryByte) {
  const std::string good = Full().Encode();
  for (size_t i = 0; i < good.size(); ++i) {
    EXPECT_EQ(Manifest::Decode(good.substr(0, i), "m").status().tag(), Tag::kChainBroken) << i;
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      const Status status = Manifest::Decode(bad, "the name").status();
      EXPECT_EQ(status.tag(), Tag::kChainBroken) << i << ": " << bad;
      EXPECT_THAT(status.message(), HasSubstr("the name"));
    }
  }
}

// Nobody's but for its seal: what a newer format says after its second line is not looked at.
TEST(Manifest, IsSealedInEveryFormat) {
  EXPECT_EQ(SealManifest("[]"), "");
  const std::string newer = SealManifest("{\"format\":9,\"min_reader\":9}");
  EXPECT_EQ(newer.substr(0, 15), "{\n \"checksum\": ");
  EXPECT_EQ(Manifest::Decode(newer, "m").status().tag(), Tag::kFormatTooNew);
  std::string damaged = newer;
  damaged[damaged.size() - 2] = '{';
  EXPECT_EQ(Manifest::Decode(damaged, "m").status().tag(), Tag::kChainBroken);
  EXPECT_EQ(Manifest::Decode("{\"format\":9,\"min_reader\":9}", "m").status().tag(),
            Tag::kChainBroken);
}

TEST(Manifest, HostileJsonIsAnErrorNotACrash) {
  const std::string deep = std::string(100000, '[') + std::string(100000, ']');
  for (const std::string& text :
       {std::string(), std::string("null"), std::string("[]"), std::string("{}"), deep,
        "{\"x\":" + deep + "}", std::string("{\"rev\":1e999}"), std::string("{\"a\":\"\xff\"}"),
        Full().Encode() + "{}", std::string(17 << 20, ' ')}) {
    EXPECT_EQ(Manifest::Decode(text, "m").status().tag(), Tag::kChainBroken);
  }
}

TEST(Manifest, VersionComesBeforeMeaning) {
  json root = {{"format", 2}, {"min_reader", 2}, {"rev", "of another kind"}};
  EXPECT_EQ(Manifest::Decode(Sealed(root), "m").status().tag(), Tag::kFormatTooNew);
  root = json::parse(Full().Encode());
  root["format"] = 2;
  const auto readable = Manifest::Decode(Sealed(root), "m");
  ASSERT_TRUE(readable.ok()) << "a newer format that says version 1 can read it";
  EXPECT_EQ(readable->format, 2u);
}

TEST(Manifest, TextIsUtf8) {
  Manifest m;
  for (const char* good :
       {"", "a", "\xc3\xbc", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xed\x9f\xbf"}) {
    m.owner = good;
    EXPECT_TRUE(m.Validate().ok()) << good;
  }
  for (const char* bad :
       {"\x80", "\xc3", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80", "\xf0\x80\x80\x80", "\xe2\x82", "\xff"}) {
    m.owner = bad;
    EXPECT_FALSE(m.Validate().ok());
  }
}

class ManifestSwap : public ::testing::Test {
 protected:
  ManifestAt Create() {
    auto created = CreateManifest(memory_, Manifest{}, random_);
    EXPECT_TRUE(created.ok()) << created.status().ToString();
    return *created;
  }
  static Manifest WithOwner(Manifest m, const std::string& owner) {
    m.owner = owner;
    return m;
  }
  ManifestAt Now() {
    auto now = ReadManifest(memory_);
    EXPECT_TRUE(now.ok()) << now.status().ToString();
    return *now;
  }
  // What another process does meanwhile.
  ManifestAt OtherSwaps(const std::string& owner) {
    const ManifestAt now = Now();
    auto swapped = SwapManifest(memory_, now, WithOwner(now.manifest, owner), random_);
    EXPECT_TRUE(swapped.ok());
    return *swapped;
  }

  MemoryStore memory_;
  FaultStore store_{memory_};
  SimRandom random_{1};
};

TEST_F(ManifestSwap, ThereIsNoneAtFirst) {
  EXPECT_EQ(ReadManifest(memory_).status().tag(), Tag::kNotFound);
  EXPECT_EQ(UpdateManifest(memory_, random_, [](Manifest&) { return Status::Ok(); }).status().tag(),
            Tag::kNotFound);
}

TEST_F(ManifestSwap, CreateHasOneWinner) {
  const ManifestAt created = Create();
  EXPECT_EQ(created.manifest.rev, 1u);
  EXPECT_EQ(CreateManifest(memory_, Manifest{}, random_).status().tag(), Tag::kAlreadyExists);
  EXPECT_EQ(Now().manifest, created.manifest);
  EXPECT_EQ(Now().version, created.version);
}

TEST_F(ManifestSwap, CreateKnowsItselfAfterALostReply) {
  store_.Inject(FaultStore::kPut, 1, Fault::kLoseReply);
  const auto created = CreateManifest(store_, Manifest{}, random_);
  ASSERT_TRUE(created.ok()) << created.status().ToString();
  EXPECT_EQ(created->version, Now().version);
}

TEST_F(ManifestSwap, CreateOfUnknownOutcomeStaysUnknownWithoutAnAnswer) {
  store_.Inject(FaultStore::kPut, 1, Fault::kDrop);
  EXPECT_EQ(CreateManifest(store_, Manifest{}, random_).status().tag(), Tag::kOutcomeUnknown);
  Create();
  store_.Inject(FaultStore::kPut, 1, Fault::kDrop);
  EXPECT_EQ(CreateManifest(store_, Manifest{}, random_).status().tag(), Tag::kAlreadyExists);
}

// H3: equal bodies would have equal ETags.
TEST_F(ManifestSwap, NoTwoBodiesAreEverEqual) {
  ManifestAt at = Create();
  std::vector<std::string> bodies = {at.manifest.Encode()};
  for (int i = 0; i < 20; ++i) {
    auto next = SwapManifest(memory_, at, at.manifest, random_);
    ASSERT_TRUE(next.ok());
    EXPECT_EQ(next->manifest.rev, at.manifest.rev + 1);
    at = *next;
    for (const auto& body : bodies) EXPECT_NE(body, at.manifest.Encode());
    bodies.push_back(at.manifest.Encode());
  }
}

TEST_F(ManifestSwap, LosesToAnotherSwap) {
  const ManifestAt from = Create();
  OtherSwaps("other");
  EXPECT_EQ(SwapManifest(memory_, from, WithOwner(from.manifest, "me"), random_).status().tag(),
            Tag::kPrecondition);
  EXPECT_EQ(Now().manifest.owner, "other");
}

TEST_F(ManifestSwap, RefusesToGoBack) {
  Manifest m;
  m.epoch = Epoch(2);
  m.past_epochs = {{Epoch(1), Txid(0), 0, Slot(1), ""}};
  m.floor = Slot(9);
  auto from = CreateManifest(memory_, m, random_);
  ASSERT_TRUE(from.ok());
  Manifest to = from->manifest;
  to.floor = Slot(8);
  EXPECT_EQ(SwapManifest(memory_, *from, to, random_).status().tag(), Tag::kBadArgument);
  to = from->manifest;
  to.epoch = Epoch(1);
  to.past_epochs.clear();
  EXPECT_EQ(SwapManifest(memory_, *from, to, random_).status().tag(), Tag::kBadArgument);
  to = from->manifest;
  to.lineage = Lineage(5);
  EXPECT_EQ(SwapManifest(memory_, *from, to, random_).status().tag(), Tag::kBadArgument);
  to = from->manifest;
  to.past_epochs.clear();
  EXPECT_EQ(SwapManifest(memory_, *from, to, random_).status().tag(), Tag::kChainBroken);
  EXPECT_EQ(Now().manifest, from->manifest);
}

// The table in manifest.h, row by row.
TEST_F(ManifestSwap, ALostReplyIsRecognizedByItsNonce) {
  const ManifestAt from = Create();
  store_.Inject(FaultStore::kPut, 1, Fault::kLoseReply);
  const auto swapped = SwapManifest(store_, from, WithOwner(from.manifest, "me"), random_);
  ASSERT_TRUE(swapped.ok()) << swapped.status().ToString();
  EXPECT_EQ(swapped->manifest, Now().manifest);
  EXPECT_EQ(swapped->version, Now().version);
}

TEST_F(ManifestSwap, WhatIsNotThereMayYetLand) {
  const ManifestAt from = Create();
  store_.Inject(FaultStore::kPut, 1, Fault::kHold);
  const auto swapped = SwapManifest(store_, from, WithOwner(from.manifest, "late"), random_);
  EXPECT_EQ(swapped.status().tag(), Tag::kOutcomeUnknown);
  store_.DeliverHeld();
  EXPECT_EQ(Now().manifest.owner, "late") << "so nothing may be deleted on the first answer";
}

TEST_F(ManifestSwap, AnotherSwapsRevProvesThatOursNeverLands) {
  const ManifestAt from = Create();
  store_.OnCall([&](const FaultStore::Call& call) {
    if (call.kind == FaultStore::kGet) OtherSwaps("other");
    return call.kind == FaultStore::kPut ? Fault::kHold : Fault::kNone;
  });
  const auto swapped = SwapManifest(store_, from, WithOwner(from.manifest, "late"), random_);
  EXPECT_EQ(swapped.status().tag(), Tag::kPrecondition);
  store_.DeliverHeld();
  EXPECT_EQ(Now().manifest.owner, "other");
}

TEST_F(ManifestSwap, ALaterRevMayBeBuiltOnOurs) {
  const ManifestAt from = Create();
  store_.OnCall([&](const FaultStore::Call& call) {
    if (call.kind == FaultStore::kGet) OtherSwaps("other");
    return call.kind == FaultStore::kPut ? Fault::kLoseReply : Fault::kNone;
  });
  const auto swapped = SwapManifest(store_, from, WithOwner(from.manifest, "me"), random_);
  EXPECT_EQ(swapped.status().tag(), Tag::kOutcomeUnknown);
}

TEST_F(ManifestSwap, WithoutAnAnswerTheErrorOfThePutStays) {
  const ManifestAt from = Create();
  store_.SetOutage(Fault::kFail);
  const auto swapped = SwapManifest(store_, from, from.manifest, random_);
  EXPECT_EQ(swapped.status().tag(), Tag::kStoreUnreachable);
  EXPECT_TRUE(swapped.status().retryable());
  store_.SetOutage(Fault::kDeny);
  EXPECT_EQ(SwapManifest(store_, from, from.manifest, random_).status().tag(), Tag::kStoreDenied);
}

Status AddTombstoneOnce(Manifest& m, const std::string& key) {
  for (const Tombstone& t : m.tombstones) {
    if (t.key == key) return Status::Ok();
  }
  m.tombstones.push_back({key, Slot(0), 0, ""});
  return Status::Ok();
}

// Whatever goes wrong at whichever call, an idempotent change is there exactly once in the end.
TEST_F(ManifestSwap, UpdateSettlesEveryFaultAtEveryCall) {
  for (const Fault fault : {Fault::kDrop, Fault::kLoseReply, Fault::kHold}) {
    for (uint64_t n = 1; n <= 4; ++n) {
      MemoryStore memory;
      FaultStore faulty(memory);
      ASSERT_TRUE(CreateManifest(memory, Manifest{}, random_).ok());
      faulty.Inject(FaultStore::kPut, n, fault);
      for (const char* key : {"a", "b", "c"}) {
        const auto updated =
            UpdateManifest(faulty, random_, [&](Manifest& m) { return AddTombstoneOnce(m, key); });
        ASSERT_TRUE(updated.ok()) << updated.status().ToString();
        faulty.DeliverHeld();
      }
      const auto now = ReadManifest(memory);
      ASSERT_TRUE(now.ok());
      ASSERT_EQ(now->manifest.tombstones.size(), 3u);
      EXPECT_EQ(now->manifest.tombstones[2].key, "c");
    }
  }
}

TEST_F(ManifestSwap, UpdateTriesAgainAfterAnotherSwap) {
  Create();
  int others = 3;
  store_.OnCall([&](const FaultStore::Call& call) {
    if (call.kind == FaultStore::kPut && others-- > 0) OtherSwaps("other");
    return Fault::kNone;
  });
  int changes = 0;
  const auto updated = UpdateManifest(store_, random_, [&](Manifest& m) {
    ++changes;
    m.floor = Slot(m.floor.value + 1);
    return Status::Ok();
  });
  ASSERT_TRUE(updated.ok());
  EXPECT_EQ(changes, 4);
  EXPECT_EQ(Now().manifest.floor, Slot(2)) << "applied to the newest only";
  EXPECT_EQ(Now().manifest.owner, "other");
}

TEST_F(ManifestSwap, UpdateGivesUp) {
  Create();
  EXPECT_EQ(UpdateManifest(store_, random_,
                           [](Manifest&) { return Status(Tag::kFenced, "another owner"); })
                .status()
                .tag(),
            Tag::kFenced);
  store_.OnCall([&](const FaultStore::Call& call) {
    if (call.kind == FaultStore::kPut) OtherSwaps("other");
    return Fault::kNone;
  });
  const auto lost = UpdateManifest(store_, random_, [](Manifest&) { return Status::Ok(); });
  EXPECT_EQ(lost.status().tag(), Tag::kStoreThrottled);
  EXPECT_EQ(store_.calls(FaultStore::kPut), uint64_t{kUpdateTriesMax});
}

}  // namespace
}  // namespace guildlite
