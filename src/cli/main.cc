#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <system_error>

#include "base/log.h"
#include "base/stop_signals.h"
#include "cli/commands.h"
#include "cli/nearest_flag.h"
#include "config/end_report.h"
#include "config/version.h"

int main(int argc, char** argv) {
  using namespace cachalot;  // NOLINT(google-build-using-namespace)
  take_stop_signals();
  take_end_report();
  CLI::App app{"Cachalot serves DeepSeek-R1 and its relatives (V2, V2-Lite, V3, Moonlight) on ordinary servers."};
  app.set_version_flag("--version", std::string("cachalot ") + kVersion);
  app.require_subcommand(1);
  app.fallthrough();  // --log-level may also stand behind the subcommand
  std::string log_level = "info";
  app.add_option("--log-level", log_level, "debug, info, warning, error or off")
      ->check(CLI::IsMember({"debug", "info", "warning", "error", "off"}))
      ->capture_default_str();
  app.parse_complete_callback([&] { log::init(log_level, ""); });
  add_serve_command(app);
  add_router_command(app);
  add_chat_command(app);
  add_logits_command(app);
  add_eval_command(app);
  add_synth_command(app);
  add_quantize_command(app);
  add_bench_command(app);
  add_up_command(app);
  add_down_command(app);
  add_status_command(app);
  add_lease_command(app);
  add_check_command(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ExtrasError&) {
    const auto commands = app.get_subcommands();
    const std::string what = describe_unknown(commands.empty() ? app : *commands.front(), app.remaining(true));
    fmt::print(stderr, "cachalot: {}\n", what);
    report_end({ErrorCode::kInvalidArgument, what, {}});
    return 2;
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0 && error.get_name() != "RuntimeError")
      report_end({ErrorCode::kInvalidArgument, error.what(), {}});
    return app.exit(error);
  } catch (const std::system_error& error) {  // of a print, most likely: nobody reads the output any more
    if (error.code() == std::errc::broken_pipe) return 128 + SIGPIPE;
    fmt::print(stderr, "cachalot: {}\n", error.what());
    return 1;
  }
  return 0;
}
