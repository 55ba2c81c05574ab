#pragma once

#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>

#include "base/error.h"
#include "base/process.h"

namespace cachalot {

// A copy of this process, of its calling thread alone, that runs the body and ends with its answer, or with the
// calling thread. For tests: the program itself only starts programs.
template <class Body>
Process fork_process(Body body) {
  const pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    _exit(static_cast<int>(body()));
  }
  return Process::adopt(pid);
}

}  // namespace cachalot
