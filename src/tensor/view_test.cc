#include "tensor/view.h"

#include <gmock/gmock.h>

#include <numeric>
#include <vector>

namespace cachalot {
namespace {

using ::testing::ElementsAre;

std::vector<float> counting(int count) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), 0.f);
  return values;
}

TEST(View, IsRowMajor) {
  std::vector<float> values = counting(24);
  const View<float, 3> view(values.data(), 2, 3, 4);
  EXPECT_EQ(view.size(), 24);
  EXPECT_THAT(view.strides(), ElementsAre(12, 4, 1));
  EXPECT_EQ(view(1, 2, 3), 23);
  EXPECT_EQ(view(0, 1, 0), 4);
  EXPECT_EQ(*view.row(1), 12);
  EXPECT_EQ(view[1](2, 0), 20);
  EXPECT_TRUE(view.is_contiguous());
}

TEST(View, SlicesKeepTheStridesOfTheWhole) {
  std::vector<float> values = counting(24);
  const View<float, 3> view(values.data(), 2, 3, 4);
  const View<float, 3> columns = view.slice(2, 1, 2);
  EXPECT_THAT(columns.extents(), ElementsAre(2, 3, 2));
  EXPECT_THAT(columns.strides(), ElementsAre(12, 4, 1));
  EXPECT_EQ(columns(1, 2, 1), 22);
  EXPECT_FALSE(columns.is_contiguous());
  EXPECT_TRUE(view.rows(1, 1).is_contiguous());
  EXPECT_EQ(view.rows(1, 1)(0, 0, 0), 12);
  columns(0, 0, 0) = 100;
  EXPECT_EQ(values[1], 100);
}

TEST(View, IsEmptyWhenAnyExtentIs) {
  EXPECT_TRUE((View<float, 2>().empty()));
  EXPECT_TRUE((View<float, 2>(nullptr, 3, 0).empty()));
  std::vector<float> values = counting(6);
  const View<float, 2> view(values.data(), 2, 3);
  EXPECT_FALSE(view.empty());
  EXPECT_TRUE(view.rows(2, 0).empty()) << "the end is a legal place";
}

TEST(View, OfConstElementsComesFromAnyView) {
  std::vector<float> values = counting(6);
  const View<float, 2> view(values.data(), 2, 3);
  const View<const float, 2> constant = view.slice(1, 1, 2);
  EXPECT_EQ(constant(1, 1), 5);
  EXPECT_EQ(constant.stride(0), 3);
}

TEST(ViewDeathTest, SlicesOutsideStopTheProgram) {
  std::vector<float> values = counting(6);
  const View<float, 2> view(values.data(), 2, 3);
  EXPECT_DEATH(view.slice(1, 2, 2), "slice \\[2, 4\\) of extent 3");
  EXPECT_DEATH(view.rows(-1, 1), "slice \\[-1, 0\\) of extent 2");
  EXPECT_DEATH(ComputeView<2>(view).rows(1, 2), "rows \\[1, 3\\) of 2");
}

TEST(ComputeView, KnowsItsTypeAtRunTime) {
  std::vector<bf16> values(12);
  const View<bf16, 2> view(values.data(), 3, 4);
  const ComputeView<2> compute(view.slice(1, 1, 2));
  EXPECT_EQ(compute.dtype(), DType::kBF16);
  EXPECT_EQ(compute.extent(1), 2);
  EXPECT_EQ(compute.stride(0), 4);
  compute.as<bf16>()(2, 1) = bf16(3.f);
  EXPECT_EQ(static_cast<float>(values[10]), 3.f);
  EXPECT_EQ(compute.rows(1, 2).data(), &values[5]);
  EXPECT_EQ(compute[2].data(), &values[9]);
  EXPECT_EQ(compute[2].extent(0), 2);
  EXPECT_DEATH(compute.as<float>(), "a BF16 view read as F32");
}

TEST(ComputeView, VisitsWithTheElementType) {
  size_t size = 0;
  visit_compute(DType::kBF16, [&]<class T>() { size = sizeof(T); });
  EXPECT_EQ(size, 2u);
  visit_compute(DType::kF32, [&]<class T>() { size = sizeof(T); });
  EXPECT_EQ(size, 4u);
  EXPECT_DEATH(visit_compute(DType::kI8, []<class T>() {}), "I8 is no compute dtype");
}

}  // namespace
}  // namespace cachalot
