#include "bench/collective_table.h"

#include <gmock/gmock.h>

#include <sstream>

namespace cachalot {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) {
    if (!part.empty()) parts.push_back(part);
  }
  return parts;
}

const CollectiveFigure kFigure{
    .size = {.bytes = 262'144, .count = 32'768}, .seconds = 126e-6, .bytes_sent = 229'376, .was_checked = true};

TEST(CollectiveTable, ARowHasTheColumnsOfNcclTestsWithWrongLast) {
  const CollectiveTable table{.name = "alltoall", .type = "uint8"};
  std::string row = table.row(kFigure);
  EXPECT_EQ(row.back(), '\n');
  row.pop_back();
  EXPECT_THAT(split(row, ' '), ElementsAre("262144", "32768", "uint8", "126.00", "2.081", "1.820", "0"));
}

TEST(CollectiveTable, AnUncheckedRowSaysSo) {
  CollectiveFigure figure = kFigure;
  figure.was_checked = false;
  EXPECT_EQ(split(split(CollectiveTable{.type = "int8"}.row(figure), '\n')[0], ' ').back(), "N/A");
}

TEST(CollectiveTable, AllOtherLinesStartWithAHash) {
  const CollectiveTable table{.name = "dispatch", .type = "int8", .size_unit = "rows"};
  const std::string header = table.header({{"one", 17, ""}, {"other", 18, "ucx"}}, {.min_size = 1, .max_size = 64});
  EXPECT_THAT(split(header, '\n'), Each(StartsWith("#")));
  EXPECT_THAT(header, HasSubstr("Rank   1 Pid      18 on other through ucx"));
  EXPECT_THAT(header, HasSubstr("(rows)"));
  EXPECT_THAT(split(CollectiveTable::footer({kFigure}), '\n'), Each(StartsWith("#")));
}

TEST(CollectiveTable, TheEndTellsWhetherAnythingWasWrong) {
  EXPECT_THAT(CollectiveTable::footer({kFigure, kFigure}), HasSubstr(": 0 OK"));
  CollectiveFigure wrong = kFigure;
  wrong.num_wrong = 3;
  EXPECT_THAT(CollectiveTable::footer({kFigure, wrong}), HasSubstr(": 3 FAILED"));
}

}  // namespace
}  // namespace cachalot
