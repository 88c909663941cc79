// Signals that ask for an orderly end.
#pragma once

namespace medvqa::app {

// From now on SIGTERM, SIGINT and SIGUSR1 are remembered; a second one ends the program at once
// with 128 + its number.
void catch_signals();
// The one that came, or 0.
int stop_signal();

}  // namespace medvqa::app
