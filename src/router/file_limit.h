#pragma once

#include "base/error.h"

namespace cachalot::router {

// Lets this process open as many files as the system allows it, and gives the number of clients' connections for which
// that is enough, each with one to a replica: `wanted`, or with 0 as many as fit, up to 32,768. Error: so many do not
// fit.
Result<int> fit_connections(int wanted);

}  // namespace cachalot::router
