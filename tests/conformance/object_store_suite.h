// What every ObjectStore must do, as one suite. A store takes part with a line in its own test
// file:
//
//   INSTANTIATE_TEST_SUITE_P(Name, ObjectStoreSuite, ::testing::Values(MakeStoreUnderTest));
//
// where the function gives an empty store and owns what it needs. The claims are in
// object_store_test.cc.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>

#include "guildlite/object_store.h"

namespace guildlite {

class StoreUnderTest {
 public:
  virtual ~StoreUnderTest() = default;
  virtual ObjectStore& store() = 0;
  // Whether a swap it cannot be sure to have lost may be answered with kOutcomeUnknown.
  virtual bool loses_replies() const { return false; }
};

class ObjectStoreSuite
    : public ::testing::TestWithParam<std::function<std::unique_ptr<StoreUnderTest>()>> {
 protected:
  ObjectStoreSuite() : under_test_(GetParam()()), store_(under_test_->store()) {}

  // That a conditional put was not done, as far as this store can tell.
  Tag TagOf(const Result<std::string>& put) const {
    const Tag tag = put.status().tag();
    return under_test_->loses_replies() && tag == Tag::kOutcomeUnknown ? Tag::kPrecondition : tag;
  }

  std::unique_ptr<StoreUnderTest> under_test_;
  ObjectStore& store_;
};

}  // namespace guildlite
