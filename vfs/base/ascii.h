// Text whose case does not depend on the host's language.
//
// Names of headers, settings and switches only: what is beyond ASCII stays as it is.
#pragma once

#include <string>
#include <string_view>

namespace guildlite {

inline std::string LowerCase(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

}  // namespace guildlite
