// README.md against the code: a table in a document is wrong from the first change nobody told it
// of.
#include <gtest/gtest.h>

#include <string>

#include "guildlite/options.h"
#include "guildlite/status.h"
#include "vfs/base/file_io.h"

namespace guildlite {
namespace {

std::string Readme() {
  auto content = ReadWholeFile(GUILDLITE_TEST_DATA "/../../README.md");
  EXPECT_TRUE(content.ok()) << content.status().ToString();
  return content.ok() ? *content : "";
}

std::string Code(std::string_view text) { return "`" + std::string(text) + "`"; }

std::string OptionRow(const OptionInfo& option) {
  std::string row = "| " + (option.name.empty() ? "" : Code(option.name) + " ") + "| " +
                    Code(option.environment) + " | ";
  if (!option.default_value.empty()) {
    row += option.default_value + (option.unit.empty() ? "" : " " + std::string(option.unit)) + " ";
  }
  return row + "| " + std::string(option.doc) + " |";
}

TEST(Readme, HasTheOptionTableOfTheCode) {
  std::string expected;
  for (const OptionInfo& option : OptionTable()) expected += OptionRow(option) + "\n";
  EXPECT_NE(Readme().find("|---|---|---|---|\n" + expected + "\n"), std::string::npos)
      << "the rows should be\n"
      << expected;
}

TEST(Readme, ExplainsEveryTagAUserCanMeet) {
  const std::string readme = Readme();
  int tags = 0;
  for (int i = static_cast<int>(Tag::kOk) + 1; i < static_cast<int>(Tag::kNotFound); ++i, ++tags) {
    const std::string_view name = TagName(static_cast<Tag>(i));
    EXPECT_NE(readme.find(Code(name)), std::string::npos) << name;
  }
  EXPECT_GT(tags, 30);
}

TEST(Readme, NamesNoTagTheCodeDoesNotHave) {
  const std::string readme = Readme();
  const std::string table = readme.substr(readme.find("| Tag | Code |"));
  size_t rows = 0;
  for (size_t at = table.find("\n| `"); at != std::string::npos; at = table.find("\n| `", at + 1)) {
    const size_t begin = at + 4;
    const std::string name = table.substr(begin, table.find('`', begin) - begin);
    bool known = false;
    for (int i = 0; i < static_cast<int>(Tag::kNotFound); ++i) {
      known = known || TagName(static_cast<Tag>(i)) == name;
    }
    EXPECT_TRUE(known) << name;
    ++rows;
  }
  EXPECT_GT(rows, 20u);
}

}  // namespace
}  // namespace guildlite
