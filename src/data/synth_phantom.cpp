#include "medvqa/data/synth_phantom.h"

#include <algorithm>
#include <cmath>

#include "medvqa/core/error.h"
#include "src/data/synth_anatomy.h"

namespace medvqa::data {
namespace {

constexpr int kLattice = 33;  // points of the texture along one axis
constexpr double kSoft = 0.02;
constexpr double kShown = 0.35;  // how much of a finding a pixel must show to lie in its box

// How bright: 0 is air, 1 is metal.
constexpr double kAir = 0.03, kTissue = 0.50, kLung = 0.20, kAbdomen = 0.60, kHeart = 0.66;
constexpr double kFluid = 0.62, kPleura = 0.05, kInfiltrate = 0.58, kMetal = 0.95;

double mix(double a, double b, double share) {
  return a + (b - a) * share;
}

struct Shade {
  double value = 0;
  std::array<double, kFindings.size()> shown{};
  double& of(Finding f) { return shown[static_cast<std::size_t>(f)]; }
};

// Letters of a side marker, 5 x 7, a row a byte.
constexpr std::array<std::uint8_t, 7> kLetterL{16, 16, 16, 16, 16, 16, 31};
constexpr std::array<std::uint8_t, 7> kLetterR{30, 17, 17, 30, 20, 18, 17};

class Renderer {
 public:
  Renderer(const Phantom& phantom, int size, std::uint64_t seed, std::uint64_t index)
      : phantom_(phantom), size_(size), geometry_(seed, 2 * index), grain_(seed, 2 * index + 1) {
    anatomy_ = draw_anatomy(phantom, geometry_);
    texture_.resize(kLattice * kLattice);
    for (double& t : texture_) t = geometry_.between(-1, 1);
  }

  Drawing draw();

 private:
  Shade shade(Point film) const;
  double add_lungs(Point p, double value) const;
  double bones(Point p) const;
  void add_findings(const Hemithorax& h, Side side, Point p, Shade& s) const;
  double marker(Point p) const;
  double texture(Point p) const;
  static double aerated(const Hemithorax& h, Point p) {
    return coverage(h.lung, p, kSoft) * (1 - coverage(h.dome, p, kSoft));
  }
  double grain();

  const Phantom& phantom_;
  int size_;
  Draws geometry_, grain_;
  Anatomy anatomy_;
  std::vector<double> texture_;
};

// Smooth noise from -1 to 1.
double Renderer::texture(Point p) const {
  const double u = std::clamp((p.x + 1.2) / 2.4, 0.0, 0.999) * (kLattice - 1);
  const double v = std::clamp((p.y + 1.2) / 2.4, 0.0, 0.999) * (kLattice - 1);
  const auto column = static_cast<std::size_t>(u);
  const auto row = static_cast<std::size_t>(v);
  const double s = smooth_step(u - static_cast<double>(column));
  const double t = smooth_step(v - static_cast<double>(row));
  const double* top = texture_.data() + row * kLattice + column;
  return mix(mix(top[0], top[1], s), mix(top[kLattice], top[kLattice + 1], s), t);
}

double Renderer::add_lungs(Point p, double value) const {
  for (const Hemithorax* h : {&anatomy_.left, &anatomy_.right}) {
    const double lung = aerated(*h, p);
    if (lung <= 0) continue;
    // Vessels fan out of the hilum and fade towards the border.
    const double markings = coverage(h->hilum, p, 0.16);
    const double air = kLung + 0.22 * markings + (0.03 + 0.06 * markings) * texture(p);
    value = mix(value, air, lung);
  }
  return value;
}

// Ribs run down and outwards on either side, evenly spaced; clavicles cross the apices.
double Renderer::bones(Point p) const {
  const double x = std::abs(p.x);
  const double from_spine = std::max(0.0, x - 0.10);
  const double lane = (p.y - anatomy_.rib_slope * from_spine + 0.35 * from_spine * from_spine) /
                          anatomy_.rib_spacing +
                      anatomy_.rib_phase;
  const double off_center = std::abs(lane - std::floor(lane) - 0.5) * anatomy_.rib_spacing;
  const double cage = smooth_step((0.84 - x) / 0.08) * smooth_step((x - 0.10) / 0.05) *
                      smooth_step((p.y + 0.80) / 0.10) * smooth_step((0.75 - p.y) / 0.10);
  const double rib = smooth_step((0.036 - off_center) / 0.02) * cage;
  const double off_clavicle =
      std::abs(p.y - anatomy_.clavicle_y + anatomy_.clavicle_slope * (x - 0.1));
  const double clavicle = smooth_step((0.042 - off_clavicle) / 0.02) *
                          smooth_step((x - 0.08) / 0.04) * smooth_step((0.80 - x) / 0.06);
  return 0.09 * rib + 0.17 * clavicle;
}

void Renderer::add_findings(const Hemithorax& h, Side side, Point p, Shade& s) const {
  const auto shows = [&](Finding f) { return phantom_.has(f) && phantom_.side(f) == side; };
  const double lung = aerated(h, p);
  if (shows(Finding::pneumothorax) && lung > 0) {
    const double free_air = lung * (1 - coverage(h.collapsed, p, kSoft));
    const double line = lung * std::max(0.0, coverage(h.collapsed, p, 0.05) *
                                                 (1 - coverage(h.collapsed, p, kSoft / 2)) * 4);
    s.value = mix(s.value, kPleura, 0.92 * free_air);
    s.value = mix(s.value, kTissue, std::min(0.6, line * 0.6));
    s.of(Finding::pneumothorax) = free_air;
  }
  if (shows(Finding::consolidation) && lung > 0) {
    // Only lung can be consolidated: beside a pneumothorax what is left of it.
    const bool is_collapsed = shows(Finding::pneumothorax);
    const Point q = is_collapsed ? h.into_collapsed(p) : p;
    const double clear = is_collapsed ? 1 - coverage(h.collapsed, p, kSoft) : 0;
    double outside = 1;
    for (const Ellipse& patch : h.patches) outside *= 1 - coverage(patch, q, 0.06);
    const double filled = lung * (1 - clear) * (1 - outside);
    s.value = mix(s.value, kInfiltrate + 0.10 * texture(p), 0.85 * filled);
    s.of(Finding::consolidation) = filled;
  }
  if (shows(Finding::effusion) && lung > 0) {
    // The fluid climbs towards the chest wall.
    const double outwards = std::clamp(h.sign * (p.x - h.lung.x) / h.lung.rx, -1.0, 1.0);
    const double level = h.fluid_level - h.meniscus * outwards * std::abs(outwards);
    const double fluid = lung * smooth_step((p.y - level) / 0.05);
    s.value = mix(s.value, kFluid, 0.92 * fluid);
    s.of(Finding::effusion) = fluid;
  }
}

double Renderer::marker(Point p) const {
  constexpr double kCell = 0.048;
  const double column = (p.x - anatomy_.marker.x) / kCell + 2.5;
  const double row = (p.y - anatomy_.marker.y) / kCell + 3.5;
  if (column < 0 || column >= 5 || row < 0 || row >= 7) return 0;
  const auto& letter = phantom_.side(Finding::marker) == Side::left ? kLetterL : kLetterR;
  return (letter[static_cast<std::size_t>(row)] >> (4 - static_cast<int>(column)) & 1) != 0 ? 1 : 0;
}

Shade Renderer::shade(Point film) const {
  const Point p = anatomy_.pose.to_patient(film);
  const double x = std::abs(p.x);
  // Shoulders are rounder than an ellipse; the neck leaves at the top.
  const double dx = p.x / 0.94, dy = (p.y - 0.55) / 1.38;
  const double body = std::max(smooth_step((1 - dx * dx * dx * dx - dy * dy * dy * dy) / 0.12),
                               smooth_step((0.30 - x) / 0.04) * smooth_step((0.2 - p.y) / 0.2));
  Shade s;
  s.value = mix(kAir, kTissue - 0.10 * dx * dx, body);
  const double belly =
      std::max(coverage(anatomy_.left.dome, p, kSoft), coverage(anatomy_.right.dome, p, kSoft));
  s.value = mix(s.value, kAbdomen, belly * body);
  s.value = add_lungs(p, s.value);
  s.value += bones(p) * body;
  for (const Side side : {Side::left, Side::right}) {
    add_findings(anatomy_.of(side), side, p, s);
  }
  const double heart = coverage(anatomy_.heart, p, kSoft);
  const double column = smooth_step((0.15 - x) / 0.05);
  const double middle = std::max({heart, column, coverage(anatomy_.knob, p, kSoft)});
  s.value = mix(s.value, std::max(s.value, kHeart), middle);
  // Vertebrae shine through, the trachea is air.
  const double vertebra = smooth_step((std::abs(p.y * 7 - std::floor(p.y * 7) - 0.5) - 0.08) / 0.1);
  s.value += 0.06 * vertebra * smooth_step((0.09 - x) / 0.03);
  s.value =
      mix(s.value, 0.42, 0.8 * smooth_step((0.05 - x) / 0.02) * smooth_step((-0.30 - p.y) / 0.1));
  if (phantom_.has(Finding::cardiomegaly)) s.of(Finding::cardiomegaly) = heart;
  if (phantom_.has(Finding::marker)) {
    s.of(Finding::marker) = marker(p);
    s.value = mix(s.value, kMetal, s.of(Finding::marker));
  }
  return s;
}

// About normal, of spread 1: the sum of four bytes, which have mean 510 and spread 147.8.
double Renderer::grain() {
  const std::uint32_t w = grain_.word();
  const std::uint32_t sum = (w & 255) + (w >> 8 & 255) + (w >> 16 & 255) + (w >> 24);
  return (static_cast<double>(sum) - 510) / 147.8;
}

struct Bounds {
  int left = kLargestPhantom, top = kLargestPhantom, right = -1, bottom = -1;
  void add(int x, int y) {
    left = std::min(left, x);
    top = std::min(top, y);
    right = std::max(right, x);
    bottom = std::max(bottom, y);
  }
};

Drawing Renderer::draw() {
  Drawing d;
  d.image = {size_, size_, {}};
  d.image.rgb.reserve(static_cast<std::size_t>(size_) * static_cast<std::size_t>(size_) * 3);
  std::array<Bounds, kFindings.size()> bounds;
  for (int y = 0; y < size_; ++y) {
    for (int x = 0; x < size_; ++x) {
      // Four samples a pixel.
      Shade s;
      for (int k = 0; k < 4; ++k) {
        const Shade one =
            shade({(2 * x + (k % 2) + 0.5) / size_ - 1, (2 * y + (k / 2) + 0.5) / size_ - 1});
        s.value += one.value / 4;
        for (std::size_t f = 0; f < kFindings.size(); ++f) s.shown[f] += one.shown[f] / 4;
      }
      for (std::size_t f = 0; f < kFindings.size(); ++f) {
        if (s.shown[f] >= kShown) bounds[f].add(x, y);
      }
      const double v = s.value * anatomy_.gain + anatomy_.offset + anatomy_.noise * grain();
      const auto byte = static_cast<std::uint8_t>(std::clamp(v, 0.0, 1.0) * 255 + 0.5);
      d.image.rgb.insert(d.image.rgb.end(), 3, byte);
    }
  }
  for (const Finding f : kFindings) {
    const Bounds& b = bounds[static_cast<std::size_t>(f)];
    if (b.right < 0) continue;
    d.boxes.push_back({f, b.left, b.top, b.right - b.left + 1, b.bottom - b.top + 1});
  }
  return d;
}

}  // namespace

Drawing draw_phantom(const Phantom& phantom, int size, std::uint64_t seed, std::uint64_t index) {
  MEDVQA_CHECK(size >= kSmallestPhantom && size <= kLargestPhantom, "size of a phantom");
  return Renderer(phantom, size, seed, index).draw();
}

std::string name_of(Finding finding) {
  switch (finding) {
    case Finding::cardiomegaly:
      return "cardiomegaly";
    case Finding::effusion:
      return "pleural effusion";
    case Finding::consolidation:
      return "consolidation";
    case Finding::pneumothorax:
      return "pneumothorax";
    case Finding::marker:
      return "side marker";
  }
  return "";
}

std::string name_of(Side side) {
  return side == Side::left ? "left" : "right";
}

}  // namespace medvqa::data
