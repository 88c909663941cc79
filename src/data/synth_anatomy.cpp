#include "src/data/synth_anatomy.h"

#include <algorithm>
#include <cmath>

namespace medvqa::data {
namespace {

Pose draw_pose(Draws& d) {
  Pose pose;
  const double t = d.between(-0.035, 0.035);  // up to 4 degrees
  pose.cosine = (1 - t * t) / (1 + t * t);
  pose.sine = 2 * t / (1 + t * t);
  pose.scale = d.between(0.95, 1.07);
  pose.shift = {d.between(-0.04, 0.04), d.between(-0.04, 0.04)};
  return pose;
}

Hemithorax draw_hemithorax(double sign, Draws& d) {
  Hemithorax h;
  h.sign = sign;
  const double width = d.between(0.33, 0.37);
  h.lung = {sign * d.between(0.41, 0.44), d.between(0.12, 0.17), width, d.between(0.83, 0.90)};
  // The liver pushes the right dome up.
  const double top = d.between(0.42, 0.50) - (sign < 0 ? 0.05 : 0);
  h.dome = {sign * 0.42, top + 0.34, d.between(0.50, 0.54), 0.34};
  h.hilum = {sign * 0.20, d.between(-0.08, -0.02), 0.12, 0.17};

  h.fluid_level = d.between(0.08, 0.26);
  h.meniscus = d.between(0.14, 0.22);
  const Point center{h.lung.x + sign * d.between(-0.02, 0.10), d.between(-0.34, 0.04)};
  for (Ellipse& patch : h.patches) {
    patch = {center.x + d.between(-0.08, 0.08), center.y + d.between(-0.08, 0.08),
             d.between(0.17, 0.24), d.between(0.18, 0.27)};
  }
  const double share = d.between(0.52, 0.64);
  h.collapsed = {sign * 0.27, h.lung.y - 0.02, h.lung.rx * share, h.lung.ry * share};
  return h;
}

Ellipse draw_heart(bool enlarged, Draws& d) {
  const double spread = d.between(0, 1);
  const double x = d.between(0.08, 0.11);
  const double y = d.between(0.24, 0.28);
  if (enlarged) return {x + 0.04, y - 0.01, 0.44 + 0.06 * spread, 0.31 + 0.04 * spread};
  return {x, y, 0.26 + 0.05 * spread, 0.23 + 0.03 * spread};
}

}  // namespace

Point Pose::to_patient(Point film) const {
  const double x = (film.x - shift.x) / scale;
  const double y = (film.y - shift.y) / scale;
  return {cosine * x + sine * y, cosine * y - sine * x};
}

Point Hemithorax::into_collapsed(Point p) const {
  return {p.x + patches[0].x - (collapsed.x + sign * 0.04),
          p.y + patches[0].y - (collapsed.y - 0.18)};
}

Anatomy draw_anatomy(const Phantom& phantom, Draws& d) {
  Anatomy a;
  a.pose = draw_pose(d);
  a.right = draw_hemithorax(-1, d);
  a.left = draw_hemithorax(1, d);
  a.heart = draw_heart(phantom.has(Finding::cardiomegaly), d);
  a.knob = {0.13, d.between(-0.30, -0.24), 0.09, 0.09};
  a.rib_spacing = d.between(0.15, 0.18);
  a.rib_phase = d.between(0, 1);
  a.rib_slope = d.between(0.22, 0.38);
  a.clavicle_y = d.between(-0.66, -0.60);
  a.clavicle_slope = d.between(0.08, 0.20);
  a.gain = d.between(0.92, 1.08);
  a.offset = d.between(-0.02, 0.02);
  a.noise = d.between(0.015, 0.035);
  const double side = phantom.side(Finding::marker) == Side::left ? 1 : -1;
  a.marker = {side * d.between(0.79, 0.82), d.between(-0.80, -0.76)};
  return a;
}

double smooth_step(double t) {
  const double c = std::clamp(t, 0.0, 1.0);
  return c * c * (3 - 2 * c);
}

double coverage(const Ellipse& e, Point p, double softness) {
  const double dx = (p.x - e.x) / e.rx;
  const double dy = (p.y - e.y) / e.ry;
  const double outside = (std::sqrt(dx * dx + dy * dy) - 1) * std::min(e.rx, e.ry);
  return smooth_step(0.5 - outside / (2 * softness));
}

}  // namespace medvqa::data
