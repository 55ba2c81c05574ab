#pragma once

#include <string>

#include "base/error.h"

// What the checking machine has other nodes do: `cachalot check --answer QUESTION` there. Answers go to the standard
// output behind kAnswerMark (preflight/node_runner.h).
namespace cachalot {

// This rank among one a node, to measure the links.
struct LinkQuestion {
  int rank = 0, size = 1;
  std::string host;  // of the first node
  int port = 0;
  std::string network_interface, group_secret_file;

  template <class Archive, class Self>
  static void fields(Archive& archive, Self& self) {
    archive("rank", self.rank);
    archive("size", self.size);
    archive("host", self.host);
    archive("port", self.port);
    archive("network_interface", self.network_interface);
    archive("group_secret_file", self.group_secret_file);
  }
};

// Answers a question that the checking machine made: a NodeQuestion or a LinkQuestion as JSON.
Status answer_inspection(const std::string& question);
Status answer_links(const std::string& question);

}  // namespace cachalot
