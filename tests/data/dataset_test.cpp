#include "medvqa/data/dataset.h"

#include "tests/data/data_test_support.h"

namespace medvqa::data {
namespace {

using Order = std::vector<std::int64_t>;

std::vector<Record> letters(int count) {
  std::vector<Record> records;
  for (int i = 0; i < count; ++i) {
    records.push_back(
        make_record(std::string(static_cast<std::size_t>(i % 5 + 1), 'r') + char('A' + i),
                    i % 4 == 0 ? "" : "p.png", "q" + std::to_string(i)));
  }
  return records;
}

TEST(EpochOrder, IsThatOfTheReference) {
  EXPECT_EQ(epoch_order(10, true, 3407, 0), (Order{9, 1, 5, 7, 3, 2, 8, 6, 4, 0}));
  EXPECT_EQ(epoch_order(10, true, 42, 0), (Order{2, 6, 1, 8, 4, 5, 0, 9, 3, 7}));
  EXPECT_EQ(epoch_order(10, true, 40, 2), epoch_order(10, true, 42, 0));
  const Order large = epoch_order(1978, true, 3407, 0);
  EXPECT_EQ(Order(large.begin(), large.begin() + 5), (Order{861, 1918, 1949, 727, 1297}));
  EXPECT_EQ(epoch_order(4, false, 42, 3), (Order{0, 1, 2, 3}));
  EXPECT_TRUE(epoch_order(0, true, 1, 0).empty());
}

TEST(PrepareDataset, IsTheSameOnAnyNumberOfThreads) {
  const LetterProcessor processor;
  const auto records = letters(26);
  const Dataset one = prepare_dataset(processor, records, {}, 1);
  const Dataset four = prepare_dataset(processor, records, {}, 4);
  ASSERT_EQ(one.examples.size(), 26u);
  ASSERT_EQ(four.examples.size(), 26u);
  for (std::size_t i = 0; i < records.size(); ++i) {
    EXPECT_EQ(one.examples[i].id, records[i].id);
    EXPECT_EQ(four.examples[i].id, records[i].id);
    EXPECT_EQ(one.examples[i].ids, four.examples[i].ids);
    EXPECT_EQ(one.examples[i].labels, four.examples[i].labels);
  }
  EXPECT_EQ(one.examples[0].label_count(), 3);
}

TEST(PrepareDataset, HoldsTheLengthRule) {
  const LetterProcessor processor;
  auto records = letters(4);
  records[2].question = "longer than that";
  LengthRule rule;
  rule.max_length = 10;
  expect_user_error(ExitCode::data, {records[2].id, "19 tokens", "at most 10", "data.max_length"},
                    [&] { prepare_dataset(processor, records, rule, 2); });
  rule.drop = true;
  const Dataset dataset = prepare_dataset(processor, records, rule, 2);
  EXPECT_EQ(dataset.too_long, (std::vector<std::size_t>{2}));
  EXPECT_EQ(dataset.examples.size(), 3u);
  rule.max_length = 1;
  expect_user_error(ExitCode::data, {"4 records", "4 longer"},
                    [&] { prepare_dataset(processor, records, rule, 2); });
}

TEST(PrepareDataset, NeedsLabels) {
  const LetterProcessor processor;
  expect_user_error(ExitCode::data, {"no samples", "0 records"},
                    [&] { prepare_dataset(processor, {}, {}, 2); });
  auto records = letters(2);
  records[1].answer = "";
  expect_user_error(ExitCode::data, {records[1].id, "no token"},
                    [&] { prepare_dataset(processor, records, {}, 1); });
  // A label at position 0 is predicted by nothing.
  records[1].question = "";
  records[1].answer = "y";
  expect_user_error(ExitCode::data, {records[1].id, "no token"},
                    [&] { prepare_dataset(processor, records, {}, 1); });
}

TEST(PrepareDataset, ThrowsTheFirstError) {
  const LetterProcessor processor;
  auto records = letters(26);
  for (const std::size_t i : {7u, 8u, 20u}) records[i].question = "broken";
  for (int round = 0; round < 20; ++round) {
    expect_user_error(ExitCode::data, {"broken " + records[7].id},
                      [&] { prepare_dataset(processor, records, {}, 4); });
  }
}

TEST(Pack, JoinsWithoutPadding) {
  const LetterProcessor processor;
  const std::vector<Record> records = {make_record("A", "p.png", "ab", "c"),
                                       make_record("B", "", "d", "ef")};
  const Dataset dataset = prepare_dataset(processor, records, {}, 1);
  const std::vector<const Example*> examples = {&dataset.examples[1], &dataset.examples[0]};
  const Batch batch = pack(processor, examples, true);
  EXPECT_EQ(batch.ids, (std::vector<std::int32_t>{'d', 'e', 'f', 'a', 'b', 'c'}));
  EXPECT_EQ(batch.labels, (std::vector<std::int32_t>{-100, 'e', 'f', -100, -100, 'c'}));
  EXPECT_EQ(batch.cu_seqlens, (std::vector<std::int32_t>{0, 3, 6}));
  EXPECT_EQ(batch.sample_ids, (std::vector<std::string>{"B", "A"}));
  ASSERT_EQ(batch.grids.size(), 1u);
  EXPECT_EQ(batch.patch_rows, 2);
  EXPECT_EQ(batch.patches, (std::vector<float>{65, 165, 265, 365}));
  const Batch bare = pack(processor, examples, false);
  EXPECT_EQ(bare.ids, batch.ids);
  EXPECT_TRUE(bare.patches.empty());
  EXPECT_EQ(bare.patch_rows, 2);
}

class Prefetching : public ::testing::Test {
 protected:
  Prefetching() : dataset_(prepare_dataset(processor_, letters(26), {}, 1)) {}
  std::vector<Order> pairs() const {
    std::vector<Order> batches;
    const Order order = epoch_order(26, true, 3407, 0);
    for (std::size_t i = 0; i < order.size(); i += 2) batches.push_back({order[i], order[i + 1]});
    return batches;
  }
  LetterProcessor processor_;
  Dataset dataset_;
};

TEST_F(Prefetching, GivesTheBatchesInOrderOnAnyNumberOfThreads) {
  for (const int threads : {1, 3, 0}) {
    Prefetcher prefetcher(processor_, dataset_, pairs(), threads);
    for (const Order& pair : pairs()) {
      const auto& examples = dataset_.examples;
      const std::vector<const Example*> chosen = {&examples[static_cast<std::size_t>(pair[0])],
                                                  &examples[static_cast<std::size_t>(pair[1])]};
      const Batch expected = pack(processor_, chosen, true);
      const auto batch = prefetcher.next();
      ASSERT_TRUE(batch.has_value());
      EXPECT_EQ(batch->ids, expected.ids);
      EXPECT_EQ(batch->labels, expected.labels);
      EXPECT_EQ(batch->patches, expected.patches);
      EXPECT_EQ(batch->sample_ids, expected.sample_ids);
    }
    EXPECT_FALSE(prefetcher.next().has_value());
    EXPECT_FALSE(prefetcher.next().has_value());
  }
}

TEST_F(Prefetching, EndsEarly) {
  for (int taken = 0; taken < 4; ++taken) {
    Prefetcher prefetcher(processor_, dataset_, pairs(), 3);
    for (int i = 0; i < taken; ++i) EXPECT_TRUE(prefetcher.next().has_value());
  }
  Prefetcher nothing(processor_, dataset_, {}, 2);
  EXPECT_FALSE(nothing.next().has_value());
}

TEST_F(Prefetching, StaysLittleAhead) {
  processor_.loaded = 0;
  Prefetcher prefetcher(processor_, dataset_, std::vector<Order>(50, Order{1}), 2);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_LE(processor_.loaded.load(), 3);
}

TEST_F(Prefetching, ThrowsWhereTheBatchWouldCome) {
  dataset_.examples[1].image = "bad.png";
  dataset_.examples[2].image = "odd.png";
  Prefetcher prefetcher(processor_, dataset_, {{3}, {5, 1}, {6}, {2}, {7}}, 3);
  EXPECT_TRUE(prefetcher.next().has_value());
  expect_user_error(ExitCode::data, {"bad picture"}, [&] { prefetcher.next(); });
  EXPECT_TRUE(prefetcher.next().has_value());
  EXPECT_THROW(prefetcher.next(), InternalError);
  EXPECT_TRUE(prefetcher.next().has_value());
  EXPECT_FALSE(prefetcher.next().has_value());
}

TEST_F(Prefetching, RefusesIndicesOutsideTheDataSet) {
  EXPECT_THROW(Prefetcher(processor_, dataset_, {{0}, {26}}, 1), InternalError);
}

using Order = std::vector<std::int64_t>;

// get_length_grouped_indices of transformers 5.17.0 with torch.Generator().manual_seed(seed), for
// samples i of (7919 i mod 13) + 1 tokens.
Order grouped(std::int64_t examples, std::int64_t step_samples, std::uint64_t seed) {
  Order lengths;
  for (std::int64_t i = 0; i < examples; ++i) lengths.push_back(i * 7919 % 13 + 1);
  return length_grouped(epoch_order(examples, true, seed, 0), lengths, step_samples);
}

TEST(LengthGrouped, IsTransformers) {
  EXPECT_EQ(grouped(23, 4, 3407), (Order{6,  18, 10, 7, 12, 5,  11, 17, 3,  9, 8, 1,
                                         16, 22, 13, 0, 4,  21, 14, 20, 19, 2, 15}));
  EXPECT_EQ(grouped(40, 2, 42),
            (Order{32, 18, 3,  22, 9,  15, 8,  14, 0,  13, 38, 37, 4,  17, 23, 29, 35, 2, 27, 7,
                   19, 6,  25, 12, 24, 10, 16, 21, 33, 39, 31, 5,  11, 30, 36, 28, 34, 1, 20, 26}));
  EXPECT_EQ(grouped(5, 8, 1), (Order{4, 3, 2, 1, 0}));
  // Pieces of 50 steps at most.
  const Order many = grouped(230, 1, 7);
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < many.size(); ++i) sum += static_cast<std::int64_t>(i + 1) * many[i];
  EXPECT_EQ(Order(many.begin(), many.begin() + 12),
            (Order{227, 6, 19, 188, 110, 181, 161, 96, 70, 89, 37, 11}));
  EXPECT_EQ(sum, 3064739);
}

TEST(LengthGrouped, OfNothingIsNothing) {
  EXPECT_TRUE(length_grouped({}, {}, 4).empty());
}

}  // namespace
}  // namespace medvqa::data
