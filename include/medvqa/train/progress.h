// How far a run is: a bar on a terminal, plain lines elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <string>

namespace medvqa::train {

enum class BarStyle : std::uint8_t { none, plain, coloured };

// What stderr can show: nothing but lines if it is no terminal, TERM is dumb or unset, or `quiet`;
// no colours with `no_color` or NO_COLOR in the environment.
BarStyle terminal_style(bool quiet, bool no_color);

// "1 h 02 min", "3 min 20 s", "8 s".
std::string duration_text(double seconds);

// Time left, by the last steps; the first of a process is slower and does not count.
class Pace {
 public:
  void add(double seconds);
  bool known() const { return !recent_.empty(); }
  double seconds_per_step() const;

 private:
  std::deque<double> recent_;
  bool warm_ = false;
};

// A bar of `width` cells and the share done.
std::string bar_text(std::int64_t step, std::int64_t total, int width);

// Draws on stderr; without style it does nothing.
class ProgressBar {
 public:
  explicit ProgressBar(BarStyle style) : style_(style) {}
  ~ProgressBar() { hide(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  bool shown() const { return style_ != BarStyle::none; }
  void draw(std::int64_t step, std::int64_t total, const std::string& text);
  // Takes the bar off the screen, so that a line can be written.
  void hide();

 private:
  BarStyle style_;
  bool visible_ = false;
};

}  // namespace medvqa::train
