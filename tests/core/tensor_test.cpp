#include "medvqa/core/tensor.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace medvqa {
namespace {

struct Matrix {
  std::vector<float> values = std::vector<float>(24);
  Tensor t{values.data(), DType::f32, {4, 6}};
  Matrix() { std::iota(values.begin(), values.end(), 0.0f); }
};

float element(const Tensor& t, std::int64_t row, std::int64_t column) {
  return t.as<float>()[row * t.row_stride + column];
}

TEST(Shape, CountsAndChecks) {
  EXPECT_EQ(Shape().rank(), 0);
  EXPECT_EQ(Shape().elements(), 0);
  EXPECT_EQ((Shape{2, 3, 4}).elements(), 24);
  EXPECT_EQ((Shape{2, 0}).elements(), 0);
  EXPECT_EQ((Shape{2, 3, 4}).dim(-1), 4);
  EXPECT_EQ((Shape{2, 3, 4}).dim(-3), 2);
  EXPECT_EQ((Shape{2, 3}).str(), "[2, 3]");
  EXPECT_THROW((Shape{2, 3}).dim(2), InternalError);
  EXPECT_THROW((Shape{2, 3}).dim(-3), InternalError);
  EXPECT_THROW((Shape{2, -1}), InternalError);
  EXPECT_THROW((Shape{1, 1, 1, 1, 1}), InternalError);
  EXPECT_NE((Shape{6}), (Shape{6, 1}));
}

TEST(Tensor, NoTensorIsFalse) {
  EXPECT_FALSE(static_cast<bool>(Tensor()));
  EXPECT_TRUE(static_cast<bool>(Tensor(nullptr, DType::f32, {0, 3})));
}

TEST(Tensor, ColumnsKeepTheStride) {
  const Matrix m;
  const Tensor c = m.t.columns(2, 5);
  EXPECT_EQ(c.shape, (Shape{4, 3}));
  EXPECT_FALSE(c.contiguous());
  EXPECT_EQ(element(c, 0, 0), 2);
  EXPECT_EQ(element(c, 3, 2), 22);
  EXPECT_EQ(element(c.columns(1, 2), 2, 0), 15);
  EXPECT_TRUE(m.t.columns(0, 6).contiguous());
  EXPECT_THROW(m.t.columns(0, 7), InternalError);
  EXPECT_THROW(m.t.columns(3, 2), InternalError);
  EXPECT_THROW(m.t.reshaped({4, 2, 3}).columns(0, 1), InternalError);
}

TEST(Tensor, RowsBetweenOfAnyRankAndOfColumns) {
  const Matrix m;
  const Tensor r = m.t.rows_between(1, 3);
  EXPECT_EQ(r.shape, (Shape{2, 6}));
  EXPECT_EQ(element(r, 0, 0), 6);
  EXPECT_EQ(element(m.t.columns(4, 6).rows_between(2, 4), 1, 1), 23);
  EXPECT_EQ(m.t.reshaped({4, 2, 3}).rows_between(3, 4).shape, (Shape{1, 2, 3}));
  EXPECT_EQ(m.t.rows_between(4, 4).elements(), 0);
  EXPECT_TRUE(m.t.columns(0, 2).rows_between(1, 2).contiguous());  // one row
  EXPECT_THROW(m.t.rows_between(2, 5), InternalError);
  EXPECT_THROW(m.t.rows_between(-1, 2), InternalError);
}

TEST(Tensor, ReshapedKeepsElementsAndStridedRows) {
  const Matrix m;
  EXPECT_EQ(element(m.t.reshaped({8, 3}), 3, 1), 10);
  EXPECT_THROW(m.t.reshaped({5, 5}), InternalError);
  const Tensor heads = m.t.columns(2, 6).reshaped({4, 2, 2});
  EXPECT_EQ(heads.row_stride, 6);
  EXPECT_EQ(element(heads, 1, 3), 11);
  EXPECT_THROW(m.t.columns(2, 6).reshaped({8, 2}), InternalError);
}

TEST(Tensor, CountsOfRowsAndBytes) {
  const Tensor t(nullptr, DType::bf16, {4, 2, 3});
  EXPECT_EQ(t.rows(), 8);
  EXPECT_EQ(t.row_elements(), 6);
  EXPECT_EQ(t.bytes(), 48u);
  EXPECT_EQ(Tensor(nullptr, DType::f32, {0, 3}).rows(), 0);
  EXPECT_EQ(Tensor(nullptr, DType::f32, {3, 0}).rows(), 0);
}

TEST(Tensor, AsChecksTheType) {
  const Matrix m;
  EXPECT_THROW(m.t.as<double>(), InternalError);
  EXPECT_EQ(m.t.as<float>(), m.values.data());
}

TEST(Tensor, ViewsOfNothingStayNull) {
  const Tensor dry(nullptr, DType::f32, {4, 6});
  EXPECT_EQ(dry.columns(2, 5).data, nullptr);
  EXPECT_EQ(dry.rows_between(2, 3).data, nullptr);
  EXPECT_EQ(dry.columns(2, 5).row_stride, 6);
}

}  // namespace
}  // namespace medvqa
