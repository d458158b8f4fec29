#include "tests/sql/sql_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

extern char** environ;

namespace guildlite::testing {

std::string Answer::Text() const {
  if (!ok()) return "error " + std::to_string(code) + ": " + message;
  std::ostringstream out;
  for (const auto& row : rows) {
    if (&row != &rows.front()) out << '\n';
    for (const auto& value : row) {
      if (&value != &row.front()) out << '|';
      if (const auto* n = std::get_if<int64_t>(&value)) out << *n;
      if (const auto* r = std::get_if<double>(&value)) out << *r;
      if (const auto* t = std::get_if<std::string>(&value)) out << *t;
      if (const auto* b = std::get_if<Blob>(&value)) out << b->bytes;
    }
  }
  return out.str();
}

SqlProcess::SqlProcess(const Environment& environment) {
  std::vector<std::string> variables;
  for (char** e = environ; *e; ++e) {
    const std::string_view v = *e;
    // GTEST_*: a shard or an output file is the test's own.
    if (!v.starts_with("GUILDLITE_") && !v.starts_with("GTEST_")) variables.emplace_back(v);
  }
  for (const auto& [name, value] : environment) variables.push_back(name + "=" + value);
  // Programs here end with connections open, on purpose: what those hold is no leak of ours.
  const char* const sanitizer = std::getenv("ASAN_OPTIONS");
  std::erase_if(variables, [](const std::string& v) { return v.starts_with("ASAN_OPTIONS="); });
  variables.push_back("ASAN_OPTIONS=" + std::string(sanitizer ? sanitizer : "") +
                      ":detect_leaks=0");
  std::string program = GUILDLITE_SQL_CHILD;
  std::vector<char*> argv, envp;
  argv.push_back(program.data());
  for (std::string& s : variables) envp.push_back(s.data());
  argv.push_back(nullptr);
  envp.push_back(nullptr);

  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
  const std::string log = directory_.File("stderr");
  const int out = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  const int err = ::open(log.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  pid_ = ::fork();
  if (pid_ == 0) {
    // A test may act as another user: the program is that user through and through, or its
    // environment would not be readable to it.
    const uid_t user = ::geteuid();
    if (user != ::getuid() && ::setresuid(user, user, user) != 0) ::_exit(1);
    // dup2() of a descriptor to itself would leave close-on-exec set.
    if (ends[1] == kChildFd) {
      ::fcntl(kChildFd, F_SETFD, 0);
    } else {
      ::dup2(ends[1], kChildFd);
    }
    ::dup2(out, STDOUT_FILENO);
    ::dup2(err, STDERR_FILENO);
    ::execve(program.c_str(), argv.data(), envp.data());
    ::_exit(127);
  }
  ::close(ends[1]);
  ::close(out);
  ::close(err);
  socket_ = ends[0];
  const timeval limit = {kAnswerSeconds, 0};
  ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
}

SqlProcess::~SqlProcess() {
  if (pid_ <= 0) return;
  const int status = Exit();
  EXPECT_EQ(status, 0) << Log();
}

void SqlProcess::Send(const std::vector<std::string>& request) {
  EXPECT_TRUE(SendList(socket_, request)) << "the process is gone: " << Log();
}

Answer SqlProcess::Receive() {
  std::vector<std::string> list;
  if (!ReceiveList(socket_, &list) || list.size() < 3) {
    Answer gone{SQLITE_INTERNAL, "the process died or did not answer: " + Log(), {}};
    Kill();
    ADD_FAILURE() << gone.message;
    return gone;
  }
  Answer answer{std::stoi(list[0]), list[0] == "0" ? "" : list[1], {}};
  const size_t columns = std::stoul(list[2]);
  for (size_t i = 3; columns != 0 && i < list.size(); i += columns) {
    auto& row = answer.rows.emplace_back();
    for (size_t c = 0; c < columns; ++c) row.push_back(DecodeValue(list[i + c]));
  }
  return answer;
}

Answer SqlProcess::Call(const std::vector<std::string>& request) {
  Send(request);
  return Receive();
}

void SqlProcess::HoldStores(bool held, const std::string& part) {
  Call({"hold", held ? "1" : "0", part});
}

Connection SqlProcess::Open(const std::string& path, int flags) {
  const Answer answer = Call({"open", path, std::to_string(flags)});
  const std::string id = answer.rows.empty() ? "" : std::get<std::string>(answer.rows[0][0]);
  return Connection(this, id, answer.code);
}

void SqlProcess::Kill() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  ::close(socket_);
  pid_ = -1;
}

int SqlProcess::Exit() {
  if (pid_ <= 0) return -1;
  ::shutdown(socket_, SHUT_WR);
  // It closes its end by exiting, even where it has something to flush first.
  char byte;
  const ssize_t n = ::recv(socket_, &byte, 1, 0);
  if (n != 0) {
    ADD_FAILURE() << "the process does not exit: " << Log();
    Kill();
    return -1;
  }
  int status = 0;
  ::waitpid(pid_, &status, 0);
  ::close(socket_);
  pid_ = -1;
  return status;
}

std::string SqlProcess::Log() const { return FileBytes(directory_.File("stderr")); }

Answer Connection::Run(const std::string& sql, const std::vector<Value>& values) {
  Send(sql, values);
  return Receive();
}

void Connection::Send(const std::string& sql, const std::vector<Value>& values) {
  std::vector<std::string> request = {"run", id_, sql};
  for (const Value& v : values) request.push_back(EncodeValue(v));
  process_->Send(request);
}

Answer Connection::Receive() { return process_->Receive(); }

void Connection::Ok(const std::string& sql, const std::vector<Value>& values) {
  const Answer answer = Run(sql, values);
  EXPECT_TRUE(answer.ok()) << sql << ": " << answer.Text() << "\n" << process_->Log();
}

std::string Connection::Text(const std::string& sql, const std::vector<Value>& values) {
  const Answer answer = Run(sql, values);
  EXPECT_TRUE(answer.ok()) << sql << ": " << answer.Text() << "\n" << process_->Log();
  return answer.Text();
}

int64_t Connection::Number(const std::string& sql, const std::vector<Value>& values) {
  const Answer answer = Run(sql, values);
  EXPECT_TRUE(answer.ok()) << sql << ": " << answer.Text() << "\n" << process_->Log();
  if (answer.rows.empty()) return INT64_MIN;
  const auto* number = std::get_if<int64_t>(&answer.rows[0][0]);
  return number ? *number : INT64_MIN;
}

Answer Connection::Load(const std::string& module) { return process_->Call({"load", id_, module}); }

std::string Connection::Content() {
  const Answer answer = process_->Call({"content", id_});
  EXPECT_TRUE(answer.ok()) << answer.Text();
  return answer.rows.empty() ? "" : std::get<Blob>(answer.rows[0][0]).bytes;
}

int Connection::Close() { return process_->Call({"close", id_}).code; }

ShellAnswer Shell(const std::string& database, const std::string& sql) {
  std::vector<std::string> arguments = {"/usr/bin/sqlite3", "-batch", "-cmd",
                                        ".timeout 10000",   database, sql};
  std::vector<char*> argv;
  for (std::string& s : arguments) argv.push_back(s.data());
  argv.push_back(nullptr);
  int pipe_ends[2];
  if (::pipe2(pipe_ends, O_CLOEXEC) != 0) std::abort();
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::dup2(pipe_ends[1], STDOUT_FILENO);
    ::dup2(pipe_ends[1], STDERR_FILENO);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  ::close(pipe_ends[1]);
  ShellAnswer answer;
  char buffer[4096];
  ssize_t n = 0;
  while ((n = ::read(pipe_ends[0], buffer, sizeof buffer)) > 0) {
    answer.output.append(buffer, static_cast<size_t>(n));
  }
  ::close(pipe_ends[0]);
  int status = 0;
  ::waitpid(pid, &status, 0);
  answer.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  while (answer.output.ends_with('\n')) answer.output.pop_back();
  return answer;
}

std::string FileBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void WriteFileBytes(const std::string& path, const std::string& bytes) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << bytes;
  file.close();
  EXPECT_TRUE(file.good()) << path;
}

std::vector<std::string> FilesBelow(const std::string& directory) {
  std::vector<std::string> files;
  if (!std::filesystem::exists(directory)) return files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    if (!entry.is_regular_file()) continue;
    const std::string name = entry.path().filename();
    if (name.starts_with(".")) continue;
    files.push_back(std::filesystem::relative(entry.path(), directory));
  }
  std::ranges::sort(files);
  return files;
}

uint64_t BytesBelow(const std::string& directory) {
  uint64_t bytes = 0;
  for (const std::string& f : FilesBelow(directory)) {
    bytes += std::filesystem::file_size(directory + "/" + f);
  }
  return bytes;
}

std::vector<std::string> NamesIn(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    names.push_back(entry.path().filename());
  }
  std::ranges::sort(names);
  return names;
}

std::string Difference(const std::string& expected, const std::string& got) {
  if (expected == got) return "";
  if (expected.size() < 100 || got.size() < 100) {
    return std::to_string(got.size()) + " bytes, not " + std::to_string(expected.size());
  }
  size_t page_size =
      static_cast<unsigned char>(expected[16]) * 256u + static_cast<unsigned char>(expected[17]);
  if (page_size == 1) page_size = 65536;
  std::ostringstream out;
  out << got.size() / page_size << " pages, expected " << expected.size() / page_size << "; other:";
  int named = 0;
  for (size_t at = 0; at + page_size <= std::min(expected.size(), got.size()); at += page_size) {
    if (expected.compare(at, page_size, got, at, page_size) == 0) continue;
    if (++named <= 10) out << ' ' << at / page_size + 1;
  }
  out << " (" << named << " pages)";
  return out.str();
}

Connection SqlTest::OpenLoaded(SqlProcess& process, const std::string& path) {
  Connection db = process.Open(path);
  EXPECT_EQ(db.open_code(), SQLITE_OK) << path;
  const Answer loaded = db.Load();
  EXPECT_TRUE(loaded.ok()) << loaded.Text();
  return db;
}

Connection SqlTest::OpenStarted(SqlProcess& process, const std::string& path,
                                const std::string& url) {
  Connection db = OpenLoaded(process, path);
  db.Ok("SELECT replication_start(?)", {url});
  return db;
}

Connection& SqlTest::Reader() {
  if (!reader_process_) {
    reader_process_ = std::make_unique<SqlProcess>();
    reader_ = OpenLoaded(*reader_process_, ":memory:");
  }
  return reader_;
}

Answer SqlTest::RestoreTo(const std::string& path, const std::string& url, const Value& at) {
  return Reader().Run("SELECT snapshot_restore(?, ?, ?)", {path, url, at});
}

std::string SqlTest::Restored(const std::string& url, const Value& at) {
  const std::string path = Path("restored-" + std::to_string(++restores_));
  const Answer answer = RestoreTo(path, url, at);
  EXPECT_TRUE(answer.ok()) << answer.Text();
  std::string bytes = FileBytes(path);
  std::filesystem::remove(path);
  return bytes;
}

std::string SqlTest::StockContent(const std::string& path) {
  SqlProcess stock;
  Connection db = stock.Open(path);
  std::string content = db.Content();
  EXPECT_EQ(db.Close(), SQLITE_OK);
  return content;
}

void SqlTest::ExpectInStore(Connection& owner, const std::string& url) {
  owner.Ok("SELECT replication_sync()");
  EXPECT_EQ(Difference(owner.Content(), Restored(url)), "");
}

// -- Claims of its own ---------------------------------------------------------------------------

TEST(SqlProcess, AnswersWithRowsOfEveryTypeOrWithCodeAndMessage) {
  SqlProcess process;
  Connection db = process.Open(":memory:");
  const std::vector<Value> values = {int64_t{-5}, 0.5, std::string("a"), Blob{{"\0b", 2}}, {}};
  const Answer answer = db.Run("SELECT ?, ?, ?, ?, ?", values);
  ASSERT_EQ(answer.rows.size(), 1u);
  EXPECT_EQ(answer.rows[0], values);
  const Answer error = db.Run("SELECT * FROM missing");
  EXPECT_EQ(error.code, SQLITE_ERROR);
  EXPECT_EQ(error.message, "no such table: missing");
  EXPECT_EQ(db.Text("VALUES (1, 'x'), (2, 'y')"), "1|x\n2|y");
}

TEST(SqlProcess, HasNothingLoadedUntilLoadIsCalled) {
  SqlProcess process;
  Connection db = process.Open(":memory:");
  EXPECT_FALSE(db.Run("SELECT guildlite_version()").ok());
  const Answer loaded = db.Load();
  ASSERT_TRUE(loaded.ok()) << loaded.Text();
  EXPECT_TRUE(db.Text("SELECT guildlite_version()").starts_with("guildlite "));
}

TEST(SqlProcess, IsGoneAfterKillAndLeavesWhatItCommitted) {
  TempDir directory;
  SqlProcess process;
  Connection db = process.Open(directory.File("a.db"));
  db.Ok("CREATE TABLE t(a); INSERT INTO t VALUES (7)");
  process.Kill();
  const ShellAnswer shell = Shell(directory.File("a.db"), "SELECT a FROM t");
  EXPECT_EQ(shell.status, 0);
  EXPECT_EQ(shell.output, "7");
}

}  // namespace guildlite::testing
