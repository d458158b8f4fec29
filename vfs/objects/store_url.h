// From a store's url to the store.
//
//   file:///absolute/directory      LocalStore; %xx is decoded; no host, query or fragment
//   s3://bucket/prefix              known, not in this build
//
// Strict, because a url that is understood in two ways replicates to two places: one spelling for
// one directory, no "." and "..", no empty component, only bytes that RFC 3986 allows unencoded.
// Urls never hold credentials: they are written to sidecars and logs.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "guildlite/clock.h"
#include "guildlite/object_store.h"

namespace guildlite {

struct StoreUrl {
  std::string scheme;  // "file", "s3"
  std::string path;    // file: absolute, decoded, without a slash at the end; s3: all after "s3://"
};

// BAD_URL says what is wrong and shows the right form.
Result<StoreUrl> ParseStoreUrl(std::string_view url);

// Opens no connection and makes no file: trouble with the store shows at its first use. BAD_URL
// also for a scheme that is known but not in this build. `clock` and `random` must outlive the
// store.
Result<std::unique_ptr<ObjectStore>> OpenStore(std::string_view url, Clock& clock, Random& random);

}  // namespace guildlite
