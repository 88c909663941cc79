#include "medvqa/app/signals.h"

#include <csignal>
#include <cstdlib>
#include <initializer_list>

namespace medvqa::app {

namespace {

volatile std::sig_atomic_t first_signal = 0;

void on_signal(int number) {
  if (first_signal != 0) std::_Exit(128 + number);
  first_signal = number;
}

}  // namespace

void catch_signals() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  for (const int number : {SIGTERM, SIGINT, SIGUSR1}) sigaction(number, &action, nullptr);
}

int stop_signal() {
  return first_signal;
}

}  // namespace medvqa::app
