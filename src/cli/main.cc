#include "base/error.h"
#include "base/stop_signals.h"
#include "cli/commands.h"
#include "config/end_report.h"

int main(int argc, char** argv) {
  cachalot::take_stop_signals();
  cachalot::take_end_report();
  cachalot::set_fault_report([](std::string_view message) {
    cachalot::report_end({cachalot::ErrorCode::kInternal, std::string(message), {}});
  });
  return cachalot::run_program({argv + 1, argv + argc});
}
