#include "src/data/synth_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "src/data/synth_draws.h"

namespace medvqa::data {
namespace {

enum class Ask : std::uint8_t { presence, side, findings };

struct Kind {
  Ask ask;
  Finding finding;  // of presence and side
  const char* name;
  const char* text;
};

constexpr std::array kKinds{
    Kind{Ask::presence, Finding::cardiomegaly, "heart", "Is the heart enlarged?"},
    Kind{Ask::presence, Finding::effusion, "effusion", "Is there a pleural effusion?"},
    Kind{Ask::presence, Finding::consolidation, "consolidation", "Is there a consolidation?"},
    Kind{Ask::presence, Finding::pneumothorax, "pneumothorax", "Is there a pneumothorax?"},
    Kind{Ask::presence, Finding::marker, "marker", "Is there a side marker?"},
    Kind{Ask::side, Finding::effusion, "effusion-side", "On which side is the pleural effusion?"},
    Kind{Ask::side, Finding::consolidation, "consolidation-side",
         "On which side is the consolidation?"},
    Kind{Ask::side, Finding::pneumothorax, "pneumothorax-side",
         "On which side is the pneumothorax?"},
    Kind{Ask::findings, Finding::marker, "findings", "What does the radiograph show?"}};

// What a radiologist may say of a finding; {} is its side.
struct Wordings {
  Finding finding;
  std::array<const char*, 3> present, absent;
};

constexpr std::array kWordings{
    Wordings{Finding::cardiomegaly,
             {"The heart is enlarged.", "Cardiomegaly.", "The cardiac silhouette is widened."},
             {"The heart is of normal size.", "No cardiomegaly.", "Normal cardiac silhouette."}},
    Wordings{Finding::effusion,
             {"Pleural effusion on the {}.", "There is a {} pleural effusion.",
              "The {} costophrenic angle is blunted."},
             {"No pleural effusion.", "The costophrenic angles are sharp.", "No pleural fluid."}},
    Wordings{
        Finding::consolidation,
        {"Consolidation on the {}.", "There is a {} consolidation.", "Opacity of the {} lung."},
        {"No consolidation.", "No airspace opacity.", "The lungs are clear."}},
    Wordings{
        Finding::pneumothorax,
        {"Pneumothorax on the {}.", "There is a {} pneumothorax.", "The {} lung has collapsed."},
        {"No pneumothorax.", "No free air.", "The lungs are expanded."}}};

bool has_side(Finding f) {
  return f != Finding::cardiomegaly;
}

bool is_drawn(const SynthRequest& r, Finding f) {
  return std::find(r.findings.begin(), r.findings.end(), f) != r.findings.end();
}

bool is_wanted(const Kind& kind, const SynthRequest& r) {
  if (kind.ask != Ask::findings && !is_drawn(r, kind.finding)) return false;
  if (r.questions == QuestionKind::all) return true;
  return (kind.ask == Ask::presence) == (r.questions == QuestionKind::closed);
}

// What image i is asked, as far as it applies: `per_image` kinds, one image going on where the one
// before it stopped.
std::vector<const Kind*> kinds_of(const SynthRequest& r, std::int64_t image) {
  std::vector<const Kind*> wanted;
  for (const Kind& kind : kKinds) {
    if (is_wanted(kind, r)) wanted.push_back(&kind);
  }
  const auto n = static_cast<std::int64_t>(wanted.size());
  if (r.per_image == 0 || r.per_image >= n) return wanted;
  std::vector<const Kind*> turn;
  for (std::int64_t k = 0; k < r.per_image; ++k) {
    turn.push_back(wanted[static_cast<std::size_t>((image % n * r.per_image + k) % n)]);
  }
  return turn;
}

bool asks(const std::vector<const Kind*>& kinds, Ask ask, Finding finding) {
  for (const Kind* kind : kinds) {
    if (kind->ask == ask && kind->finding == finding) return true;
  }
  return false;
}

// Deals yes and no, left and right alternately to images in random order, so that they come out
// even where a finding is asked about and where it is not. [begin, end) is one split.
void deal(Finding f, const std::vector<std::vector<const Kind*>>& kinds, std::size_t begin,
          std::size_t end, Draws& draws, std::vector<SynthCase>& cases) {
  std::vector<std::size_t> order;
  for (std::size_t i = begin; i < end; ++i) order.push_back(i);
  draws.shuffle(order);
  const std::size_t first_answer = draws.below(2);
  const std::size_t first_side = draws.below(2);
  std::array<std::size_t, 2> answers{first_answer, first_answer};
  std::array<std::size_t, 2> sides{first_side, first_side};
  for (const std::size_t i : order) {
    Phantom& p = cases[i].phantom;
    const auto at = static_cast<std::size_t>(f);
    p.present[at] = answers[asks(kinds[i], Ask::presence, f) ? 1 : 0]++ % 2 == 0;
    if (!p.present[at] || !has_side(f)) continue;
    const bool is_left = sides[asks(kinds[i], Ask::side, f) ? 1 : 0]++ % 2 == 0;
    p.sides[at] = is_left ? Side::left : Side::right;
  }
}

SynthQuestion question_of(const Kind& kind, const Phantom& p) {
  std::string answer = findings_of(p);
  if (kind.ask == Ask::presence) answer = p.has(kind.finding) ? "yes" : "no";
  if (kind.ask == Ask::side) answer = name_of(p.side(kind.finding));
  return {kind.name, kind.ask == Ask::presence, kind.text, answer};
}

void ask(const std::vector<const Kind*>& kinds, SynthCase& c) {
  for (const Kind* kind : kinds) {
    if (kind->ask == Ask::side && !c.phantom.has(kind->finding)) continue;
    c.questions.push_back(question_of(*kind, c.phantom));
  }
  // No side to ask about: what is to be seen can always be asked.
  if (c.questions.empty()) c.questions.push_back(question_of(kKinds.back(), c.phantom));
}

std::string with_side(const Phantom& p, Finding f) {
  return has_side(f) ? name_of(p.side(f)) + " " + name_of(f) : name_of(f);
}

}  // namespace

std::vector<SynthCase> plan_cases(const SynthRequest& r) {
  const auto count = static_cast<std::size_t>(r.count);
  const auto held_out = static_cast<std::size_t>(std::ceil(r.validation * double(r.count)));
  std::vector<SynthCase> cases(count);
  std::vector<std::vector<const Kind*>> kinds;
  for (std::size_t i = 0; i < count; ++i) {
    cases[i].is_validation = i >= count - held_out;
    kinds.push_back(kinds_of(r, static_cast<std::int64_t>(i)));
  }
  // The phantoms draw from the streams from 0 upwards.
  Draws draws(r.seed, std::numeric_limits<std::uint64_t>::max());
  for (const Finding f : kFindings) {
    if (!is_drawn(r, f)) continue;
    deal(f, kinds, 0, count - held_out, draws, cases);
    deal(f, kinds, count - held_out, count, draws, cases);
  }
  for (std::size_t i = 0; i < count; ++i) ask(kinds[i], cases[i]);
  return cases;
}

std::string findings_of(const Phantom& p) {
  std::vector<std::string> names;
  for (const Finding f : kFindings) {
    if (f != Finding::marker && p.has(f)) names.push_back(with_side(p, f));
  }
  return names.empty() ? "no finding" : fmt::format("{}", fmt::join(names, " and "));
}

std::string report_of(const Phantom& p) {
  std::string report = p.has(Finding::cardiomegaly) ? "Enlarged heart." : "Heart of normal size.";
  for (const Finding f : {Finding::effusion, Finding::consolidation, Finding::pneumothorax}) {
    if (!p.has(f)) {
      report += fmt::format(" No {}.", name_of(f));
    } else {
      report += fmt::format(" {} {}.", p.side(f) == Side::left ? "Left" : "Right", name_of(f));
    }
  }
  return report;
}

std::string dictation_of(const Phantom& p, std::uint64_t seed, std::size_t image) {
  // Streams that neither the phantoms nor plan_cases() draw from.
  Draws draws(seed, std::numeric_limits<std::uint64_t>::max() - 1 - image);
  std::vector<std::string> sentences;
  for (const Wordings& w : kWordings) {
    const bool present = p.has(w.finding);
    const std::string words = (present ? w.present : w.absent)[draws.below(w.present.size())];
    const std::string side = present && has_side(w.finding) ? name_of(p.side(w.finding)) : "";
    sentences.push_back(fmt::format(fmt::runtime(words), side));
  }
  draws.shuffle(sentences);
  return fmt::format("{}", fmt::join(sentences, " "));
}

}  // namespace medvqa::data
