#include "vfs/base/child_process.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "tests/support/temp_dir.h"
#include "vfs/base/file_io.h"

namespace guildlite {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kLongMs = 60000;

Result<std::string> Shell(const std::string& command, int64_t timeout_ms = kLongMs,
                          size_t bytes_max = 65536) {
  return RunShellCommand(command, timeout_ms, bytes_max, SystemClock());
}

bool HasNoChild() { return waitpid(-1, nullptr, WNOHANG) < 0 && errno == ECHILD; }

TEST(ChildProcess, GivesBackWhatWasPrinted) {
  const auto printed = Shell("printf '%s|' \"a  b\" \"$1\" c; cat");  // stdin is empty
  ASSERT_TRUE(printed.ok()) << printed.status().ToString();
  EXPECT_EQ(*printed, "a  b||c|");
  EXPECT_EQ(*Shell("true"), "");
  EXPECT_TRUE(HasNoChild());
}

TEST(ChildProcess, SaysHowItEndedAndNothingElse) {
  const auto failed = Shell("echo secret-output; exit 3 # secret-argument");
  EXPECT_EQ(failed.status().tag(), Tag::kLocalIo);
  EXPECT_THAT(failed.status().message(), HasSubstr("exit code 3"));
  EXPECT_THAT(failed.status().message(), Not(HasSubstr("secret")));
  const auto killed = Shell("kill -9 $$");
  EXPECT_THAT(killed.status().message(), HasSubstr("signal 9"));
  EXPECT_THAT(Shell("/no/such/program 2>/dev/null").status().message(), HasSubstr("exit code 127"));
}

TEST(ChildProcess, StopsWhatPrintsWithoutEnd) {
  const auto endless = Shell("while :; do echo more; done", kLongMs, 1000);
  EXPECT_EQ(endless.status().tag(), Tag::kLocalIo);
  EXPECT_THAT(endless.status().message(), HasSubstr("more than 1000 bytes"));
  EXPECT_TRUE(HasNoChild());
  EXPECT_EQ(Shell("printf 1234", kLongMs, 4)->size(), 4u);
  EXPECT_FALSE(Shell("printf 12345", kLongMs, 4).ok());
}

TEST(ChildProcess, StopsWhatHangsWithAllOfItsGroup) {
  // A grandchild holds the pipe, and one that has closed it stays.
  EXPECT_EQ(Shell("sleep 1000 | cat", 50).status().tag(), Tag::kTimeout);
  EXPECT_EQ(Shell("exec >/dev/null; exec sleep 1000", 50).status().tag(), Tag::kTimeout);
  EXPECT_TRUE(HasNoChild());

  // Whoever is left of the group keeps this open.
  int ends[2];
  ASSERT_EQ(pipe2(ends, 0), 0);
  EXPECT_EQ(Shell("sleep 1000 & sleep 1000", 50).status().tag(), Tag::kTimeout);
  close(ends[1]);
  char byte;
  EXPECT_EQ(read(ends[0], &byte, 1), 0);
  close(ends[0]);
}

TEST(ChildProcess, StartsWithSignalsAsAProgramExpectsThem) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const auto killed = Shell("kill -TERM $$; echo survived");
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  EXPECT_THAT(killed.status().message(), HasSubstr("signal 15"));
}

TEST(ChildProcess, TakesTheOutputWhereTheHostTakesTheExitCode) {
  struct sigaction ignore {};
  struct sigaction before {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGCHLD, &ignore, &before);
  const auto printed = Shell("echo out");
  sigaction(SIGCHLD, &before, nullptr);
  ASSERT_TRUE(printed.ok()) << printed.status().ToString();
  EXPECT_EQ(*printed, "out\n");
}

TEST(ChildProcess, InheritsNoFileOfOurs) {
  TempDir directory;
  const auto file = File::Open(directory.File("x"), O_CREAT | O_RDWR);
  const auto listed = Shell("test -e /proc/self/fd/" + std::to_string(file->fd()) +
                            " && echo there || echo not there");
  EXPECT_EQ(*listed, "not there\n");
}

}  // namespace
}  // namespace guildlite
