#pragma once

#include <signal.h>
#include <sys/types.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "base/file_descriptor.h"

namespace cachalot {

struct ProgramStart {
  std::string program;             // looked for as a shell does; empty: the first of `words`
  std::vector<std::string> words;  // its name, as it sees it, and its arguments
  std::string folder;              // to work in; empty: this process' own
  int input = -1, output = -1;     // descriptors that it reads, and writes both output and errors to; -1: this process'
};

struct ChildProcess {
  pid_t pid = -1;        // not reaped: the caller does that
  FileDescriptor pidfd;  // readable when it has ended
};

// Starts a program that dies with this process, whatever ends it, and stands in a process group of its own, so that a
// Ctrl-C at the terminal reaches it only through this process. No signal is blocked in it, and SIGPIPE ends it. Where
// it cannot run, it says why to its errors, and ends with status 126 (the folder) or 127 (the program), as in a shell.
//
// By the main thread: a child ends when the thread that made it does.
Result<ChildProcess> start_program(const ProgramStart& start);

// How a child ended, once it has and as waitid() tells it: its status, or 128 + the signal that ended it.
int end_status(const siginfo_t& ended);
// "ended with status 1", "was ended by signal 9 (Killed)"
std::string describe_end(int status);

}  // namespace cachalot
