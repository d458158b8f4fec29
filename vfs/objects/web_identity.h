// A role taken by a token that somebody else vouches for: Kubernetes (EKS: IAM roles for service
// accounts), or any other OpenID Connect provider that AWS was told to trust.
//
//   docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
//   docs.aws.amazon.com/sdkref/latest/guide/feature-assume-role-credentials.html
//   docs.aws.amazon.com/sdkref/latest/guide/feature-sts-regionalized-endpoints.html
#pragma once

#include <string>
#include <string_view>

#include "guildlite/options.h"
#include "guildlite/status.h"
#include "vfs/objects/credentials_source.h"
#include "vfs/objects/http_client.h"

namespace guildlite {

struct WebIdentity {
  std::string token_file;
  std::string role_arn;
  std::string session_name;  // "" = ours
};

// As a source (credentials_source.h): AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN and
// AWS_ROLE_SESSION_NAME. `region` as for AssumeRole.
Result<FoundCredentials> CredentialsFromWebIdentity(const Environment& environment,
                                                    std::string_view region, HttpClient& http);

// Asks STS: at AWS_ENDPOINT_URL_STS, AWS_ENDPOINT_URL, or its own endpoint in `region` ("" = the
// global one). The token file is read each time: who wrote it replaces it before it ends.
Result<FoundCredentials> AssumeRole(const WebIdentity& identity, const Environment& environment,
                                    std::string_view region, HttpClient& http);

}  // namespace guildlite
