// s3://bucket/prefix?option=value&...: which bucket, where in it, and how it is to be spoken to.
//
//   endpoint=https://host[:port][/path]  a server that is not AWS; else AWS_ENDPOINT_URL_S3, else
//                                        AWS_ENDPOINT_URL, else AWS's own of the region
//   region=eu-central-1                  else AWS_REGION, AWS_DEFAULT_REGION, the region of the
//                                        profile (credentials_profile.h), us-east-1
//   path_style=true|false                bucket in the path or in the host name; default: in the
//                                        path with an endpoint, or where its name has a dot (which
//                                        no certificate of AWS's covers)
//   sse=AES256|aws:kms|aws:kms:dsse      x-amz-server-side-encryption of every put
//   sse_kms_key_id=...                   which key; with a sse= of aws:kms
//   storage_class=...                    x-amz-storage-class of every put
//
// Strict as store_url.h is, and for the same reason: an option that is unknown, given twice or
// without a value is BAD_URL. No message shows what stands after the '?': somebody put a key there.
#pragma once

#include <string>
#include <string_view>

#include "guildlite/options.h"
#include "guildlite/status.h"

namespace guildlite {

struct S3Url {
  std::string bucket;
  std::string prefix;    // decoded, no slash at either end; "" = the whole bucket
  std::string endpoint;  // "http(s)://host[:port][/path]", no slash at the end; "" = AWS
  std::string region;    // "" = not said
  enum class Style { kByEndpoint, kPath, kHost } style = Style::kByEndpoint;
  std::string sse;
  std::string sse_kms_key_id;
  std::string storage_class;
  bool operator==(const S3Url&) const = default;
};

// `rest`: all that follows "s3://".
Result<S3Url> ParseS3Url(std::string_view rest);

// What the url leaves open, from the environment and AWS's shared files. BAD_URL for what is no
// endpoint or no region's name there.
Result<S3Url> CompleteS3Url(S3Url url, const Environment& environment);

// Whether that is AWS itself: its promises are known, other servers' are to be proven.
bool IsAws(const S3Url& complete);

// Where requests go: "https://bucket.s3.eu-central-1.amazonaws.com" or
// "http://localhost:9000/bucket". The region learned from AWS may be another one than url.region.
std::string S3BaseUrl(const S3Url& url, std::string_view region);

// Which objects are meant, however server and bucket are spelled: by their names' case, a port that
// goes without saying, the bucket in the path or in the host, one of AWS's names. Not by address: a
// server with two names is two.
std::string S3Place(const S3Url& complete);

}  // namespace guildlite
