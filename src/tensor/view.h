#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

#include "base/error.h"
#include "base/math.h"
#include "tensor/dtype.h"

namespace cachalot {

// A borrowed, row-major window on memory that somebody else owns. The last dimension is contiguous; the outer ones have
// strides (in elements), so that a view can be a slice of a wider tensor. Copying a view copies no element.
template <class T, int Rank>
class View {
 public:
  View() = default;
  // Contiguous: View<float, 2> x(data, num_rows, num_cols).
  template <class... Extents>
    requires(sizeof...(Extents) == Rank)
  explicit View(T* data, Extents... extents) : data_(data), extents_{static_cast<int64_t>(extents)...} {
    int64_t stride = 1;
    for (int dim = Rank - 1; dim >= 0; dim--) {
      strides_[dim] = stride;
      stride *= extents_[dim];
    }
  }
  View(T* data, std::array<int64_t, Rank> extents, std::array<int64_t, Rank> strides)
      : data_(data), extents_(extents), strides_(strides) {}
  // View<T> to View<const T>.
  template <class U>
    requires(std::is_same_v<const U, T>)
  View(const View<U, Rank>& other)  // NOLINT(google-explicit-constructor)
      : data_(other.data()), extents_(other.extents()), strides_(other.strides()) {}

  T* data() const { return data_; }
  int64_t extent(int dim) const { return extents_[dim]; }
  int64_t stride(int dim) const { return strides_[dim]; }
  const std::array<int64_t, Rank>& extents() const { return extents_; }
  const std::array<int64_t, Rank>& strides() const { return strides_; }
  bool empty() const { return size() == 0; }
  int64_t size() const {
    int64_t size = 1;
    for (int64_t extent : extents_) size *= extent;
    return size;
  }
  bool is_contiguous() const {
    int64_t stride = 1;
    for (int dim = Rank - 1; dim >= 0; dim--) {
      if (strides_[dim] != stride) return false;
      stride *= extents_[dim];
    }
    return true;
  }

  template <class... Indices>
    requires(sizeof...(Indices) == Rank)
  T& operator()(Indices... indices) const {
    const std::array<int64_t, Rank> index{static_cast<int64_t>(indices)...};
    int64_t offset = 0;
    for (int dim = 0; dim < Rank; dim++) offset += index[dim] * strides_[dim];
    return data_[offset];
  }
  // The address of a row of the first dimension; of a 1-D view, of an element.
  T* row(int64_t index) const { return data_ + index * strides_[0]; }
  // x[index]: one dimension less.
  View<T, Rank - 1> operator[](int64_t index) const
    requires(Rank > 1)
  {
    std::array<int64_t, Rank - 1> extents, strides;
    for (int dim = 1; dim < Rank; dim++) extents[dim - 1] = extents_[dim], strides[dim - 1] = strides_[dim];
    return View<T, Rank - 1>(data_ + index * strides_[0], extents, strides);
  }
  // Elements [begin, begin + count) of dimension `dim`.
  View slice(int dim, int64_t begin, int64_t count) const {
    CHECK(begin >= 0 && count >= 0 && begin + count <= extents_[dim], "slice [{}, {}) of extent {}", begin,
          begin + count, extents_[dim]);
    View view = *this;
    view.data_ += begin * strides_[dim];
    view.extents_[dim] = count;
    return view;
  }
  View rows(int64_t begin, int64_t count) const { return slice(0, begin, count); }

 private:
  T* data_ = nullptr;
  std::array<int64_t, Rank> extents_{};
  std::array<int64_t, Rank> strides_{};
};

// A view whose elements have the compute dtype (F32 or BF16), known only at run time: KV cache, exchanged rows, partial
// sums between ranks. Row-major and contiguous in the last dimension.
template <int Rank>
class ComputeView {
 public:
  ComputeView() = default;
  template <class T>
  explicit ComputeView(View<T, Rank> view) : ComputeView(view.data(), dtype_of<T>(), view.extents(), view.strides()) {}
  template <class... Extents>
    requires(sizeof...(Extents) == Rank)
  ComputeView(void* data, DType dtype, Extents... extents)
      : dtype_(dtype), shape_(static_cast<std::byte*>(data), extents...) {}
  ComputeView(void* data, DType dtype, std::array<int64_t, Rank> extents, std::array<int64_t, Rank> strides)
      : dtype_(dtype), shape_(static_cast<std::byte*>(data), extents, strides) {}

  DType dtype() const { return dtype_; }
  void* data() const { return shape_.data(); }
  int64_t extent(int dim) const { return shape_.extent(dim); }
  int64_t stride(int dim) const { return shape_.stride(dim); }
  bool empty() const { return shape_.empty(); }
  template <class T>
  View<T, Rank> as() const {
    CHECK(dtype_of<T>() == dtype_, "a {} view read as {}", dtype_name(dtype_), dtype_name(dtype_of<T>()));
    return View<T, Rank>(static_cast<T*>(data()), shape_.extents(), shape_.strides());
  }
  ComputeView<Rank - 1> operator[](int64_t index) const
    requires(Rank > 1)
  {
    const View<std::byte, Rank - 1> inner = shape_[0];
    return {row(index), dtype_, inner.extents(), inner.strides()};
  }
  ComputeView rows(int64_t begin, int64_t count) const {
    CHECK(begin >= 0 && count >= 0 && begin + count <= extent(0), "rows [{}, {}) of {}", begin, begin + count,
          extent(0));
    return {row(begin), dtype_, shape_.rows(0, count).extents(), shape_.strides()};
  }

 private:
  void* row(int64_t index) const { return shape_.row(index * static_cast<int64_t>(dtype_size(dtype_))); }

  DType dtype_ = DType::kF32;
  View<std::byte, Rank> shape_;  // strides count elements
};

// What body gives, called with the views' element type: visit_compute(dtype, [&]<class T>() { ... x.as<T>() ... }).
// (The result is not deduced from what is done here: clang drops members that a class has further down if a body that
// calls them is looked into so early.)
template <class Body>
auto visit_compute(DType dtype, Body&& body) -> decltype(body.template operator()<float>()) {
  if (dtype == DType::kBF16) return body.template operator()<bf16>();
  CHECK(dtype == DType::kF32, "{} is no compute dtype", dtype_name(dtype));
  return body.template operator()<float>();
}

// Owned memory. Every Buffer comes from a Device, which may not be the host; only kernels and comm look inside.
class Buffer {
 public:
  using Release = void (*)(std::byte* data, size_t size);

  Buffer() = default;
  Buffer(std::byte* data, size_t size, Release release) : data_(data, {size, release}) {}

  std::byte* data() const { return data_.get(); }
  size_t size() const { return data_.get_deleter().size; }

  // The first elements as a contiguous view of these extents.
  template <class T, class... Extents>
  View<T, sizeof...(Extents)> view(Extents... extents) const {
    View<T, sizeof...(Extents)> view(reinterpret_cast<T*>(data()), extents...);
    CHECK(static_cast<size_t>(view.size()) * sizeof(T) <= size(), "view of {} bytes on a buffer of {}",
          view.size() * sizeof(T), size());
    return view;
  }

 private:
  struct Releaser {
    size_t size;
    Release release;
    void operator()(std::byte* data) const { release(data, size); }
  };
  std::unique_ptr<std::byte, Releaser> data_;
};

// Cuts arrays out of a piece of memory, each on cache lines of its own. Without memory it only adds up their sizes, so
// that one function both lays out and measures.
class Carver {
 public:
  explicit Carver(std::byte* memory) : memory_(memory) {}

  template <class T, class... Extents>
  View<T, sizeof...(Extents)> take(Extents... extents) {
    const View<T, sizeof...(Extents)> view(memory_ ? reinterpret_cast<T*>(memory_ + used_) : nullptr, extents...);
    used_ += round_up(static_cast<size_t>(view.size()) * sizeof(T), size_t{64});
    return view;
  }
  size_t used() const { return used_; }

 private:
  std::byte* memory_;
  size_t used_ = 0;
};

}  // namespace cachalot
