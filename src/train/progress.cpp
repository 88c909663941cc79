#include "medvqa/train/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <numeric>

namespace medvqa::train {

namespace {

constexpr std::size_t kRecentSteps = 30;

bool is_set(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0';
}

std::size_t terminal_columns() {
  struct winsize size = {};
  const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 80;
}

}  // namespace

BarStyle terminal_style(bool quiet, bool no_color) {
  const bool dumb = !is_set("TERM") || std::string(std::getenv("TERM")) == "dumb";
  if (quiet || dumb || isatty(STDERR_FILENO) == 0) return BarStyle::none;
  return no_color || is_set("NO_COLOR") ? BarStyle::plain : BarStyle::coloured;
}

std::string duration_text(double seconds) {
  const auto whole = static_cast<std::int64_t>(std::llround(std::max(0.0, seconds)));
  const std::int64_t hours = whole / 3600, minutes = whole / 60 % 60;
  if (hours > 0) return fmt::format("{} h {:02} min", hours, minutes);
  if (minutes > 0) return fmt::format("{} min {:02} s", minutes, whole % 60);
  return fmt::format("{} s", whole);
}

void Pace::add(double seconds) {
  if (warm_) recent_.push_back(seconds);
  warm_ = true;
  if (recent_.size() > kRecentSteps) recent_.pop_front();
}

double Pace::seconds_per_step() const {
  return std::accumulate(recent_.begin(), recent_.end(), 0.0) /
         static_cast<double>(std::max<std::size_t>(1, recent_.size()));
}

std::string bar_text(std::int64_t step, std::int64_t total, int width) {
  const double share =
      static_cast<double>(step) / static_cast<double>(std::max<std::int64_t>(1, total));
  const auto full = static_cast<std::size_t>(share * width);
  const auto cells = static_cast<std::size_t>(width);
  return fmt::format("[{}{}] {:3.0f} %", std::string(full, '#'), std::string(cells - full, '.'),
                     std::floor(100 * share));
}

void ProgressBar::draw(std::int64_t step, std::int64_t total, const std::string& text) {
  if (!shown()) return;
  constexpr int kWidth = 24;
  const std::string bar = bar_text(step, total, kWidth);
  // A line that wraps could not be taken back.
  const std::size_t room = terminal_columns() - 1;
  const std::string rest = (" " + text).substr(0, room > bar.size() ? room - bar.size() : 0);
  const bool colour = style_ == BarStyle::coloured;
  std::cerr << '\r' << (colour ? "\x1b[32m" : "") << bar << (colour ? "\x1b[0m" : "") << rest
            << "\x1b[K" << std::flush;
  visible_ = true;
}

void ProgressBar::hide() {
  if (visible_) std::cerr << "\r\x1b[K" << std::flush;
  visible_ = false;
}

}  // namespace medvqa::train
