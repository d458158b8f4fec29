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

#include "guildlite/object_store.h"

namespace guildlite {

class StoreUnderTest {
 public:
  virtual ~StoreUnderTest() = default;
  virtual ObjectStore& store() = 0;
};

class ObjectStoreSuite
    : public ::testing::TestWithParam<std::function<std::unique_ptr<StoreUnderTest>()>> {
 protected:
  ObjectStoreSuite() : under_test_(GetParam()()), store_(under_test_->store()) {}

  std::unique_ptr<StoreUnderTest> under_test_;
  ObjectStore& store_;
};

}  // namespace guildlite
