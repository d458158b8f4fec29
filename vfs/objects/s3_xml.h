// The XML that S3 answers with: errors, and pages of a listing.
//
// Whatever answers is hostile until proven S3: a proxy's HTML page is no error of S3's (then `code`
// is empty), a listing without its fields is an error. External entities and DTDs are not followed
// (pugixml knows none).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "guildlite/object_store.h"
#include "guildlite/status.h"

namespace guildlite {

// docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
struct S3Error {
  std::string code;     // "NoSuchKey"; "" = this is no error of S3's
  std::string message;  // one line of printable ASCII, cut where it gets long
  std::string request_id;
  std::string region;                   // of the bucket, where asking elsewhere was the error
  std::optional<uint64_t> object_size;  // of InvalidRange
};
S3Error ParseS3Error(std::string_view body);

// docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html. Asked for without
// encoding-type=url, which stores do not agree on (is '+' a space?); the keys it is for are not
// ours.
struct S3ListPage {
  std::vector<ListEntry> entries;  // whole keys, as they came
  std::string next;                // continuation token; "" = the last page
};
// The message is the reason alone.
Result<S3ListPage> ParseS3List(std::string_view body);

// docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html, quietly: only what failed is
// answered.
std::string S3DeleteRequest(std::span<const std::string> keys);
// The first error, an empty code for none. An error: this is no such answer.
Result<S3Error> ParseS3Deleted(std::string_view body);

}  // namespace guildlite
