#include "vfs/base/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <mutex>

#include "vfs/base/file_io.h"

namespace guildlite {
namespace {

// Between looks at whether a child that has closed its output is gone: it ends at once or hangs.
constexpr int64_t kExitPollMs = 5;

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { Close(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  void Close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

struct Spawned {
  int error = 0;
  pid_t pid = -1;
};

Spawned Spawn(const std::string& command, int output) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  std::string shell = "/bin/sh", option = "-c", text = command;
  const std::array<char*, 4> arguments = {shell.data(), option.data(), text.data(), nullptr};
  Spawned child;
  child.error =
      posix_spawn(&child.pid, shell.c_str(), &actions, &attributes, arguments.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return child;
}

// Until the end of the output, the deadline or too much of it.
Status ReadAll(int fd, int64_t deadline_ms, size_t bytes_max, Clock& clock, std::string& output) {
  for (;;) {
    const int64_t left_ms = deadline_ms - clock.MonotonicMs();
    if (left_ms <= 0) return Status(Tag::kTimeout, "the command did not end in time");
    pollfd waiting = {fd, POLLIN, 0};
    const int ready = poll(&waiting, 1, static_cast<int>(std::min<int64_t>(left_ms, 1 << 30)));
    if (ready == 0 || (ready < 0 && errno == EINTR)) continue;
    if (ready < 0) return ErrnoStatus(errno, "wait for", "the output of a command");
    std::array<char, 4096> chunk;
    const ssize_t n = read(fd, chunk.data(), chunk.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, "read", "the output of a command");
    if (n == 0) return Status::Ok();
    output.append(chunk.data(), static_cast<size_t>(n));
    if (output.size() > bytes_max) {
      return Status(Tag::kLocalIo,
                    "the command printed more than " + std::to_string(bytes_max) + " bytes");
    }
  }
}

Status ExitStatus(int status) {
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return Status::Ok();
  return Status(Tag::kLocalIo,
                WIFEXITED(status)
                    ? "the command ended with exit code " + std::to_string(WEXITSTATUS(status))
                    : "the command was ended by signal " + std::to_string(WTERMSIG(status)));
}

// Until the child is gone or the deadline. kTimeout: it is still there.
Status AwaitExit(pid_t pid, int64_t deadline_ms, Clock& clock) {
  std::mutex mutex;
  std::condition_variable nobody_wakes;
  std::unique_lock lock(mutex);
  for (;;) {
    int status = 0;
    const pid_t got = waitpid(pid, &status, WNOHANG);
    if (got == pid) return ExitStatus(status);
    if (got < 0 && errno == ECHILD) return Status::Ok();  // the host has it
    if (clock.MonotonicMs() >= deadline_ms) {
      return Status(Tag::kTimeout, "the command did not end in time");
    }
    clock.WaitFor(nobody_wakes, lock, kExitPollMs);
  }
}

// Its group too, if it has not ended by itself.
void Stop(pid_t pid) {
  if (waitpid(pid, nullptr, WNOHANG) != 0) return;
  kill(-pid, SIGKILL);
  while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
}

}  // namespace

Result<std::string> RunShellCommand(const std::string& command, int64_t timeout_ms,
                                    size_t output_bytes_max, Clock& clock) {
  std::array<int, 2> ends;
  if (pipe2(ends.data(), O_CLOEXEC) != 0) {
    return ErrnoStatus(errno, "make", "a pipe for the output of a command");
  }
  const Descriptor reading(ends[0]);
  Descriptor writing(ends[1]);
  const Spawned child = Spawn(command, writing.get());
  if (child.error != 0) return ErrnoStatus(child.error, "start", "/bin/sh");
  writing.Close();

  const int64_t deadline_ms = clock.MonotonicMs() + timeout_ms;
  std::string output;
  Status status = ReadAll(reading.get(), deadline_ms, output_bytes_max, clock, output);
  if (status.ok()) status = AwaitExit(child.pid, deadline_ms, clock);
  if (!status.ok()) Stop(child.pid);
  if (!status.ok()) return status;
  return output;
}

}  // namespace guildlite
