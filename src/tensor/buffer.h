#pragma once

#include <cstddef>
#include <functional>
#include <utility>

#include "base/check.h"
#include "tensor/view.h"

namespace cachalot {

// Owned memory. Every Buffer comes from a Device, which may not be the host; only kernels and comm look inside.
class Buffer {
 public:
  using Release = void (*)(std::byte* data, size_t size);

  Buffer() = default;
  Buffer(std::byte* data, size_t size, Release release) : data_(data), size_(size), release_(release) {}
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer(std::move(other)).swap(*this);
    return *this;
  }
  ~Buffer() {
    if (data_) release_(data_, size_);
  }

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

  // The first elements as a contiguous view of these extents.
  template <class T, class... Extents>
  View<T, sizeof...(Extents)> view(Extents... extents) const {
    View<T, sizeof...(Extents)> view(reinterpret_cast<T*>(data_), extents...);
    CHECK(static_cast<size_t>(view.size()) * sizeof(T) <= size_, "view of {} bytes on a buffer of {}",
          view.size() * sizeof(T), size_);
    return view;
  }

 private:
  void swap(Buffer& other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(release_, other.release_);
  }
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  Release release_ = nullptr;
};

}  // namespace cachalot
