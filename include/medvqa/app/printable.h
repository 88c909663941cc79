// Text from anywhere as one line of valid UTF-8.
#pragma once

#include <string>

namespace medvqa::app {

// Control characters, line ends and bytes that are no UTF-8 as \xNN.
std::string printable(const std::string& text);

}  // namespace medvqa::app
