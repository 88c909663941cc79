#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "medvqa/app/commands.h"

namespace {

// GNU OpenMP's idle threads spin for milliseconds before they sleep. As soon as anything else wants
// a core (image preparation, another job on the node) that costs more than the work itself:
// measured, steps of 0.2 s took up to 12 s. The library reads its settings before main, so the
// program starts itself again once with a short spin; a user's own setting wins.
void shorten_openmp_spinning(char** argv) {
  if (std::getenv("GOMP_SPINCOUNT") != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  if (setenv("GOMP_SPINCOUNT", "1000", 0) != 0) return;
  execv("/proc/self/exe", argv);
  // Without /proc the run goes on as it is, only slower on a busy machine.
}

}  // namespace

int main(int argc, char** argv) {
  shorten_openmp_spinning(argv);
  return medvqa::app::run(argc > 0 ? argv[0] : "medvqa",
                          std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc));
}
