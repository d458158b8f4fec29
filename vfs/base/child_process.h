// Runs a command of the user's and takes what it prints, within a time and a size.
//
//   1. The child gets nothing of the host's but its environment, working directory and stderr:
//      stdin is /dev/null, signals are as at the start of a program (our threads block them, hosts
//      ignore some), and it has a process group of its own.
//   2. It is gone when the call returns, with its process group when it had to be stopped.
//   3. A host that waits for every child itself (waitpid(-1), or SIGCHLD ignored) may take the exit
//      code away; then what was printed has to do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "guildlite/clock.h"
#include "guildlite/status.h"

namespace guildlite {

// What /bin/sh -c `command` printed. kTimeout; kLocalIo: it cannot be started, ended with something
// else than exit code 0, or printed more than `output_bytes_max`. No message holds the command or
// what it printed: both may be secret.
Result<std::string> RunShellCommand(const std::string& command, int64_t timeout_ms,
                                    size_t output_bytes_max, Clock& clock);

}  // namespace guildlite
