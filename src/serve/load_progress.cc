#include "serve/load_progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include "base/log.h"

namespace cachalot {

void LoadProgress::report(size_t done, size_t total) {
  const bool terminal = isatty(STDERR_FILENO) != 0;
  const auto now = std::chrono::steady_clock::now();
  const bool finished = done >= total;
  // A small model is loaded before anybody could read a line.
  if (now - last_ < (terminal ? std::chrono::milliseconds(200) : std::chrono::milliseconds(5000)) &&
      !(finished && shown_))
    return;
  last_ = now;
  shown_ = true;
  const double gib = 1 << 30, seconds = std::chrono::duration<double>(now - start_).count();
  const std::string text = fmt::format("loading {:.0f}% ({:.1f} of {:.1f} GiB, {:.0f} s)",
                                       100.0 * static_cast<double>(done) / static_cast<double>(total),
                                       static_cast<double>(done) / gib, static_cast<double>(total) / gib, seconds);
  if (terminal) {
    log::print(stderr, "\r{}{}", text, finished ? "\n" : "");
  } else {
    log::info("{}", text);
  }
}

}  // namespace cachalot
