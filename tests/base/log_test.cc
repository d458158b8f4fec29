#include "vfs/base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/sim_clock.h"

namespace guildlite {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class LogTest : public ::testing::Test {
 protected:
  Logger Make(LogLevel level, bool json = false) {
    return Logger(clock_, {level, json},
                  [this](std::string_view line) { lines_.emplace_back(line); });
  }

  SimClock clock_{1767323045678};
  std::vector<std::string> lines_;
};

TEST_F(LogTest, WritesOneLineOfText) {
  Logger logger = Make(LogLevel::kWarn);
  logger.Log(LogLevel::kWarn, "FENCED", "/data/app.db", "epoch 3 belongs to another writer");
  logger.Log(LogLevel::kWarn, "TIMEOUT", "", "no database");
  ASSERT_EQ(lines_.size(), 2u);
  EXPECT_EQ(
      lines_[0],
      "2026-01-02T03:04:05.678Z guildlite warn FENCED /data/app.db: epoch 3 belongs to another "
      "writer\n");
  EXPECT_EQ(lines_[1], "2026-01-02T03:04:05.678Z guildlite warn TIMEOUT: no database\n");
}

TEST_F(LogTest, WritesOneLineOfJson) {
  Logger logger = Make(LogLevel::kWarn, true);
  logger.Log(LogLevel::kWarn, "FENCED", "/data/\"a\"\xff", "line\nbreak");
  ASSERT_EQ(lines_.size(), 1u);
  EXPECT_EQ(lines_[0].find('\n'), lines_[0].size() - 1);
  const auto parsed = nlohmann::json::parse(lines_[0], nullptr, false);
  ASSERT_TRUE(parsed.is_object()) << lines_[0];
  EXPECT_EQ(parsed["time"], "2026-01-02T03:04:05.678Z");
  EXPECT_EQ(parsed["level"], "warn");
  EXPECT_EQ(parsed["tag"], "FENCED");
  EXPECT_EQ(parsed["message"], "line\nbreak");
}

TEST_F(LogTest, LevelsDecide) {
  for (const LogLevel level :
       {LogLevel::kOff, LogLevel::kWarn, LogLevel::kInfo, LogLevel::kDebug}) {
    lines_.clear();
    Logger logger = Make(level);
    logger.Log(LogLevel::kWarn, "A", "", "");
    logger.Log(LogLevel::kInfo, "B", "", "");
    logger.Log(LogLevel::kDebug, "C", "", "");
    logger.Log(LogLevel::kOff, "D", "", "");
    EXPECT_EQ(lines_.size(), static_cast<size_t>(level));
  }
}

TEST_F(LogTest, AMessageCannotForgeALineOrControlATerminal) {
  Logger logger = Make(LogLevel::kWarn);
  logger.Log(LogLevel::kWarn, "A", "/x\ny", "one\ntwo\x1b[2J\r\x7f");
  ASSERT_EQ(lines_.size(), 1u);
  EXPECT_THAT(lines_[0], HasSubstr(" /x\\ny: one\\ntwo\\x1b[2J\\x0d\\x7f\n"));
}

TEST_F(LogTest, ALineFitsIntoAPipesAtomicWrite) {
  for (const bool json : {false, true}) {
    for (const std::string& unit : {std::string("x"), std::string(1, '\0'), std::string("\xff")}) {
      lines_.clear();
      Logger logger = Make(LogLevel::kWarn, json);
      std::string message;
      for (int i = 0; i < 10000; ++i) message += unit;
      logger.Log(LogLevel::kWarn, "A", message, message);
      ASSERT_EQ(lines_.size(), 1u);
      for (const auto& line : lines_) {
        EXPECT_LE(line.size(), Logger::kLineBytesMax);
        EXPECT_THAT(line, HasSubstr("..."));
        EXPECT_EQ(line.back(), '\n');
      }
    }
  }
}

TEST_F(LogTest, LimitsEachTagAndDatabaseByTheMinuteAndSaysSo) {
  Logger logger = Make(LogLevel::kWarn);
  for (int i = 0; i < 25; ++i) logger.Log(LogLevel::kWarn, "A", "db1", "down");
  ASSERT_EQ(lines_.size(), 10u);
  EXPECT_THAT(lines_[8], Not(HasSubstr("left out")));
  EXPECT_THAT(lines_[9], HasSubstr("down [more like this within a minute will be left out]\n"));
  logger.Log(LogLevel::kWarn, "A", "db2", "down");
  logger.Log(LogLevel::kWarn, "B", "db1", "down");
  EXPECT_EQ(lines_.size(), 12u);
  clock_.Advance(59999);
  logger.Log(LogLevel::kWarn, "A", "db1", "down");
  EXPECT_EQ(lines_.size(), 12u);
  clock_.Advance(1);
  logger.Log(LogLevel::kWarn, "A", "db1", "down");
  ASSERT_EQ(lines_.size(), 13u);
  EXPECT_THAT(lines_[12], HasSubstr("down [16 more like this before were left out]\n"));
  logger.Log(LogLevel::kWarn, "A", "db1", "down");
  EXPECT_THAT(lines_.back(), Not(HasSubstr("left out")));
}

TEST_F(LogTest, DebugIsNotLimited) {
  Logger logger = Make(LogLevel::kDebug);
  for (int i = 0; i < 25; ++i) logger.Log(LogLevel::kDebug, "A", "", "detail");
  EXPECT_EQ(lines_.size(), 25u);
}

TEST_F(LogTest, RemembersABoundedNumberOfPlaces) {
  Logger logger = Make(LogLevel::kWarn);
  const size_t places = Logger::kPlacesMax;
  for (size_t i = 0; i < places; ++i) logger.Log(LogLevel::kWarn, "A", std::to_string(i), "");
  for (size_t i = 0; i < 100; ++i) logger.Log(LogLevel::kWarn, "B", std::to_string(i), "");
  EXPECT_EQ(lines_.size(), places + Logger::kLinesPerMinute) << "the rest shares one place";
  clock_.Advance(60000);
  lines_.clear();
  for (size_t i = 0; i < 100; ++i) logger.Log(LogLevel::kWarn, "C", std::to_string(i), "");
  EXPECT_EQ(lines_.size(), 100u) << "quiet places make room";
}

std::vector<std::string>* hooked = nullptr;

TEST_F(LogTest, TheHookGetsWhatIsPrinted) {
  std::vector<std::string> texts;
  hooked = &texts;
  Logger logger = Make(LogLevel::kWarn);
  logger.SetHook([](LogLevel, const char* text) { hooked->emplace_back(text); });
  logger.Log(LogLevel::kWarn, "A", "/db", "text");
  logger.Log(LogLevel::kInfo, "B", "/db", "not enabled");
  logger.SetHook(nullptr);
  logger.Log(LogLevel::kWarn, "C", "", "not hooked");
  EXPECT_EQ(texts, std::vector<std::string>{"A /db: text"});
}

TEST_F(LogTest, IsSafeFromManyThreads) {
  std::atomic<size_t> lines{0};
  Logger logger(clock_, {LogLevel::kWarn, false}, [&](std::string_view) { ++lines; });
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i) logger.Log(LogLevel::kWarn, "A", "db", "x");
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_GE(lines, size_t{Logger::kLinesPerMinute});
  EXPECT_LE(lines, 2000u);
}

TEST_F(LogTest, SettingsComeFromTheEnvironment) {
  const auto settings = [](const std::string& level, const std::string& format) {
    return LogSettingsFrom([=](const std::string& name) -> std::optional<std::string> {
      if (name == "GUILDLITE_LOG" && !level.empty()) return level;
      if (name == "GUILDLITE_LOG_FORMAT" && !format.empty()) return format;
      return std::nullopt;
    });
  };
  EXPECT_EQ(settings("", "").level, LogLevel::kWarn);
  EXPECT_FALSE(settings("", "").json);
  EXPECT_EQ(settings("off", "json").level, LogLevel::kOff);
  EXPECT_TRUE(settings("off", "json").json);
  EXPECT_EQ(settings("info", "text").level, LogLevel::kInfo);
  EXPECT_EQ(settings("debug", "").level, LogLevel::kDebug);
  EXPECT_EQ(settings("loud", "xml").level, LogLevel::kWarn);
}

TEST(WriteLine, DoesNotKillAHostWhoseStderrIsClosed) {
  std::array<int, 2> fds;
  ASSERT_EQ(::pipe(fds.data()), 0);
  WriteLine(fds[1], "a line\n");
  std::array<char, 64> read{};
  ASSERT_EQ(::read(fds[0], read.data(), read.size()), 7);
  EXPECT_STREQ(read.data(), "a line\n");
  ::close(fds[0]);
  WriteLine(fds[1], "nobody reads\n");  // SIGPIPE's default action would end this test
  sigset_t pending;
  ASSERT_EQ(sigpending(&pending), 0);
  EXPECT_EQ(sigismember(&pending, SIGPIPE), 0);
  ::close(fds[1]);
  WriteLine(fds[1], "closed\n");
}

TEST(ProcessLog, IsOneForTheProcess) { EXPECT_EQ(&ProcessLogger(), &ProcessLogger()); }

}  // namespace
}  // namespace guildlite
