#include "medvqa/train/loss_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "medvqa/io/file.h"

namespace medvqa::train {

namespace {

constexpr double kWidth = 840, kHeight = 480;
constexpr double kLeft = 76, kRight = 24, kTop = 64, kBottom = 56;
// More points than pixels only make the file large.
constexpr std::size_t kMostPoints = 700;

constexpr const char* kStyle = R"(<style>
  svg { --paper: #ffffff; --ink: #1c2430; --soft: #5b6675; --grid: #e3e7ec;
        --train: #2563eb; --eval: #c2410c; }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #12161c; --ink: #e8ecf1; --soft: #9aa6b5; --grid: #2a323d;
          --train: #6ea8ff; --eval: #ffa15c; }
  }
  .paper { fill: #ffffff; fill: var(--paper); }
  text { font-family: "DejaVu Sans", Verdana, sans-serif; font-size: 13px;
         fill: #5b6675; fill: var(--soft); }
  .title { font-size: 17px; font-weight: bold; fill: #1c2430; fill: var(--ink); }
  .grid { stroke: #e3e7ec; stroke: var(--grid); stroke-width: 1; }
  .axis { stroke: #5b6675; stroke: var(--soft); stroke-width: 1.2; }
  .raw { fill: none; stroke: #2563eb; stroke: var(--train); stroke-width: 1;
         stroke-opacity: 0.5; }
  .smooth { fill: none; stroke: #2563eb; stroke: var(--train); stroke-width: 2.6;
            stroke-linejoin: round; }
  .eval { fill: none; stroke: #c2410c; stroke: var(--eval); stroke-width: 1.4;
          stroke-dasharray: 4 3; }
  .point { fill: #c2410c; fill: var(--eval); stroke: #ffffff; stroke: var(--paper);
           stroke-width: 1.2; }
</style>
)";

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else {
      out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

// 1, 2 or 5 times a power of ten, so that about `count` of them make up `span`.
double tick_step(double span, int count) {
  const double rough = span / count;
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double m : {1.0, 2.0, 5.0}) {
    if (rough <= m * power) return m * power;
  }
  return 10 * power;
}

struct Axis {
  double low = 0, high = 1, step = 1;
};

Axis loss_axis(const LossCurves& curves) {
  double low = INFINITY, high = -INFINITY;
  for (const auto* list : {&curves.train, &curves.evaluation}) {
    for (const LossPoint& p : *list) {
      low = std::min(low, p.loss);
      high = std::max(high, p.loss);
    }
  }
  if (low > 0 && low < 0.4 * high) low = 0;
  if (high - low < 1e-9 * std::max(1.0, std::abs(high))) {
    const double margin = std::max(0.05 * std::abs(high), 1e-6);
    low -= margin;
    high += margin;
  }
  const double step = tick_step(high - low, 6);
  return {std::floor(low / step + 1e-9) * step, std::ceil(high / step - 1e-9) * step, step};
}

Axis step_axis(const LossCurves& curves) {
  std::int64_t last = 1;
  for (const auto* list : {&curves.train, &curves.evaluation}) {
    for (const LossPoint& p : *list) last = std::max(last, p.step);
  }
  const auto high = static_cast<double>(last);
  return {0, high, std::max(1.0, tick_step(high, 8))};
}

struct Frame {
  Axis x, y;
  double at_x(double step) const {
    return kLeft + (step - x.low) / (x.high - x.low) * (kWidth - kLeft - kRight);
  }
  double at_y(double loss) const {
    return kTop + (y.high - loss) / (y.high - y.low) * (kHeight - kTop - kBottom);
  }
};

// Means of neighbours, so that no more than kMostPoints are left.
std::vector<LossPoint> thinned(const std::vector<LossPoint>& points) {
  const std::size_t group = (points.size() + kMostPoints - 1) / kMostPoints;
  if (group <= 1) return points;
  std::vector<LossPoint> out;
  for (std::size_t begin = 0; begin < points.size(); begin += group) {
    const std::size_t end = std::min(points.size(), begin + group);
    double sum = 0;
    for (std::size_t i = begin; i < end; ++i) sum += points[i].loss;
    out.push_back({points[(begin + end) / 2].step, sum / static_cast<double>(end - begin)});
  }
  return out;
}

// The mean over a window around each point, of a twelfth of them on either side.
std::vector<LossPoint> smoothed(const std::vector<LossPoint>& points) {
  const std::size_t n = points.size();
  const std::size_t reach = std::min<std::size_t>(n / 12, 50);
  std::vector<double> sums(n + 1, 0.0);
  for (std::size_t i = 0; i < n; ++i) sums[i + 1] = sums[i] + points[i].loss;
  std::vector<LossPoint> out(points);
  for (std::size_t i = 0; i < n; ++i) {
    // As far to the left as to the right, so that the begin is not pulled down; but the last ones
    // are means, too.
    const std::size_t right = std::min({reach, i, n - 1 - i});
    const std::size_t left = std::min(i, std::max(right, reach / 2));
    const double sum = sums[i + right + 1] - sums[i - left];
    out[i].loss = sum / static_cast<double>(left + right + 1);
  }
  return out;
}

std::string line_of(const Frame& frame, const std::vector<LossPoint>& points, const char* name) {
  if (points.size() < 2) return {};
  std::string places;
  for (const LossPoint& p : points) {
    places += fmt::format("{}{:.1f},{:.1f}", places.empty() ? "" : " ",
                          frame.at_x(static_cast<double>(p.step)), frame.at_y(p.loss));
  }
  return fmt::format("<polyline class=\"{}\" points=\"{}\"/>\n", name, places);
}

std::string label(double x, double y, const char* anchor, const std::string& text) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                     escaped(text));
}

std::string line(double x1, double y1, double x2, double y2, const char* name) {
  return fmt::format(
      "<line class=\"{}\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>\n", name, x1,
      y1, x2, y2);
}

// A number of the axis without the noise of its sum.
std::string tick_text(double value, double step) {
  const int digits = std::max(0, -static_cast<int>(std::floor(std::log10(step) + 1e-9)));
  const double clean = std::round(value / step) * step;
  return digits > 6 ? fmt::format("{:.3g}", clean) : fmt::format("{:.{}f}", clean, digits);
}

std::string axes(const Frame& frame) {
  std::string out;
  const double right = kWidth - kRight, bottom = kHeight - kBottom;
  const Axis& y = frame.y;
  for (int i = 0; y.low + i * y.step <= y.high + 1e-9 * y.step; ++i) {
    const double value = y.low + i * y.step;
    out += line(kLeft, frame.at_y(value), right, frame.at_y(value), "grid");
    out += label(kLeft - 9, frame.at_y(value) + 4.5, "end", tick_text(value, y.step));
  }
  const Axis& x = frame.x;
  for (int i = 0; i * x.step <= x.high; ++i) {
    const double at = frame.at_x(i * x.step);
    out += line(at, bottom, at, bottom + 5, "axis");
    out += label(at, bottom + 20, "middle", tick_text(i * x.step, x.step));
  }
  out += line(kLeft, kTop, kLeft, bottom, "axis") + line(kLeft, bottom, right, bottom, "axis");
  out += label((kLeft + right) / 2, kHeight - 12, "middle", "optimizer step");
  const double middle = (kTop + bottom) / 2;
  out += fmt::format(
      "<text x=\"20\" y=\"{0:.1f}\" text-anchor=\"middle\" transform=\"rotate(-90 20 {0:.1f})\">"
      "loss a label token</text>\n",
      middle);
  return out;
}

std::string points_of(const Frame& frame, const std::vector<LossPoint>& points) {
  std::string out;
  for (const LossPoint& p : points) {
    out += fmt::format(
        "<circle class=\"point\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4.2\">"
        "<title>step {}: held out {:.4f}</title></circle>\n",
        frame.at_x(static_cast<double>(p.step)), frame.at_y(p.loss), p.step, p.loss);
  }
  return out;
}

// The names of the curves, and where each ends, in the line below the title.
std::string legend(const LossCurves& curves, const std::vector<LossPoint>& smooth) {
  std::string out;
  double x = kLeft;
  if (!curves.train.empty()) {
    out += line(x, 45.5, x + 26, 45.5, "smooth");
    out += label(x + 33, 50, "start",
                 fmt::format("training, smoothed, ends at {:.4f}", smooth.back().loss));
    x += 290;
    out += line(x, 45.5, x + 26, 45.5, "raw") + label(x + 33, 50, "start", "each step");
    x += 130;
  }
  if (!curves.evaluation.empty()) {
    out += fmt::format("<circle class=\"point\" cx=\"{:.1f}\" cy=\"45.5\" r=\"4.2\"/>\n", x + 13);
    out += label(x + 25, 50, "start",
                 fmt::format("held out, ends at {:.4f}", curves.evaluation.back().loss));
  }
  return out;
}

}  // namespace

LossCurves read_loss_curves(const std::filesystem::path& metrics) {
  LossCurves curves;
  const std::string text = io::read_text_file(metrics);
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const nlohmann::json j =
        nlohmann::json::parse(text.substr(begin, end - begin), nullptr, /*allow_exceptions=*/false);
    begin = end + 1;
    if (!j.is_object() || !j.contains("loss") || !j["loss"].is_number()) continue;
    const LossPoint p{j.value("step", std::int64_t{0}), j["loss"].get<double>()};
    if (!std::isfinite(p.loss)) continue;
    (j.value("event", "") == "eval" ? curves.evaluation : curves.train).push_back(p);
  }
  return curves;
}

std::string loss_plot(const LossCurves& curves, const std::string& title) {
  const std::vector<LossPoint> raw = thinned(curves.train);
  const std::vector<LossPoint> smooth = smoothed(raw);
  const Frame frame{step_axis(curves), loss_axis(curves)};
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" "
      "viewBox=\"0 0 {0} {1}\" role=\"img\">\n<title>{2}</title>\n",
      kWidth, kHeight, escaped(title));
  svg += kStyle;
  svg += fmt::format("<rect class=\"paper\" width=\"{}\" height=\"{}\"/>\n", kWidth, kHeight);
  svg += fmt::format("<text class=\"title\" x=\"{}\" y=\"27\">{}</text>\n", kLeft, escaped(title));
  svg += axes(frame) + legend(curves, smooth);
  svg += line_of(frame, raw, "raw") + line_of(frame, smooth, "smooth");
  svg += line_of(frame, curves.evaluation, "eval") + points_of(frame, curves.evaluation);
  return svg + "</svg>\n";
}

void write_loss_plot(const std::filesystem::path& run) {
  const LossCurves curves = read_loss_curves(run / "metrics.jsonl");
  if (curves.train.empty() && curves.evaluation.empty()) return;
  const std::string name = (run / "").parent_path().filename().string();
  io::write_file_atomically(run / "loss.svg", loss_plot(curves, "Loss of " + name));
}

}  // namespace medvqa::train
