#pragma once

#include <boost/describe/class.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "comm/mesh.h"

namespace cachalot {

// What one rank's messages to another take.
struct LinkFigure {
  double microseconds = 0;      // of a small message, one way
  double bytes_per_second = 0;  // of large ones
};
BOOST_DESCRIBE_STRUCT(LinkFigure, (), (microseconds, bytes_per_second))

// [from * size + to] of ranks; nothing from a rank to itself.
struct LinkMatrix {
  int size = 0;
  std::vector<LinkFigure> figures;

  const LinkFigure& at(int from, int to) const { return figures[static_cast<size_t>(from * size + to)]; }
  LinkFigure& at(int from, int to) { return figures[static_cast<size_t>(from * size + to)]; }
};
BOOST_DESCRIBE_STRUCT(LinkMatrix, (), (size, figures))

// Measures every pair, each direction by itself, as many pairs at a time as have no rank in common. Every rank of the
// mesh calls this, and all get the whole matrix. Half a second a round; there is one round fewer than ranks, or as many
// if their number is odd.
Result<LinkMatrix> measure_links(Mesh& mesh);

// Of another process: one among `size` ranks, or an error.
Result<LinkMatrix> parse_link_matrix(const std::string& text, int size);

// Who meets whom in round `round` of a tournament of `size`: the partner of `rank`; -1: nobody.
int partner_in_round(int rank, int size, int round);

}  // namespace cachalot
