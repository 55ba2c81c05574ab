#include "preflight/node_helper.h"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <memory>

#include "base/file.h"
#include "comm/world.h"
#include "config/version.h"
#include "preflight/json_fields.h"
#include "preflight/link_matrix.h"
#include "preflight/node_report.h"
#include "preflight/node_runner.h"

namespace cachalot {
namespace {

template <class T>
void give(const T& answer) {
  fmt::print("{}{}\n", kAnswerMark, to_json_line(answer));
  std::fflush(stdout);
}

}  // namespace

Status answer_inspection(const std::string& text) {
  ASSIGN_OR_RETURN(const NodeQuestion question, from_json_line<NodeQuestion>(text));
  give(inspect_node(question));
  return {};
}

Status answer_links(const std::string& text) {
  ASSIGN_OR_RETURN(const LinkQuestion question, from_json_line<LinkQuestion>(text));
  WorldOptions options{.join = {.rank = question.rank,
                                .size = question.size,
                                .host = question.host,
                                .port = static_cast<uint16_t>(question.port),
                                .program_version = kVersion,
                                .label = "link check",
                                .join_timeout = std::chrono::seconds(20),
                                .failure_timeout = std::chrono::seconds(5)},
                       .network_interface = question.network_interface,
                       .deadline = std::chrono::seconds(20)};
  if (!question.group_secret_file.empty()) {
    ASSIGN_OR_RETURN(options.join.secret, read_file(question.group_secret_file));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<World> world, World::form(std::move(options)));
  RETURN_IF_ERROR(world->membership().wait_until_all_ready());
  ASSIGN_OR_RETURN(const LinkMatrix matrix, measure_links(world->mesh()));
  world->membership().leave();
  give(matrix);
  return {};
}

}  // namespace cachalot
