// Where things lie in one phantom. The frame of the patient: x to the right of the picture, y down,
// the film spans -1 to 1 on both before the pose turns, scales and shifts it.
#pragma once

#include <array>
#include <vector>

#include "medvqa/data/synth_phantom.h"
#include "src/data/synth_draws.h"

namespace medvqa::data {

struct Ellipse {
  double x = 0, y = 0, rx = 1, ry = 1;
};

struct Point {
  double x = 0, y = 0;
};

// Film to patient: a rotation given by the tangent of half its angle, a scale, a shift.
struct Pose {
  double cosine = 1, sine = 0, scale = 1;
  Point shift;
  Point to_patient(Point film) const;
};

// One half of the chest; sign is -1 for the patient's right, on the left of the picture.
struct Hemithorax {
  double sign = 1;
  Ellipse lung, dome, hilum;
  // Findings, drawn whether they are shown or not, so that one more changes nothing else.
  double fluid_level = 0, meniscus = 0;
  std::array<Ellipse, 3> patches;  // of a consolidation
  Ellipse collapsed;               // the lung beside a pneumothorax
  // Where a point of the collapsed lung lay, so that a consolidation moves with it.
  Point into_collapsed(Point p) const;
};

struct Anatomy {
  Pose pose;
  Hemithorax left, right;
  Ellipse heart, knob;
  double rib_spacing = 0.17, rib_phase = 0, rib_slope = 0.3;
  double clavicle_y = -0.7, clavicle_slope = 0.1;
  double gain = 1, offset = 0, noise = 0.03;
  Point marker;

  const Hemithorax& of(Side side) const { return side == Side::left ? left : right; }
};

Anatomy draw_anatomy(const Phantom& phantom, Draws& draws);

// 0 below 0, 1 above 1, smooth between.
double smooth_step(double t);
// 1 inside, 0 outside, smooth over about 2 x softness around the border.
double coverage(const Ellipse& e, Point p, double softness);

}  // namespace medvqa::data
