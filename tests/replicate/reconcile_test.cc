#include "vfs/replicate/reconcile.h"

#include <gtest/gtest.h>

#include <string>

namespace guildlite {
namespace {

struct Facts {
  LocalFacts local;
  StoreFacts store;
  bool asked = false;
};

Facts FromBits(unsigned bits) {
  const auto bit = [&](int i) { return (bits >> i & 1) != 0; };
  Facts f;
  f.local = {bit(0), bit(1), bit(2), bit(3), bit(4), bit(5), bit(6)};
  f.store = {bit(7), bit(8), bit(9), bit(10), bit(11), bit(12)};
  f.asked = bit(13);
  return f;
}
constexpr unsigned kCombinations = 1u << 14;

std::string Show(const Facts& f) {
  std::string s;
  const auto add = [&](bool set, const char* name) {
    if (set) s += std::string(name) + " ";
  };
  add(f.local.remembered, "remembered");
  add(f.local.same_inode, "same_inode");
  add(f.local.proven, "proven");
  add(f.local.kept, "kept");
  add(f.local.heal_owed, "heal_owed");
  add(f.local.empty, "empty");
  add(f.local.log_known, "log_known");
  add(f.store.exists, "exists");
  add(f.store.same_lineage, "same_lineage");
  add(f.store.our_session, "our_session");
  add(f.store.our_takeover, "our_takeover");
  add(f.store.tip_in_history, "tip_in_history");
  add(f.store.tip_beyond, "tip_beyond");
  add(f.asked, "asked");
  return s;
}

class ReconcileTest : public ::testing::Test {
 protected:
  template <class Property>
  void ForAll(const Property& property) {
    for (unsigned bits = 0; bits < kCombinations; ++bits) {
      const Facts f = FromBits(bits);
      const Decision d = Reconcile(f.local, f.store, f.asked);
      SCOPED_TRACE(Show(f));
      property(f, d);
    }
  }
};

// H8: a position handed out is never given to another transaction of the same epoch.
TEST_F(ReconcileTest, GoesOnInTheSameEpochOnlyWithEveryProof) {
  ForAll([](const Facts& f, const Decision& d) {
    const bool all = f.store.exists && f.local.remembered && f.local.same_inode && f.local.proven &&
                     !f.local.heal_owed && f.store.same_lineage && f.store.our_session &&
                     f.store.tip_in_history;
    EXPECT_EQ(d.verdict == Verdict::kContinue, all);
    if (d.verdict == Verdict::kContinue) {
      EXPECT_EQ(d.new_epoch, !f.local.kept);
    }
  });
}

// A disk older than the store never overwrites it: what is there and not ours is compared first.
TEST_F(ReconcileTest, WritesWithoutComparingOnlyIntoItsOwnLogOrANewOne) {
  ForAll([](const Facts& f, const Decision& d) {
    const bool own = f.store.exists && f.local.remembered && f.local.same_inode &&
                     f.store.same_lineage && f.store.our_session;
    if (d.verdict == Verdict::kHeal || d.verdict == Verdict::kContinue) {
      EXPECT_TRUE(own);
    }
    if (d.verdict == Verdict::kFirstStart) {
      EXPECT_FALSE(f.store.exists);
    }
    if (f.store.exists && !own) {
      EXPECT_TRUE(d.verdict == Verdict::kCompare || d.verdict == Verdict::kRefuse);
    }
  });
}

TEST_F(ReconcileTest, ACopiedFolderNeverBecomesASecondWriterByItself) {
  ForAll([](const Facts& f, const Decision& d) {
    if (f.asked || !f.store.exists) return;
    if (!f.local.remembered || !f.local.same_inode || !f.store.same_lineage ||
        (!f.store.our_session && !f.store.our_takeover)) {
      EXPECT_EQ(d.verdict, Verdict::kRefuse);
    }
  });
}

TEST_F(ReconcileTest, EverythingButAContinuationTakesANewEpoch) {
  ForAll([](const Facts&, const Decision& d) {
    if (d.verdict == Verdict::kHeal || d.verdict == Verdict::kCompare) {
      EXPECT_TRUE(d.new_epoch);
    }
  });
}

TEST_F(ReconcileTest, AVanishedStoreIsNotTakenForANewOneUnlessAsked) {
  ForAll([](const Facts& f, const Decision& d) {
    if (f.store.exists) return;
    if (f.local.remembered && f.local.log_known && !f.asked) {
      EXPECT_EQ(d.verdict, Verdict::kRefuse);
      EXPECT_EQ(d.refusal.tag(), Tag::kNoBackup);
    } else {
      EXPECT_EQ(d.verdict, Verdict::kFirstStart);
    }
  });
}

TEST_F(ReconcileTest, AnEmptyFileIsNeverComparedNorHealedIntoSomebodyElsesLog) {
  ForAll([](const Facts& f, const Decision& d) {
    if (f.local.empty) {
      EXPECT_NE(d.verdict, Verdict::kCompare);
    }
  });
}

TEST_F(ReconcileTest, EveryRefusalSaysWhyAndNothingElseDoes) {
  ForAll([](const Facts&, const Decision& d) {
    EXPECT_EQ(d.verdict == Verdict::kRefuse, !d.refusal.ok());
    if (d.verdict == Verdict::kRefuse) {
      EXPECT_FALSE(d.refusal.message().empty());
      EXPECT_FALSE(d.refusal.retryable()) << "a verdict about the history does not pass by waiting";
    }
  });
}

struct Row {
  const char* name;
  LocalFacts local;
  StoreFacts store;
  bool asked;
  Verdict verdict;
  Tag tag = Tag::kOk;
};

TEST_F(ReconcileTest, TheTableOfTheHeader) {
  const LocalFacts nothing{};
  const LocalFacts whole{
      .remembered = true, .same_inode = true, .proven = true, .kept = true, .log_known = true};
  const LocalFacts unkept{
      .remembered = true, .same_inode = true, .proven = true, .log_known = true};
  const LocalFacts unproven{.remembered = true, .same_inode = true, .log_known = true};
  const LocalFacts owed{
      .remembered = true, .same_inode = true, .proven = true, .heal_owed = true, .log_known = true};
  const LocalFacts moved{.remembered = true, .proven = true, .log_known = true};
  const LocalFacts empty{.empty = true};
  const StoreFacts none{};
  const StoreFacts ours{true, true, true, false, true};
  const StoreFacts behind{true, true, true, false, false};
  const StoreFacts beyond{true, true, true, false, false, true};
  const StoreFacts taken{true, true, false, false};
  const StoreFacts planned{true, true, false, true};
  const StoreFacts other{true, false, false, false};
  const Row rows[] = {
      {"1 new store", nothing, none, true, Verdict::kFirstStart},
      {"1 new url", nothing, none, false, Verdict::kFirstStart},
      {"2 store vanished", whole, none, false, Verdict::kRefuse, Tag::kNoBackup},
      {"2 asked", whole, none, true, Verdict::kFirstStart},
      {"3", whole, ours, false, Verdict::kContinue},
      {"3 asked", whole, ours, true, Verdict::kContinue},
      {"3 after a power loss", unkept, ours, false, Verdict::kContinue},
      {"4 unproven", unproven, ours, false, Verdict::kHeal},
      {"4 owed", owed, ours, false, Verdict::kHeal},
      {"4 tip unknown", whole, behind, false, Verdict::kHeal},
      {"9", whole, beyond, false, Verdict::kRefuse, Tag::kDiverged},
      {"9 asked", whole, beyond, true, Verdict::kRefuse, Tag::kDiverged},
      {"9 but a heal is owed", owed, beyond, false, Verdict::kHeal},
      {"5", whole, taken, false, Verdict::kRefuse, Tag::kFenced},
      {"5 asked", whole, taken, true, Verdict::kCompare},
      {"6 nothing remembered", nothing, other, true, Verdict::kCompare},
      {"6 another inode", moved, ours, true, Verdict::kCompare},
      {"6 another lineage", whole, other, true, Verdict::kCompare},
      {"7 another inode", moved, ours, false, Verdict::kRefuse, Tag::kDiverged},
      {"7 another lineage", whole, other, false, Verdict::kRefuse, Tag::kDiverged},
      {"10", whole, planned, false, Verdict::kCompare},
      {"10 asked", unproven, planned, true, Verdict::kCompare},
      {"10 in a copied folder", moved, planned, false, Verdict::kRefuse, Tag::kDiverged},
      {"8", empty, other, true, Verdict::kRefuse, Tag::kRestoreNeeded},
  };
  for (const Row& row : rows) {
    const Decision d = Reconcile(row.local, row.store, row.asked);
    EXPECT_EQ(d.verdict, row.verdict) << row.name;
    EXPECT_EQ(d.refusal.tag(), row.tag) << row.name << " " << d.refusal.ToString();
  }
}

}  // namespace
}  // namespace guildlite
