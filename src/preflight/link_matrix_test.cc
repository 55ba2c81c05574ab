#include "preflight/link_matrix.h"

#include <gtest/gtest.h>

#include <set>
#include <thread>

#include "comm/local_mesh_test_util.h"

namespace cachalot {
namespace {

TEST(LinkMatrix, EveryPairMeetsOnceInRoundsOfDisjointPairs) {
  for (const int size : {2, 3, 4, 7, 8}) {
    std::set<std::pair<int, int>> met;
    for (int round = 0; round < size + size % 2 - 1; round++) {
      for (int rank = 0; rank < size; rank++) {
        const int partner = partner_in_round(rank, size, round);
        if (partner < 0) {
          EXPECT_EQ(size % 2, 1) << "only of an odd number one has nobody";
          continue;
        }
        ASSERT_LT(partner, size);
        EXPECT_NE(partner, rank);
        EXPECT_EQ(partner_in_round(partner, size, round), rank);
        if (rank < partner) {
          EXPECT_TRUE(met.emplace(rank, partner).second) << rank << " and " << partner << " meet again";
        }
      }
    }
    EXPECT_EQ(std::ssize(met), size * (size - 1) / 2) << size;
  }
}

TEST(LinkMatrix, OfAnotherShapeThanWasAskedForIsRefused) {
  const std::string one = R"({"microseconds": 1, "bytes_per_second": 2})",
                    four = one + "," + one + "," + one + "," + one;
  EXPECT_TRUE(parse_link_matrix(R"({"size": 2, "figures": [)" + four + "]}", 2));
  for (const std::string& text :
       {R"({"size": 100, "figures": [)" + four + "]}", R"({"size": 2, "figures": [)" + one + "]}",
        R"({"size": -2, "figures": [)" + four + "]}", std::string("\x1b[2J")}) {
    const auto matrix = parse_link_matrix(text, 2);
    ASSERT_FALSE(matrix) << text;
    EXPECT_EQ(matrix.error().message.find('\x1b'), std::string::npos);
  }
}

TEST(LinkMatrix, MeasuresEachDirectionOfEachPairAndTellsAll) {
  constexpr int kSize = 3;
  auto meshes = make_local_mesh(kSize);
  ASSERT_TRUE(meshes);
  std::vector<Result<LinkMatrix>> matrices(kSize);
  {
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < kSize; rank++) {
      const auto idx = static_cast<size_t>(rank);
      threads.emplace_back([&, idx] { matrices[idx] = measure_links(*(*meshes)[idx]); });
    }
  }
  for (const Result<LinkMatrix>& matrix : matrices) {
    ASSERT_TRUE(matrix) << matrix.error().message;
    for (int from = 0; from < kSize; from++) {
      for (int to = 0; to < kSize; to++) {
        const LinkFigure& figure = matrix->at(from, to);
        EXPECT_EQ(figure.microseconds > 0, from != to);
        EXPECT_EQ(figure.bytes_per_second > 1e6, from != to);
        EXPECT_EQ(figure.microseconds, matrices[0]->at(from, to).microseconds);
      }
    }
  }
}

}  // namespace
}  // namespace cachalot
