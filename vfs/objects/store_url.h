// A store's url.
//
//   file:///absolute/directory      a directory; %xx is decoded; no host, query or fragment
//   s3://bucket/prefix?options      a bucket (s3_url.h)
//
// Strict, because a url that is understood in two ways replicates to two places: one spelling for
// one directory, no "." and "..", no empty component, only bytes that RFC 3986 allows unencoded.
// Urls never hold credentials: they are written to sidecars and logs.
#pragma once

#include <string>
#include <string_view>

#include "guildlite/status.h"

namespace guildlite {

struct StoreUrl {
  std::string scheme;  // "file", "s3"
  std::string path;    // file: absolute, decoded, without a slash at the end; s3: all after "s3://"
};

// BAD_URL says what is wrong and shows the right form.
Result<StoreUrl> ParseStoreUrl(std::string_view url);

}  // namespace guildlite
