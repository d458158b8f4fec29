// Credentials from an endpoint beside the program: what ECS, EKS and EC2 give their containers and
// machines.
//
//   docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
//   docs.aws.amazon.com/eks/latest/userguide/pod-identities.html
//   docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
//
// What answers on this machine is asked through no proxy: another machine has other credentials,
// and who runs the proxy is not to see these. Only version 2 of the instance's metadata service is
// asked: version 1 gives the credentials to whoever can make a program fetch a url.
#pragma once

#include <string_view>

#include "guildlite/options.h"
#include "guildlite/status.h"
#include "vfs/objects/credentials_source.h"
#include "vfs/objects/http_client.h"

namespace guildlite {

// As a source (credentials_source.h): AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI, with
// AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE or _TOKEN.
Result<FoundCredentials> CredentialsFromContainer(const Environment& environment, HttpClient& http);

// A url that may be sent the token: https, or http to this machine (a loopback address or
// "localhost") or to where ECS (169.254.170.2) and EKS (169.254.170.23, fd00:ec2::23) answer.
bool IsContainerUrl(std::string_view url);

// As a source: the instance's metadata service, unless AWS_EC2_METADATA_DISABLED is "true"; at
// AWS_EC2_METADATA_SERVICE_ENDPOINT, else http://169.254.169.254. Nobody there is kNotFound: most
// machines are no instance of EC2.
Result<FoundCredentials> CredentialsFromInstance(const Environment& environment, HttpClient& http);

}  // namespace guildlite
