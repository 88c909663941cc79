#include <string>
#include <vector>

#include "medvqa/app/commands.h"

int main(int argc, char** argv) {
  return medvqa::app::run(argc > 0 ? argv[0] : "medvqa",
                          std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc));
}
